"""The client's connection: reading side.

States (`state`); one message at a time, bytes behind it wait in `rest` with reading paused:

    HEAD ──head complete──▶ LENGTH | CHUNKED ──body complete──▶ WAIT ──answer complete, kept──▶ HEAD
      │                         │                                 │ 101
      │ malformed, too late     │ malformed, too large, too late  ▼
      └─────────────▶ LINGER ◀──┘                               TUNNEL
                        │ end of stream, 2 s without a byte, 15 s, or 256 MiB
                        ▼
                      closed

LINGER: the answer is written, our side is shut, what still comes is thrown away, so that a reset caused by unread bytes
does not destroy the answer on its way (RFC 9112 9.6).

Deadlines, visited by the worker's wheel, by state: HEAD idle `keepalive_timeout`, HEAD begun `header_timeout` from
the first byte, LENGTH and CHUNKED `body_timeout` since the last byte (and a bound on trickles), WAIT none unless the
client does not read (`send_timeout`), TUNNEL `stream_timeout`, LINGER two seconds.

A client that shuts its sending side while it waits may have left or may have half-closed; TCP does not tell. The
exchange gets `HALF_CLOSE_GRACE_S` to make progress, after which the client counts as gone.

Size: one state machine; every state's bytes, deadline and end are read side by side.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

import httptools

from fairway.proxy.exchange import Exchange
from fairway.proxy.express import forward
from fairway.proxy.framing import ChunkedDecoder, FramingError
from fairway.proxy.page import error_page
from fairway.proxy.request import MAX_TARGET, Refusal, RequestHead, may_parse_alike
from fairway.proxy.wheel import NEVER

if TYPE_CHECKING:
    from fairway.proxy.worker import Worker

HEAD: Final = 0
LENGTH: Final = 1
CHUNKED: Final = 2
WAIT: Final = 3
TUNNEL: Final = 4
LINGER: Final = 5
_BODY: Final = (LENGTH, CHUNKED)

LINGER_S: Final = 2.0
LINGER_MOST_S: Final = 15.0
LINGER_BYTES: Final = 256 << 20
WRITE_BUFFER: Final = 64 * 1024
HALF_CLOSE_GRACE_S: Final = 1.0
TRICKLE_BYTES_S: Final = 500
"""A body that comes slower than this for longer than two body timeouts is a trickle, whatever its pauses."""

_END: Final = b"\r\n\r\n"
_CRLF: Final = b"\r\n"
_KNOWN_METHODS: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")
_ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"
_RESET: Final = struct.pack("ii", 1, 0)


class _Silent:
    """A parser's sink that takes nothing: the parse itself is the check."""


class ClientConnection(asyncio.Protocol):
    """One connection of a client. See the module's text for its states."""

    __slots__ = (
        "_advancing",
        "_body_base",
        "_body_since",
        "_decoder",
        "_half_timer",
        "_left",
        "_lingered",
        "_partial",
        "_probe",
        "_slot",
        "_unprobed",
        "address",
        "closed",
        "deadline",
        "exchange",
        "forwarded",
        "forwarded_for",
        "forwarded_rendered",
        "half_closed",
        "memo",
        "read_paused",
        "received",
        "rest",
        "secure",
        "state",
        "transport",
        "trusted",
        "worker",
        "write_paused",
    )

    def __init__(self, worker: Worker, secure: bool = False) -> None:
        self.worker = worker
        self.secure = secure
        self.state = HEAD
        self.exchange: Exchange | None = None
        self.rest = b""
        self.forwarded_for = self.forwarded_rendered = b""
        self.received = 0
        self._left = self._lingered = self._body_base = 0
        self._body_since = 0.0
        self.closed = False
        self.half_closed = False
        self.write_paused = False
        self.read_paused = False
        self._advancing = self._unprobed = False
        self._partial: bytes | None = None
        self._probe: httptools.HttpRequestParser | None = None
        self._decoder: ChunkedDecoder | None = None
        self._half_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        names = ("HEAD", "LENGTH", "CHUNKED", "WAIT", "TUNNEL", "LINGER")
        return f"<ClientConnection {self.address} {names[self.state]}>"

    # -- the transport's calls -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection."""
        self.transport = cast("asyncio.Transport", transport)
        worker = self.worker
        peer = transport.get_extra_info("peername")
        self.address = address = str(peer[0]) if peer else "127.0.0.1"
        self.trusted, self.forwarded = worker.client_facts(address, self.secure)
        self.memo = worker.heads[self.trusted]
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER, low=WRITE_BUFFER // 4)
        self._slot = worker.wheel.add(self)
        self.deadline = worker.wheel.now + worker.options.header_timeout
        worker.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that ended; an exchange in flight is cancelled."""
        self.closed = True
        self.worker.wheel.remove(self, self._slot)
        self.worker.clients.discard(self)
        self._stop_half_timer()
        self._decoder = self._probe = None
        exchange = self.exchange
        if exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        state = self.state
        if state == HEAD:
            if self.rest:
                self._stash(data)
            else:
                self._take_head(data)
                if len(self.rest):
                    self._advance()
        elif state in _BODY:
            self._take_body(data)
        elif state == TUNNEL:
            self.deadline = self.worker.wheel.now + self.worker.options.stream_timeout
            exchange = self.exchange
            if exchange is not None and exchange.tunnel is not None:
                exchange.tunnel.from_client(data)
        elif state == WAIT:
            self._stash(data)
        else:
            self.received += len(data)
            self.deadline = min(self.worker.wheel.now + LINGER_S, self._body_since + LINGER_MOST_S)
            if self.received > LINGER_BYTES:
                self.transport.abort()

    def eof_received(self) -> bool:
        """Take the end of the client's sending side."""
        self.half_closed = True
        self.worker.outbox.flush()  # what follows may close the transport
        state = self.state
        exchange = self.exchange
        if exchange is not None and exchange.tunnel is not None:
            return exchange.tunnel.client_ended()
        if state == WAIT and exchange is not None:
            self._watch_half_closed(exchange.sent)
            return True
        if state in _BODY:
            if exchange is not None and not exchange.refuse(400, "The request's body ended too early."):
                self.abort(reset=False)
        elif state == HEAD and self._partial:
            self.refuse(400, "The request's head ended too early.")
        return False

    def pause_writing(self) -> None:
        """Stop reading from the upstream: the client does not keep up."""
        self.write_paused = True
        self.deadline = self.worker.wheel.now + self.worker.options.send_timeout
        if self.exchange is not None:
            self.exchange.client_blocked(True)
        elif self.state == HEAD:
            self._pause_reading()  # it gets no further answer until it reads the last one

    def resume_writing(self) -> None:
        """Read from the upstream again."""
        self.write_paused = False
        if self.exchange is not None:
            if self.state == WAIT:
                self.deadline = NEVER
            self.exchange.client_blocked(False)
        elif self.state == HEAD:
            self._await_head()

    # -- heads -----------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        memo = self.memo
        if self._partial is None:
            known = memo.young.get(data) or memo.recall(data)
            if known is not None:
                self._begin(known, len(data))
                return
            end = data.find(_END)
        else:
            data = self._partial + data
            end = data.find(_END, max(0, len(self._partial) - 3))
        eol = data.find(_CRLF)
        if end < 0 or eol == 0:
            self._assemble(data)
            return
        size = end + 4
        options = self.worker.options
        if size > options.header_bytes:
            self.refuse(431 if eol <= MAX_TARGET else 414, "The request's head is too large.")
            return
        if size == len(data):
            head_bytes = data
        else:
            head_bytes = data[:size]
            self.rest = data[size:]
        self._partial = self._probe = None
        self._unprobed = False
        head = RequestHead(self.trusted)
        try:
            if size > 1024 and head_bytes.count(b"\n") - 2 > options.header_fields:
                raise Refusal(431, "The request has too many header fields.")
            head.parse(head_bytes, eol)
        except Refusal as refusal:
            self.refuse(refusal.status, _sentence(refusal.reason), body=head_bytes[:5] != b"HEAD ")
            return
        if self.worker.middleware is None:  # which may change what it is shown
            memo.meet(head_bytes, head)
        self._begin(head, size)

    def _begin(self, head: RequestHead, size: int) -> None:
        if head.plain and forward(self, head, size):
            return
        exchange = self.exchange = Exchange(self, head, size)
        if head.chunked:
            self.state = CHUNKED
            self._decoder = ChunkedDecoder()
        elif head.length > 0:
            self.state = LENGTH
            self._left = head.length
        else:
            self.state = WAIT
            exchange.body_done = True
            self.deadline = NEVER
            exchange.begin()
            return
        self.received = 0
        self._body_since = now = self.worker.wheel.now
        self._body_base = 0
        self.deadline = now + self.worker.options.body_timeout
        exchange.begin()
        if self.rest and self.exchange is exchange and self.state in _BODY:
            rest, self.rest = self.rest, b""
            self._take_body(rest)

    def _assemble(self, data: bytes) -> None:
        """Wait for the rest of a head that came in pieces, refusing it as soon as it cannot become one."""
        if self._partial is None:
            self.deadline = self.worker.wheel.now + self.worker.options.header_timeout
            fresh = data
        else:
            fresh = data[len(self._partial) :]
        while data.startswith(_CRLF):  # RFC 9112 2.2: empty lines before a request line are ignored
            data = data[2:]
            fresh = data
            self._probe = None
        self._partial = data
        if _END in data:
            self._partial = None
            self._take_head(data)
            return
        if not data or data == b"\r":
            return
        eol = data.find(_CRLF)
        if len(data) > self.worker.options.header_bytes or (eol < 0 and len(data) > MAX_TARGET + 64):
            self.refuse(431 if 0 <= eol <= MAX_TARGET else 414, "The request's head is too large.")
        elif len(data) > 1024 and data.count(b"\n") > self.worker.options.header_fields + 1:
            self.refuse(431, "The request has too many header fields.")
        else:
            self._check_partial(data, fresh, eol)

    def _check_partial(self, data: bytes, fresh: bytes, eol: int) -> None:
        method, space, _ = data.partition(b" ")
        if not space:
            if len(method) > 32 or not all(0x41 <= c <= 0x5A or c in b"-_0123456789" for c in method):
                self.refuse(400, "The request line does not start with a method.")
            return
        if eol >= 0 and data[:eol].count(b" ") != 2:
            self.refuse(400, "Expected METHOD TARGET VERSION with single spaces in the request line.")
            return
        if self._unprobed:
            return
        if self._probe is None:
            self._probe = httptools.HttpRequestParser(_Silent())
            fresh = data if data.startswith(_KNOWN_METHODS) else b"POST" + data[len(method) :]
        try:
            self._probe.feed_data(fresh)
        except httptools.HttpParserError as error:
            if may_parse_alike(data):
                self._unprobed = True  # the whole head will be judged
            else:
                self.refuse(400, _sentence(f"malformed request head: {error}"))

    # -- bodies ----------------------------------------------------------------------------------------------------

    def _take_body(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self.state == LENGTH:
            left = self._left
            size = len(data)
            if size < left:
                self._left = left - size
                self.received += size
                self._body_moved()
                exchange.request_body(data)
                return
            if size > left:
                data, self.rest = data[:left], data[left:]
            self.received += left
            self._end_of_body()
            exchange.request_body(data)
            exchange.request_end(b"")
            return
        decoder = self._decoder
        assert decoder is not None
        try:
            payload, rest = decoder.feed(data)
        except FramingError as error:
            if not exchange.refuse(400, _sentence(f"malformed chunked body: {error}")):
                self.abort(reset=False)
            return
        self.received += len(payload)
        limit = exchange.body_limit
        if limit is not None and decoder.measure(data[: len(data) - len(rest)] if rest else data) > limit:
            if not exchange.refuse(413, f"The request's body is larger than {limit} bytes."):
                self.abort(reset=False)
            return
        self._body_moved()
        if decoder.done:
            self.rest = rest
            self._decoder = None
            self._end_of_body()
        if payload:
            exchange.request_body(payload)
        if decoder.done and not exchange.over:
            exchange.request_end(decoder.rendered_trailers(exchange.head.named))

    def _end_of_body(self) -> None:
        self.state = WAIT
        self.deadline = NEVER
        if self.rest:
            self._pause_reading()

    def _body_moved(self) -> None:
        exchange = self.exchange
        now = self.worker.wheel.now
        timeout = exchange.body_timeout if exchange is not None else self.worker.options.body_timeout
        trickle = self._body_since + 2 * timeout + (self.received - self._body_base) / TRICKLE_BYTES_S
        self.deadline = min(now + timeout, trickle)

    def hold_body(self, hold: bool) -> None:
        """Read no more of the request's body (True), or go on: the upstream does not keep up, or is not there yet."""
        if hold:
            self._pause_reading()
            if self.state in _BODY:
                self.deadline = NEVER
        else:
            self._resume_reading()
            if self.state in _BODY:
                self._body_since = self.worker.wheel.now
                self._body_base = self.received
                self._body_moved()

    def _stash(self, data: bytes) -> None:
        self.rest += data
        self._pause_reading()

    def _pause_reading(self) -> None:
        if not self.read_paused and not self.closed:
            self.read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self.read_paused and not self.closed:
            self.read_paused = False
            self.transport.resume_reading()

    # -- ends ------------------------------------------------------------------------------------------------------

    def exchange_done(self, keep: bool) -> None:
        """Go on with the next request, or close."""
        self.exchange = None
        if self._half_timer is not None:
            self._stop_half_timer()
        if self.closed:
            return
        if not keep:
            self.linger()
            return
        if self.half_closed and not self.rest:
            self.close()
            return
        self.state = HEAD
        self.go_on()

    def go_on(self) -> None:
        """Take the next request, which may be here already, once an answer is given."""
        if not self.write_paused:
            self.deadline = self.worker.wheel.now + self.worker.options.keepalive_timeout
            if self.rest:
                self._advance()
            elif self.read_paused:
                self._resume_reading()
        else:
            # A client that asks and asks and never reads gets no further answer until it does.
            self._pause_reading()
            self.deadline = self.worker.wheel.now + self.worker.options.send_timeout

    def _await_head(self) -> None:
        worker = self.worker
        self.deadline = worker.wheel.now + worker.options.keepalive_timeout
        if self.rest:
            self._advance()
        elif self.read_paused:
            self._resume_reading()

    def _advance(self) -> None:
        """Take the requests that wait in `rest`, without recursion."""
        if self._advancing:
            return
        self._advancing = True
        while self.rest and self.state == HEAD and not self.closed and not self.write_paused:
            data, self.rest = self.rest, b""
            self._take_head(data)
        self._advancing = False
        if self.write_paused and self.state == HEAD:
            return
        if self.state in (HEAD, LENGTH, CHUNKED):
            if self.half_closed and not self.closed and self.state == HEAD:
                self.close()
            elif self.exchange is None or not self.exchange.holds_body:
                self._resume_reading()
        elif self.state == WAIT and self.rest:
            self._pause_reading()

    def refuse(self, status: int, reason: str, *, body: bool = True) -> None:
        """Answer a request that never became an exchange, and close."""
        worker = self.worker
        request_id = worker.next_request_id()
        extra = _ALLOW if status == 405 else b""
        self.write(error_page(status, reason, request_id, close=True, http10=False, body=body, extra=extra))
        worker.count_refusal(status, self.address, request_id)
        self.linger()

    def write(self, data: bytes) -> None:
        """Send bytes, behind what was sent before."""
        self.worker.outbox.post(self, data)

    def close(self) -> None:
        """Close after what is written has gone out."""
        self.worker.outbox.flush()
        self.transport.close()

    def forward_for(self, host: bytes) -> None:
        """Render the forwarding fields of requests to a host that bring none which are trusted."""
        self.forwarded_for = host
        self.forwarded_rendered = self.forwarded % host

    def linger(self) -> None:
        """Close after what is written has gone out and the client has had time to read it."""
        worker = self.worker
        self.rest = b""
        self._partial = None
        self._probe = None
        self._decoder = None
        self.state = LINGER
        self._lingered = 0
        self.received = 0
        self._body_since = worker.wheel.now
        self.deadline = self._body_since + LINGER_S
        if self.closed:
            return
        worker.outbox.flush()
        if self.half_closed or not self.transport.can_write_eof():
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:
            self.transport.abort()
            return
        self._resume_reading()

    def abort(self, *, reset: bool) -> None:
        """End the connection so that the client cannot take what it has for a whole answer.

        Args:
            reset: Send RST instead of FIN, for answers whose only end mark is the connection's.
        """
        self.state = LINGER
        self._lingered = 0
        if self.closed:
            return
        if reset:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.worker.outbox.flush()
            self.transport.abort()
        else:
            self.close()

    def expire(self, now: float) -> None:
        """Act on the passed deadline (called by the wheel)."""
        state = self.state
        exchange = self.exchange
        if state == HEAD:
            if self._partial:
                self.refuse(408, "The request's head did not come in time.")
            else:
                self.close()
                self.deadline = NEVER
        elif (state in _BODY) and exchange is not None and not self.write_paused:
            if not exchange.refuse(408, "The request's body did not come in time."):
                self.abort(reset=False)
        elif state == LINGER and (unsent := self.transport.get_write_buffer_size()) and unsent != self._lingered:
            self._lingered = unsent  # the client still reads: that is no reason to cut it off
            self.deadline = now + self.worker.options.send_timeout
        else:
            self.deadline = NEVER
            self.transport.abort()

    def _watch_half_closed(self, sent: int) -> None:
        self._half_timer = self.worker.loop.call_later(HALF_CLOSE_GRACE_S, self._half_closed_check, sent)

    def _half_closed_check(self, sent: int) -> None:
        exchange = self.exchange
        if exchange is None or self.closed:
            return
        if exchange.sent != sent or self.write_paused:
            self._watch_half_closed(exchange.sent)
        else:
            self.transport.abort()

    def _stop_half_timer(self) -> None:
        if self._half_timer is not None:
            self._half_timer.cancel()
            self._half_timer = None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
