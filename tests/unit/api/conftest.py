"""The ASGI application without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from starlette.types import ASGIApp, Message


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def call() -> Callable[..., Any]:
    """Return a function that sends one request to an ASGI application and returns the whole answer."""

    async def send_request(
        app: ASGIApp,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | list[bytes] = b"",
        query: str = "",
        local: bool = False,
    ) -> Answer:
        chunks = body if isinstance(body, list) else [body]
        told = {"host": "127.0.0.1:7070", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
            "client": ("127.0.0.1", 1),
            "server": ("/run/api.sock", None) if local else ("127.0.0.1", 7070),
        }
        sent: list[Message] = []
        left = list(chunks)

        async def receive() -> Message:
            if left:
                chunk = left.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(left)}
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)
        start = next(message for message in sent if message["type"] == "http.response.start")
        payload = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
        return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, payload)

    return send_request
