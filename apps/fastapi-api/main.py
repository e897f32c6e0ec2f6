"""fastapi-api: a small FastAPI backend that keeps the contract of ../CONTRACT.md.

Run it as `python main.py`: uvicorn inside, with JSON lines in place of its own access log.
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from request_log import JsonHandler, RequestLog

MAX_SLOW_MS = 10_000


class Index(BaseModel):
    """What `GET /` answers."""

    service: str
    language: str
    release: str


class Health(BaseModel):
    """What `GET /healthz` answers."""

    status: str


class Slow(BaseModel):
    """What `GET /slow` answers."""

    slept_ms: int


api = FastAPI(title="fastapi-api", version="1.0.0", redirect_slashes=False)


@api.get("/")
async def index() -> Index:
    """Say who answers."""
    return Index(service="fastapi-api", language="python", release=os.environ.get("FAIRWAY_RELEASE") or "dev")


@api.get("/healthz")
async def health() -> Health:
    """Say that the process answers."""
    return Health(status="ok")


@api.get("/slow")
async def slow(ms: Annotated[int, Query(ge=0, le=MAX_SLOW_MS)]) -> Slow:
    """Answer after `ms` milliseconds."""
    await asyncio.sleep(ms / 1000)
    return Slow(slept_ms=ms)


@api.exception_handler(HTTPException)
async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Answer an error in the contract's form."""
    allow = {"Allow": "GET, HEAD"} if error.status_code == 405 else None
    return JSONResponse({"error": f"{error.detail}: {request.url.path}"}, error.status_code, headers=allow)


@api.exception_handler(RequestValidationError)
async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a parameter that cannot be used with 400 and what was expected."""
    sentences = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return JSONResponse({"error": "; ".join(sentences)}, 400)


@api.exception_handler(Exception)
async def on_failure(_: Request, __: Exception) -> JSONResponse:
    """Answer a fault of ours; uvicorn logs the exception."""
    return JSONResponse({"error": "internal error"}, 500)


async def head_as_get(scope: Scope, receive: Receive, send: Send) -> None:
    """Let HEAD go where GET goes; the server leaves the body out."""
    if scope["type"] == "http" and scope["method"] == "HEAD":
        scope = {**scope, "method": "GET"}
    await api(scope, receive, send)


app = RequestLog(head_as_get)
"""What an ASGI server serves: `uvicorn main:app` works too, with uvicorn's own log beside ours."""


def number(name: str, initial: int, low: int, high: int) -> int:
    """Read a whole number from the environment, or exit with status 2 and a sentence."""
    text = os.environ.get(name) or str(initial)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        sys.stderr.write(f"fastapi-api: expected {name} to be a whole number from {low} to {high}, got: {text!r}\n")
        raise SystemExit(2)
    return int(text)


def main() -> None:
    """Serve until SIGTERM or SIGINT, let requests in flight finish, exit with status 0."""
    port = number("PORT", 8002, 1, 65535)
    grace = number("SHUTDOWN_TIMEOUT", 8, 1, 300)
    logging.basicConfig(level=logging.INFO, handlers=[JsonHandler()])
    # uvicorn raises the signal again once it has stopped; the default handler would turn a clean end into status 143.
    for number_of_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_of_signal, lambda *_: None)
    config = uvicorn.Config(
        app,
        host=os.environ.get("HOST") or "127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        raise SystemExit(1)  # the reason is in the log


if __name__ == "__main__":
    main()
