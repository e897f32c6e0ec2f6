"""The upstream's connection: reading side.

States (`state`):

    IDLE ──take()──▶ HEAD ──head──▶ LENGTH | CHUNKED | CLOSE ──end──▶ IDLE (reusable) or closed
                      │ ▲ 1xx            │ ends early
                      └─┘                ▼
                      │ 101           answer_broken
                      ▼
                    TUNNEL

A connection is put back only if the answer ended exactly where its framing says, the request was sent whole, and the
upstream did not ask to close. Bytes that come while it is idle, or behind an answer, close it: nothing that one
exchange left behind may reach the next.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, cast

import httptools

from fairway.proxy.express import deliver
from fairway.proxy.fields import without_line_ends
from fairway.proxy.framing import ChunkedDecoder, FramingError
from fairway.proxy.response import BadResponse, ResponseHead
from fairway.proxy.wheel import NEVER

if TYPE_CHECKING:
    from fairway.proxy.exchange import Exchange
    from fairway.proxy.targets import TargetState
    from fairway.proxy.worker import Worker

IDLE: Final = 0
HEAD: Final = 1
LENGTH: Final = 2
CHUNKED: Final = 3
CLOSE: Final = 4
TUNNEL: Final = 5
_ANSWER: Final = (HEAD, LENGTH, CHUNKED, CLOSE)

MAX_HEAD: Final = 64 * 1024
MAX_IDLE: Final = 512
WRITE_BUFFER: Final = 64 * 1024
_LEFTOVER_READS: Final = 4
"""Reads of 64 KiB from a connection that was reset, at most: they are held in memory for a client that may be slow."""
_END: Final = b"\r\n\r\n"
_CRLF: Final = b"\r\n"


class _Silent:
    """A parser's sink that takes nothing: the parse itself is the check."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a target. See the module's text for its states."""

    __slots__ = (
        "_decoder",
        "_left",
        "_partial",
        "_reusable",
        "_slot",
        "closed",
        "deadline",
        "exchange",
        "read_paused",
        "state",
        "taken",
        "target",
        "transport",
        "uses",
        "worker",
        "write_paused",
    )

    def __init__(self, worker: Worker, target: TargetState) -> None:
        self.worker = worker
        self.target = target
        self.state = IDLE
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.closed = False
        self.write_paused = False
        self.read_paused = False
        self._reusable = True
        self._partial = b""
        self.uses = 0
        self.taken = -1
        self._left = 0
        self._decoder: ChunkedDecoder | None = None

    def __repr__(self) -> str:
        names = ("IDLE", "HEAD", "LENGTH", "CHUNKED", "CLOSE", "TUNNEL")
        return f"<UpstreamConnection {self.target.id} {names[self.state]} uses={self.uses}>"

    # -- the exchange's calls ----------------------------------------------------------------------------------------

    def usable(self) -> bool:
        """Tell whether an idle connection can carry an exchange."""
        return not self.transport.is_closing()

    def take(self, exchange: Exchange) -> None:
        """Carry an exchange."""
        self.exchange = exchange
        self.state = HEAD
        self.uses += 1
        self.taken = self.worker.outbox.turn
        self.deadline = self.worker.wheel.now + exchange.upstream_timeout
        if exchange.client.write_paused:
            self.hold(True)

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        if not self.closed:
            self.worker.outbox.post(self, data)

    def hold(self, hold: bool) -> None:
        """Read no more (True), or go on: the client does not keep up, or does again."""
        if self.closed or hold == self.read_paused:
            return
        self.read_paused = hold
        if hold:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
            if self.exchange is not None:
                self.deadline = self.worker.wheel.now + self.exchange.upstream_timeout

    def rest_idle(self) -> None:
        """Wait for another exchange."""
        target = self.target
        self.exchange = None
        self.state = IDLE
        if self.closed or self.worker.stopping or target.retired or target.draining or len(target.idle) >= MAX_IDLE:
            self.close()
            return
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.uses = self.uses or 1  # from now on its end may be the keep-alive race
        self.deadline = self.worker.wheel.now + self.worker.options.upstream_idle
        target.idle.append(self)

    def close(self) -> None:
        """Close after what is written has gone out."""
        self.exchange = None
        self.state = IDLE
        self.deadline = self.worker.wheel.now + 10.0  # an upstream that takes nothing is cut off then
        if not self.closed:
            self.worker.outbox.flush()
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.exchange = None
        self.state = IDLE
        if not self.closed:
            self.transport.abort()

    # -- the transport's calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection that came up."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER, low=WRITE_BUFFER // 4)
        self._slot = self.worker.wheel.add(self)
        self.worker.upstreams.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Judge what the end of the connection means for the exchange."""
        self.closed = True
        worker = self.worker
        worker.wheel.remove(self, self._slot)
        worker.upstreams.discard(self)
        exchange = self.exchange
        if exc is not None and exchange is not None and self.state in _ANSWER:
            self._take_leftovers(exchange)
            exchange = self.exchange
        if exchange is None:
            if self.state == IDLE and self in self.target.idle:
                self.target.idle.remove(self)
            return
        if self.state == CLOSE and exc is None:
            exchange.finish(reusable=False)
        elif self.state == HEAD:
            self.exchange = None
            heard = bool(self._partial)
            reason = "The upstream closed the connection before it answered."
            exchange.upstream_lost(self.uses <= 1, heard, timed_out=False, reason=reason)
        elif exchange.tunnel is not None:
            exchange.tunnel.end()
        else:
            exchange.answer_broken()

    def _take_leftovers(self, exchange: Exchange) -> None:
        """Read what came before a reset: an upstream that answers early and closes resets what is still being sent.

        The write that failed ended the transport before its turn to read; the bytes are still in the socket.
        """
        if self.uses > 1 and exchange.head.length <= 0 and not exchange.head.chunked:
            return  # with no body to cut short, what a kept connection holds may be older than the request
        descriptor = self.transport.get_extra_info("socket").fileno()
        for _ in range(_LEFTOVER_READS):
            try:
                data = os.read(descriptor, 65536)
            except OSError:  # the reset itself, or nothing more there
                return
            if not data or self.exchange is None:
                return
            self.data_received(data)

    def eof_received(self) -> bool:
        """Take the end of the upstream's sending side."""
        exchange = self.exchange
        if exchange is not None and exchange.tunnel is not None:
            return exchange.tunnel.upstream_ended()
        return False

    def pause_writing(self) -> None:
        """Stop reading from the client: the upstream does not keep up."""
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.upstream_blocked(True)

    def resume_writing(self) -> None:
        """Read from the client again."""
        self.write_paused = False
        if self.exchange is not None:
            self.deadline = self.worker.wheel.now + self.exchange.upstream_timeout
            self.exchange.upstream_blocked(False)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer."""
        exchange = self.exchange
        if exchange is None:
            self.abort()
            return
        state = self.state
        if state == HEAD:
            if self.taken == self.worker.outbox.turn:
                # The request has not been sent yet: whatever this is, it is no answer to it.
                self.exchange = None
                self.abort()
                exchange.upstream_lost(False, False, timed_out=False, reason="The upstream spoke before it was asked.")
                return
            self._take_head(exchange, data)
            return
        self.deadline = self.worker.wheel.now + exchange.upstream_timeout
        if state == LENGTH:
            size = len(data)
            left = self._left - size
            if left > 0:
                self._left = left
                exchange.body(data)
                return
            if left < 0:
                self._reusable = False
                data = data[: self._left]
            exchange.body(data)
            exchange.finish(self._reusable)
        elif state == CHUNKED:
            self._take_chunks(exchange, data)
        elif state == CLOSE:
            exchange.body(data)
        elif exchange.tunnel is not None:
            exchange.tunnel.from_upstream(data)

    # -- parsing -----------------------------------------------------------------------------------------------------

    def _take_head(self, exchange: Exchange, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        while True:
            end = data.find(_END)
            if end < 0:
                self._assemble(exchange, data)
                return
            size = end + 4
            head = data[:size]
            memo = self.worker.answers
            response = memo.young.get(head) or memo.recall(head)
            if response is None:
                try:
                    response = self._parse(head)
                except BadResponse as error:
                    self._bad(exchange, str(error))
                    return
            rest = data[size:]
            if response.status >= 200:
                self._take_answer(exchange, response, rest)
                return
            if response.status == 101:
                self.state = TUNNEL
                if not exchange.switch(response, rest):
                    self.state = HEAD
                    self._bad(exchange, "a switch of protocols that was not asked for")
                return
            if not exchange.interim(response):
                self._bad(exchange, "too many interim answers")
                return
            self.deadline = self.worker.wheel.now + exchange.upstream_timeout
            if not rest:
                return
            data = rest

    def _parse(self, head: bytes) -> ResponseHead:
        if len(head) > MAX_HEAD:
            raise BadResponse("head too large")
        response = ResponseHead()
        response.parse(head, head.find(_CRLF))
        if self.worker.middleware is None:  # which may change what it is shown
            self.worker.answers.meet(head, response)
        return response

    def _take_answer(self, exchange: Exchange, response: ResponseHead, rest: bytes) -> None:
        if (
            exchange.express
            and response.plain
            and len(rest) == response.length
            and deliver(self, exchange, response, rest)
        ):
            return
        self._reusable = response.reusable
        status = response.status
        if exchange.head.method == b"HEAD" or status in {204, 304}:
            exchange.answer(response, True, b"")
            exchange.finish(self._reusable and not rest)
            return
        if 0 <= response.length <= len(rest):
            length = response.length
            self.state = LENGTH
            self._left = 0
            exchange.answer(response, False, rest if len(rest) == length else rest[:length])
            exchange.finish(self._reusable and len(rest) == length)
            return
        self.deadline = self.worker.wheel.now + exchange.upstream_timeout
        if response.chunked:
            self._decoder = ChunkedDecoder()
            self.state = CHUNKED
            try:
                payload, behind = self._decoder.feed(rest)
            except FramingError as error:
                self.state = HEAD
                self._bad(exchange, f"malformed chunked body: {error}")
                return
            exchange.answer(response, False, payload)
            if self._decoder.done and not exchange.over:
                self._end_chunks(exchange, self._decoder, behind)
        elif response.length >= 0:
            self.state = LENGTH
            self._left = response.length - len(rest)
            exchange.answer(response, False, rest)
        else:
            self._reusable = False
            self.state = CLOSE
            exchange.answer(response, False, rest)

    def _take_chunks(self, exchange: Exchange, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            payload, rest = decoder.feed(data)
        except FramingError:
            self.abort()
            exchange.answer_broken()
            return
        if payload:
            exchange.body(payload)
        if decoder.done and not exchange.over:
            self._end_chunks(exchange, decoder, rest)

    def _end_chunks(self, exchange: Exchange, decoder: ChunkedDecoder, rest: bytes) -> None:
        self._decoder = None
        named = exchange.response.named if exchange.response is not None else ()
        exchange.finish(self._reusable and not rest, decoder.rendered_trailers(named))

    def _assemble(self, exchange: Exchange, data: bytes) -> None:
        """Wait for the rest of a head, refusing at once what cannot become one."""
        self._partial = data
        if len(data) > MAX_HEAD:
            self._bad(exchange, "head too large")
            return
        start = data[:5]
        if not b"HTTP/".startswith(start):
            self._bad(exchange, "an answer that is not HTTP/1.x")
            return
        try:
            httptools.HttpResponseParser(_Silent()).feed_data(data)
        except httptools.HttpParserError as error:
            if without_line_ends(data) == data and not data.endswith((b" ", b"\t")):
                self._bad(exchange, f"malformed response head: {error}")

    def _bad(self, exchange: Exchange, reason: str) -> None:
        self.exchange = None
        exchange.upstream_lost(False, True, timed_out=False, reason=f"The upstream sent an invalid answer: {reason}.")
        self.abort()

    def expire(self, now: float) -> None:
        """Act on the passed deadline (called by the wheel)."""
        exchange = self.exchange
        if exchange is None:
            self.deadline = NEVER
            if not self.closed:
                if self in self.target.idle:
                    self.target.idle.remove(self)
                self.transport.abort()
            return
        client_owes = not exchange.body_done and not self.write_paused
        if self.read_paused or (self.state != TUNNEL and client_owes):
            # It is the client that does not read or has not sent its body: the upstream is not to blame.
            self.deadline = now + exchange.upstream_timeout
            return
        self.deadline = NEVER
        if self.state == HEAD:
            self.exchange = None
            exchange.upstream_lost(False, True, timed_out=True, reason="The upstream did not answer in time.")
            self.abort()
        elif exchange.tunnel is not None:
            exchange.tunnel.end()
        else:
            exchange.answer_broken()
            self.abort()
