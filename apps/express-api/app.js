// The endpoints of the contract (../CONTRACT.md); `server.js` listens.
import express from 'express';
import { setTimeout as sleep } from 'node:timers/promises';
import { requestLog, writeLine } from './request-log.js';

const MAX_SLOW_MS = 10_000;

const notAllowed = (request, response) => {
  response.set('Allow', 'GET, HEAD').status(405).json({ error: `${request.method} is not allowed here` });
};

/** Builds the Express application. `release` is what `GET /` reports. */
export function createApp({ release }) {
  const app = express();
  app.disable('x-powered-by');
  app.set('etag', false);
  app.enable('strict routing'); // /healthz/ is another path
  app.enable('case sensitive routing');
  app.use(requestLog);

  app.route('/').get((request, response) => {
    response.json({ service: 'express-api', language: 'javascript', release });
  }).all(notAllowed);

  app.route('/healthz').get((request, response) => {
    response.json({ status: 'ok' });
  }).all(notAllowed);

  app.route('/slow').get(async (request, response) => {
    const text = request.query.ms;
    const ms = typeof text === 'string' && /^\d{1,5}$/.test(text) ? Number(text) : NaN;
    if (!(ms <= MAX_SLOW_MS)) {
      const came = JSON.stringify(text) ?? 'nothing';
      response.status(400).json({ error: `expected ms to be a whole number from 0 to ${MAX_SLOW_MS}, got: ${came}` });
      return;
    }
    // A client that has gone is not waited for, and a server that stops is not held up by it.
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      await sleep(ms, undefined, { signal: gone.signal });
    } catch (error) {
      if (error.name === 'AbortError') {
        return;
      }
      throw error;
    }
    response.json({ slept_ms: ms });
  }).all(notAllowed);

  app.use((request, response) => {
    response.status(404).json({ error: `nothing at ${request.path}` });
  });

  // Four parameters make it Express's error handler.
  app.use((error, request, response, next) => {
    const status = error.status >= 400 && error.status < 500 ? error.status : 500;
    if (status === 500) {
      writeLine({ level: 'error', message: error.stack ?? String(error) });
    }
    if (response.headersSent) {
      next(error); // Express closes the connection: half an answer must not look whole
      return;
    }
    response.status(status).json({ error: status === 500 ? 'internal error' : error.message });
  });
  return app;
}
