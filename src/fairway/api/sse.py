"""Server-sent events: a stream of small messages over one HTTP answer, with ids to resume from.

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEARTBEAT = 15.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event.

    Attributes:
        data: Anything that msgspec encodes.
        event: Its name; an empty one is the client's ``message``.
        id: What the client sends back as ``Last-Event-ID``; None leaves the last one in place.
    """

    data: Any
    event: str = ""
    id: str | None = None

    def encode(self) -> bytes:
        """Return the event as bytes; line breaks cannot occur in JSON and are taken out of id and name."""
        head = ""
        if self.id is not None:
            head += f"id: {_one_line(self.id)}\n"
        if self.event:
            head += f"event: {_one_line(self.event)}\n"
        return head.encode() + b"data: " + msgspec.json.encode(self.data) + b"\n\n"


class _Stream(StreamingResponse):
    """Calls `on_end` however the answer ends: an iterator that was never begun runs no ``finally`` of its own."""

    on_end: Callable[[], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self.on_end is not None:
                self.on_end()


def stream(
    events: AsyncIterator[ServerSentEvent],
    *,
    heartbeat: float = HEARTBEAT,
    on_end: Callable[[], None] | None = None,
) -> StreamingResponse:
    """Return the response that sends `events` as they come, and a comment every `heartbeat` seconds of silence.

    When the client goes, the iterator is closed, so its ``finally`` runs, if it had been begun; `on_end` is called in
    any case. A slow client holds the iterator up.
    """
    response = _Stream(_encoded(events, heartbeat), media_type="text/event-stream", headers=_HEADERS)
    response.on_end = on_end
    return response


async def _encoded(events: AsyncIterator[ServerSentEvent], heartbeat: float) -> AsyncIterator[bytes]:
    yield b": fairway\n\n"  # headers and this reach the client at once, whatever comes later
    waiting: asyncio.Future[ServerSentEvent] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({waiting}, timeout=heartbeat)
            if not done:
                yield b": still here\n\n"
                continue
            finished, waiting = waiting, None
            try:
                event = finished.result()
            except StopAsyncIteration:
                return
            yield event.encode()
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)  # it may have ended, or failed, meanwhile
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
