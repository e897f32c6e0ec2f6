"""One JSON line a request on stdout, and a request id on every answer."""

import asyncio
import json
import logging
import re
import secrets
import sys
import time
from datetime import UTC, datetime

_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED_REQUEST = 499  # what proxies log for an answer that nobody was left to receive
_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


def _timestamp():
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_line(fields):
    """Write one line at once: lines of several threads never mix."""
    sys.stdout.write(json.dumps({"time": _timestamp(), **fields}, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class JsonHandler(logging.Handler):
    """Sends the standard library's log records, uvicorn's included, down the same road."""

    def emit(self, record):
        fields = {"level": _LEVELS.get(record.levelno, "error"), "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        write_line(fields)


async def answer(send, status, sentence):
    """Send a whole answer in the contract's form."""
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})


class RequestLog:
    """ASGI middleware, outermost: it sees the status that the client sees.

    Plain ASGI and not `BaseHTTPMiddleware`, which puts every body through a task and a queue of its own.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if _VALID_ID.fullmatch(given) else secrets.token_hex(16).encode()
        started = time.perf_counter()
        status = 0

        async def send_with_id(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", request_id)]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # uvicorn cancels what outlasts its graceful shutdown. The task ends here, so nothing is kept from ending.
            if status:
                raise
            await answer(send_with_id, 503, "this instance is stopping, try again")
        except Exception:
            status = status or 500  # uvicorn answers it
            raise
        finally:
            status = status or CLIENT_CLOSED_REQUEST
            write_line(
                {
                    "level": "error" if status >= 500 else "warning" if status >= 400 else "info",
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "duration_ms": round((time.perf_counter() - started) * 1000, 3),
                    "request_id": request_id.decode(),
                }
            )
