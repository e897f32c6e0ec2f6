// One JSON line a request on stdout, and a request id on every answer.
import { randomUUID } from 'node:crypto';

// What proxies log for an answer that could not be delivered.
const CLIENT_CLOSED_REQUEST = 499;
const VALID_ID = /^[A-Za-z0-9._-]{1,128}$/;

/** Writes one JSON line; `fields` follow the time. */
export function writeLine(fields) {
  process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), ...fields })}\n`);
}

const levelOf = (status) => (status >= 500 ? 'error' : status >= 400 ? 'warning' : 'info');

/** Express middleware; use it first. */
export function requestLog(request, response, next) {
  const started = performance.now();
  const given = request.get('X-Request-Id') ?? '';
  const requestId = VALID_ID.test(given) ? given : randomUUID();
  const path = request.path; // routers change request.url on the way
  response.set('X-Request-Id', requestId);
  // 'close' follows both a complete answer and a client that went away, once each.
  response.once('close', () => {
    const status = response.writableFinished ? response.statusCode : CLIENT_CLOSED_REQUEST;
    writeLine({
      level: levelOf(status),
      method: request.method,
      path,
      status,
      duration_ms: Math.round((performance.now() - started) * 1000) / 1000,
      request_id: requestId,
    });
  });
  next();
}
