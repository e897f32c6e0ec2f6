"""uvicorn's HTTP protocol with shortcuts for calls that come thousands of times a second.

- *The short way*: a request that a `Short` takes is answered without a task, a scope and a router of its own: what is
  to be done begins where the last byte of the body arrives, and its future writes the answer. A `Short` takes only
  what is in order in every respect; anything else goes the long way, through the application, before anything was
  done. So there is one place that refuses, and nothing is refused or allowed in two ways.
- *A known head*: a request on the short way that begins as the one before it on its connection is not parsed again;
  see `fairway.api.head`.
- *One write*: an endpoint that has its whole answer hands it to `ANSWER`, an ASGI extension, which writes head and
  body in one system call. uvicorn writes the two of `http.response.start` and `http.response.body` apart, and the
  client wakes up twice.

HTTP itself (parsing, keep-alive, pipelining, back-pressure, graceful shutdown) stays httptools' and uvicorn's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from typing import Protocol as Interface
from weakref import ref

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from fairway.api.head import Head

_log = logging.getLogger(__name__)

ANSWER = "fairway.answer"
"""ASGI extension: ``scope["extensions"][ANSWER]["call"](status, head, body)`` answers; False if it cannot now."""

LONGEST = 65_536
"""Bytes of the longest body that goes the short way; a longer one is read with back-pressure."""


class Answer(NamedTuple):
    """A whole answer.

    Attributes:
        status: HTTP status.
        head: Header lines, each with its line break, without ``content-length``.
        body: The body.
    """

    status: int
    head: bytes
    body: bytes


class Short(Interface):
    """What may be answered the short way."""

    def takes(self, url: bytes) -> bool:
        """Say whether a POST to this request target may go the short way: a cheap look, before its headers are."""

    def begin(
        self, url: bytes, headers: dict[bytes, bytes], body: bytes, local: bool
    ) -> tuple[asyncio.Future[Any], Callable[[asyncio.Future[Any]], Answer]] | None:
        """Begin a request and return its future and what makes an answer of that; else it goes the long way.

        None, and an exception, promise that nothing has been done: the long way refuses, and logs what is a bug.

        Args:
            url: The request target.
            headers: Its headers but the length, names in lower case, none of them twice; not to be changed.
            body: The whole body.
            local: Whether it came over a Unix socket.
        """


class _ShortCycle(RequestResponseCycle):
    """What the protocol has to know of a request on the short way, for its bookkeeping; one a connection."""

    def __init__(self, keep_alive: bool) -> None:
        # Not the base's, which prepares for an application: only what `HttpToolsProtocol` asks a cycle for.
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.message_event = _NOBODY_WAITS


class _Unheard(asyncio.Event):
    """The event of cycles that no application waits for."""

    def set(self) -> None:
        """Do nothing: it is shared."""


_NOBODY_WAITS = _Unheard()


class Protocol(HttpToolsProtocol):
    """One connection; a subclass of `protocol_for` says what goes the short way."""

    short: Short | None = None

    _on_short_way: _ShortCycle | None = None
    _waiting: dict[bytes, bytes] | None = None  # headers of a request that may go the short way
    _body = b""
    _begun = _ended = 0  # messages in what is being read
    _taken: tuple[dict[bytes, bytes], bytes, bool] | None = None  # the last of them, if it went the short way
    _idle_since = 0.0  # by the loop's clock
    _head: Head | None = None  # of the request before, where the parser is at its end and nowhere else

    def data_received(self, data: bytes) -> None:
        """Take what was read: past the parser where it is one request that begins as the one before it did."""
        head = self._head
        if head is not None and self.cycle.response_complete and not self.flow.write_paused:
            body = head.body_of(data, LONGEST)
            if body is not None and self._begin(head.url, head.headers, body, head.keep_alive):
                return
        self._begun = self._ended = 0
        self._taken = None
        super().data_received(data)
        self._head = self._read_now(data)

    def _read_now(self, data: bytes) -> Head | None:
        """Return the head of the one request that `data` was, if it went the short way."""
        # One that began and ended in these bytes: what the parser had before was at its end, too.
        if self._taken is None or not self._begun == self._ended == 1:
            return None
        headers, body, keep_alive = self._taken
        return Head.of(data, body, self.url, headers, keep_alive=keep_alive)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Look which way the request goes; the short one waits for the body."""
        if self.short is not None and self.short.takes(self.url) and self._is_simple():
            return
        self._go_long()

    def _is_simple(self) -> bool:
        """Say whether the request may go the short way as far as HTTP is concerned; then its headers are kept."""
        cycle = self.cycle
        if (
            (cycle is not None and not cycle.response_complete)  # pipelined
            or self.flow.write_paused
            or self.expect_100_continue
            or self.limit_concurrency is not None
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
        ):
            return False
        headers = dict(self.headers)
        length = headers.pop(b"content-length", b"")
        if len(headers) != len(self.headers) - 1 or not length.isdigit() or len(length) > 5 or int(length) > LONGEST:
            return False
        self._waiting = headers
        self._body = b""
        return True

    def _go_long(self) -> None:
        super().on_headers_complete()
        if self.cycle is not None:
            # Weakly: the cycle refers to its scope, and no request may leave garbage that only the collector finds.
            self.scope["extensions"] = {ANSWER: {"call": partial(self._answer, ref(self.cycle))}}

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if self._waiting is None:
            super().on_body(body)
        else:
            self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """The request is complete: begin it, or send it the long way."""
        self._ended += 1
        headers, self._waiting = self._waiting, None
        if headers is None:
            super().on_message_complete()
            return
        body, self._body = self._body, b""
        keep_alive = self.parser.should_keep_alive()
        if self._begin(self.url, headers, body, keep_alive):
            self._taken = headers, body, keep_alive
        else:
            self._replay(body)

    def _begin(self, url: bytes, headers: dict[bytes, bytes], body: bytes, keep_alive: bool) -> bool:
        """Begin a request on the short way; False where it has to go the long one, and nothing was done."""
        assert self.short is not None
        local = self.server is not None and self.server[1] is None
        try:
            begun = self.short.begin(url, headers, body, local)
        except Exception as error:  # refused, or a bug: the long way says which, and logs a bug
            _log.debug("a request goes the long way: %r", error)
            return False
        if begun is None:
            return False
        future, answer = begun
        cycle = self._on_short_way
        if cycle is None:
            cycle = self._on_short_way = _ShortCycle(keep_alive)
        else:
            cycle.response_complete, cycle.keep_alive = False, keep_alive
        self.cycle = cycle
        future.add_done_callback(partial(self._finish, cycle, answer))
        return True

    def _replay(self, body: bytes) -> None:
        """Send a request that was read to its end the long way."""
        self._go_long()
        super().on_body(body)
        super().on_message_complete()

    def _finish(
        self, cycle: _ShortCycle, answer: Callable[[asyncio.Future[Any]], Answer], future: asyncio.Future[Any]
    ) -> None:
        if future.cancelled():  # the loop ends: there is nothing to say, and nobody may take silence for success
            self.transport.close()
            return
        status, head, body = answer(future)
        self._write(status, head, body, cycle.keep_alive)
        cycle.response_complete = True
        if self.pipeline or self.transport.is_closing():
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """Close a connection that was idle for long: one timer for many requests, each of which would set its own."""
        self.timeout_keep_alive_task = None
        if not self.cycle.response_complete:
            return  # its end begins a new wait
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self.timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self._close_if_idle)

    def _answer(self, weakly: ref[RequestResponseCycle], status: int, head: bytes, body: bytes) -> bool:
        """Answer a request of the long way at once; False where back-pressure or its beginning forbids it."""
        cycle = weakly()
        if cycle is None or self.flow.write_paused or cycle.response_started:
            return False
        if not cycle.disconnected:
            cycle.response_started = cycle.response_complete = True
            cycle.waiting_for_100_continue = False
            self._write(status, head, body, cycle.keep_alive)
            cycle.message_event.set()
            cycle.on_response()
        return True

    def _write(self, status: int, head: bytes, body: bytes, keep_alive: bool) -> None:
        if self.transport.is_closing():
            return
        lines = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (head, b"content-length: %d\r\n" % len(body), b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        lines.append(body)
        self.transport.write(b"".join(lines))
        if not keep_alive:
            self.transport.close()


def protocol_for(short: Short | None) -> type[Protocol]:
    """Return the protocol of a server whose application has this short way, or none."""
    return type("ShortProtocol", (Protocol,), {"short": short}) if short is not None else Protocol
