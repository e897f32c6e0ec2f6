// express-api: listens, and stops as the contract (../CONTRACT.md) says.
import { createServer } from 'node:http';
import { createApp } from './app.js';
import { writeLine } from './request-log.js';

/** Reads a whole number from the environment, or exits with status 2 and a sentence. */
function numberFrom(name, initial, low, high) {
  const text = process.env[name] || String(initial);
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(value >= low && value <= high)) {
    process.stderr.write(
      `express-api: expected ${name} to be a whole number from ${low} to ${high}, got: ${JSON.stringify(text)}\n`,
    );
    process.exit(2);
  }
  return value;
}

const port = numberFrom('PORT', 8003, 1, 65535);
const graceMs = numberFrom('SHUTDOWN_TIMEOUT', 8, 1, 300) * 1000;
const host = process.env.HOST || '127.0.0.1';

let stopping = false;
const app = createApp({ release: process.env.FAIRWAY_RELEASE || 'dev' });
const server = createServer((request, response) => {
  if (stopping) {
    response.shouldKeepAlive = false; // answers "Connection: close"
  }
  // A kept-alive connection that becomes idle while the server stops would hold it until its time-out.
  response.once('close', () => {
    if (stopping) {
      setImmediate(() => server.closeIdleConnections());
    }
  });
  app(request, response);
});

server.on('error', (error) => {
  process.stderr.write(`express-api: ${error.message}\n`);
  process.exit(1);
});

server.listen(port, host, () => {
  writeLine({ level: 'info', message: `listening on ${host}:${port}` });
});

function stop() {
  if (stopping) {
    return;
  }
  stopping = true;
  writeLine({ level: 'info', message: 'stopping: requests in flight finish' });
  server.close(() => {
    writeLine({ level: 'info', message: 'stopped' });
    process.exitCode = 0; // the event loop is empty: Node ends by itself, with stdout flushed
  });
  server.closeIdleConnections();
  setTimeout(() => {
    writeLine({ level: 'warning', message: 'requests outlasted SHUTDOWN_TIMEOUT and were cut off' });
    server.closeAllConnections();
  }, graceMs).unref();
}

process.on('SIGTERM', stop);
process.on('SIGINT', stop);
