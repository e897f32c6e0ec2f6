"""One request and its answer, between a client's connection and an upstream's.

The door has three state machines. The client's connection (`downstream`) cuts bytes into requests, the upstream's
(`upstream`) cuts bytes into answers, and the exchange, here, joins one of each:

    begin ──▶ route, gate ──▶ (held) ──▶ choose target ──▶ connect or reuse ──▶ forward head, body as it comes
      │            │             │              │                 │                        │
      └── refuse ◀─┴─────────────┴──────────────┴── 502/503/504 ◀─┴── retry (once, safely) ◀┤ no byte of an answer
                                                                                           ▼
                                        interim (1xx) ──▶ answer head ──▶ body as it comes ──▶ finish
                                                              │ 101             │ upstream dies
                                                              ▼                 ▼
                                                            tunnel            abort (never a last chunk)

Rules that hold in every state:
- An exchange ends exactly once (`over`): by `finish`, `refuse`, abort, or the client's leaving. Its upstream connection
  goes back to the pool only if both messages ended where their framing says.
- Nothing is buffered whole. What an upstream is not yet there to take waits in `_pending`, and beyond `PENDING_BYTES`
  reading from the client pauses. What a client does not take pauses the upstream.
- A request is sent again only if no byte of it can have had an effect: the connection never came up, or the method is
  idempotent, no body byte was passed on, and the connection ended without a byte of an answer.
- No task, no timer a request: connections have deadlines. A task exists only while one is made or a middleware runs.
Size: these rules bind every method to every other; what has no part in them lies in `render`, `tunnel`, `gate`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from fairway.proxy.framing import LAST_CHUNK, encode_end
from fairway.proxy.page import error_page
from fairway.proxy.render import render_answer, render_request, render_small_answer
from fairway.proxy.request import RequestHead
from fairway.proxy.response import ResponseHead
from fairway.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from fairway.proxy.bodypipe import BodyPipe
    from fairway.proxy.downstream import ClientConnection
    from fairway.proxy.middleware import ProxyRequest
    from fairway.proxy.table import RouteState
    from fairway.proxy.targets import TargetState
    from fairway.proxy.upstream import UpstreamConnection

PENDING_BYTES: Final = 64 * 1024
CONTINUE_AFTER_S: Final = 0.3
"""How long an upstream may think about ``Expect: 100-continue`` before the door lets the client send its body."""
MAX_INTERIM: Final = 64
MAX_ATTEMPTS: Final = 3
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_monotonic = time.monotonic


class Exchange:
    """See the module's text. Attributes that most exchanges never set are the class's defaults.

    Attributes:
        status: Status given to the client, 0 before, 499 where the client left.
        sent: Bytes of the answer's body given to the client.
        body_done: The request's body, if any, has come whole.
        over: The exchange has ended.
        left: It ended because the client left.
        express: A whole plain answer may be given by `express.deliver`.
        attempts: Targets and connections tried.
        hold_timer: Ends the wait for a table, while there is one.
    """

    over = False
    left = False
    express = False
    body_done = False
    status = 0
    sent = 0
    upstream: UpstreamConnection | None = None
    target: TargetState | None = None
    route: RouteState | None = None
    body_limit: int | None = None
    holds_body = False
    request_id = b""
    traceparent: bytes | None = None
    latency = 0.0
    response: ResponseHead | None = None
    extra = b""
    view: ProxyRequest | None = None
    tunnel: Tunnel | None = None
    request_pipe: BodyPipe | None = None
    response_pipe: BodyPipe | None = None
    bodyless = False
    _pending: list[bytes] | None = None
    _pending_size = 0
    _pending_end: bytes | None = None
    _body_sent = False
    attempts = 0
    hold_timer: asyncio.TimerHandle | None = None
    _patient_until = 0.0
    _tried: TargetState | None = None
    _interim = 0
    _continue_timer: asyncio.TimerHandle | None = None
    _continued = False
    _close_after = False
    _rechunk = False
    _until_close = False
    _stream = False

    def __init__(self, client: ClientConnection, head: RequestHead, size: int) -> None:
        self.client = client
        self.head = head
        self.size = size
        self.started = _monotonic()
        self.worker = client.worker
        options = self.worker.options
        self.body_timeout = options.body_timeout
        self.upstream_timeout = options.upstream_timeout

    def __repr__(self) -> str:
        return f"<Exchange {self.head!r} status={self.status} over={self.over}>"

    # -- from the request's head to the upstream ---------------------------------------------------------------------

    def begin(self) -> None:
        """Route the request and send it on, or answer it."""
        worker = self.worker
        head = self.head
        self.request_id = head.request_id or worker.next_request_id()
        worker.in_flight += 1
        self.body_limit = worker.options.body_bytes
        if worker.options.acme_challenges is not None and worker.answer_challenge(self):
            return
        table = worker.table
        found = head.found
        if found is not None and found[0] is table:
            route = cast("RouteState | None", found[1])
        else:
            route = table.find(head)
            head.found = (table, route)
        self.route = route
        if route is None:
            self.refuse(404, "No route leads from this host and path.")
            return
        route.books.in_flight += 1
        if route.body_bytes is not None:
            self.body_limit = route.body_bytes
        if route.body_timeout is not None:
            self.body_timeout = route.body_timeout
        if route.upstream_timeout is not None:
            self.upstream_timeout = route.upstream_timeout
        if self.body_limit is not None and head.length > self.body_limit:
            self.refuse(413, f"The request's body is larger than {self.body_limit} bytes.")
            return
        if route.gate is not None:
            secure = self.client.secure or head.forwarded_proto == b"https"
            address, running = worker.address_of(self.client, head), route.books.in_flight - 1
            answer = route.gate.judge(head, self.size, address, self.started, running, secure=secure)
            if answer is not None:
                self.refuse(answer.status, answer.reason, answer.extra)
                return
            if route.spec.state == "holding":
                worker.hold(self)
                return
        if worker.middleware is None:
            self.dispatch()
        else:
            self.proceed()

    def proceed(self) -> None:
        """Go on past the gate: through the middleware, if there is any, to a target."""
        if self.worker.middleware is None:
            self.dispatch()
        else:
            self.worker.middleware.request(self)

    def dispatch(self) -> None:
        """Choose a target and get a connection to it."""
        route = self.route
        assert route is not None
        target = route.only
        if target is None or target.draining:
            key = self.worker.address_of(self.client, self.head).encode("ascii")
            target, self.extra = route.choose(self.worker.wheel.now, key, self.head, self._tried)
            if target is None:
                self.refuse(503, "No healthy instance can take the request now.", b"Retry-After: 1\r\n")
                return
        self.target = target
        target.in_flight += 1
        self.attempts += 1
        idle = target.idle
        while idle:
            upstream = idle.pop()
            if upstream.usable():
                self.connected(upstream)
                return
        self.worker.connect(self, target)

    def connect_failed(self, timed_out: bool) -> None:
        """Try another target, or answer 502 or 504: nothing was sent, so any method may be tried again."""
        target = self.target
        assert target is not None
        assert self.route is not None
        target.connect_errors += 1
        target.failed(self.worker.wheel.now)
        if not timed_out and self.attempts < min(MAX_ATTEMPTS, len(self.route.targets)):
            self._retry(target)
        elif timed_out:
            self.refuse(504, "The upstream did not accept a connection in time.", blame=True)
        elif not self._wait_for_table(target):
            self.refuse(502, "The upstream refused the connection.", blame=True)

    def _wait_for_table(self, target: TargetState) -> bool:
        """Wait for the next table instead of failing, where the route has patience: its targets may be on their way.

        Only for an exchange of which nothing was sent, or that is repeatable.
        """
        route, worker = self.route, self.worker
        assert route is not None
        if route.spec.patience <= 0 or self.client.closed:
            return False
        now = worker.loop.time()
        if self._patient_until == 0.0:
            self._patient_until = now + route.spec.patience
        if now >= self._patient_until:
            return False
        target.in_flight -= 1
        self.target = self._tried = self.upstream = None
        self.attempts = 0
        worker.hold(self, self._patient_until - now)
        return True

    def _retry(self, target: TargetState) -> None:
        target.in_flight -= 1
        self.target = None
        self._tried = target
        self.upstream = None
        self.dispatch()

    def connected(self, upstream: UpstreamConnection) -> None:
        """Go on with a connection: a kept one, or one that has just come up."""
        self.upstream = upstream
        self.express = self.head.direct and not self.extra
        upstream.take(self)
        upstream.write(render_request(self))
        pending = self._pending
        if pending is not None:
            self._pending = None
            self._pending_size = 0
            self._body_sent = True
            upstream.write(b"".join(pending))
            if self.request_pipe is not None:
                self.request_pipe.blocked(upstream.write_paused)
            elif self.holds_body and not upstream.write_paused:
                self.hold_request(False)
        if self._pending_end is not None:
            self._finish_request(upstream, self._pending_end)
        elif self.head.expects and not self.body_done and not self._body_sent:
            self._continue_timer = self.worker.loop.call_later(CONTINUE_AFTER_S, self._let_continue)

    # -- the request's body ------------------------------------------------------------------------------------------

    def request_body(self, data: bytes) -> None:
        """Pass on payload of the request's body."""
        if self.over:
            return
        if self._continue_timer is not None:
            self._stop_continue()
        if self.request_pipe is not None:
            self.request_pipe.feed(data)
        else:
            self.forward_body(data)

    def forward_body(self, data: bytes) -> None:
        """Send payload to the upstream, or keep it until there is one."""
        if self.head.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        upstream = self.upstream
        if upstream is None:
            if self._pending is None:
                self._pending = []
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size > PENDING_BYTES:
                if self.request_pipe is not None:
                    self.request_pipe.blocked(True)
                elif not self.holds_body:
                    self.hold_request(True)
            return
        self._body_sent = True
        upstream.write(data)

    def request_end(self, trailers: bytes) -> None:
        """Pass on the end of the request's body."""
        if self.over:
            return
        self.body_done = True
        if self.request_pipe is not None:
            self.request_pipe.finish(trailers)
        else:
            self.forward_end(trailers)

    def forward_end(self, trailers: bytes) -> None:
        """Send the end of the request's body to the upstream, or keep it until there is one."""
        if self.over:
            return
        self._pending_end = trailers  # also for a second connection, where the first is lost before it answers
        if self.upstream is not None:
            self._finish_request(self.upstream, trailers)

    def _finish_request(self, upstream: UpstreamConnection, trailers: bytes) -> None:
        self._stop_continue()
        if self.head.chunked:
            upstream.write(encode_end(trailers))
        upstream.deadline = self.worker.wheel.now + self.upstream_timeout

    def upstream_blocked(self, blocked: bool) -> None:
        """Pause or resume reading from the client: the upstream does not keep up, or does again."""
        client = self.client
        if self.request_pipe is not None:
            self.request_pipe.blocked(blocked)
        elif client.state == 4:
            client.hold_body(blocked)
        elif not self.body_done and self.holds_body != blocked:
            self.holds_body = blocked
            client.hold_body(blocked)

    def hold_request(self, hold: bool) -> None:
        """Read no more of the request's body (True), or go on."""
        if not self.over:
            self.holds_body = hold
            if not self.body_done:
                self.client.hold_body(hold)

    def _let_continue(self) -> None:
        self._continue_timer = None
        if not self.over and not self._continued and not self.client.closed and not self.status:
            self._continued = True
            self.client.write(_CONTINUE)

    def _stop_continue(self) -> None:
        self._continued = True
        if self._continue_timer is not None:
            self._continue_timer.cancel()
            self._continue_timer = None

    # -- the answer --------------------------------------------------------------------------------------------------

    def interim(self, response: ResponseHead) -> bool:
        """Pass on a 1xx answer; False for more of them than anyone needs."""
        self._interim += 1
        if self._interim > MAX_INTERIM:
            return False
        if response.status == 100:
            if self._continued and self.head.expects:
                return True
            self._stop_continue()
        if self.head.minor:
            self.client.write(b"".join((response.start, *response.lines, b"\r\n")))
        return True

    def answer(self, response: ResponseHead, bodyless: bool, payload: bytes) -> None:
        """Pass on the answer's head with the first part of its body, if that came along."""
        self.response = response
        self.bodyless = bodyless
        self.status = response.status
        self.latency = _monotonic() - self.started
        if self._continue_timer is not None:
            self._stop_continue()
        target = self.target
        assert target is not None
        target.latency_sum += self.latency
        if target.failures:
            target.answered()
        if self.worker.middleware is None:
            self.send_head(payload)
        else:
            self.worker.middleware.response(self, payload)

    def send_head(self, payload: bytes) -> None:
        """Write the answer's head to the client, with `payload` behind it."""
        client = self.client
        response = self.response
        assert response is not None
        head = self.head
        keep = head.keep_alive and self.body_done and not client.half_closed and not self.worker.stopping
        framing = b""
        if self.bodyless:
            if response.length >= 0 and response.status != 204 and not response.chunked:
                framing = b"Content-Length: %d\r\n" % response.length
        elif response.chunked or response.length < 0:
            if head.minor:
                self._rechunk = True
                framing = b"Transfer-Encoding: chunked\r\n"
                if response.trailer:
                    framing += b"Trailer: %b\r\n" % b", ".join(response.trailer)
            else:
                self._until_close = True
                keep = False
        else:
            framing = b"Content-Length: %d\r\n" % response.length
        if not keep:
            self._close_after = True
            framing += b"Connection: close\r\n"
        elif not head.minor:
            framing += b"Connection: keep-alive\r\n"
        if payload:
            self.sent = len(payload)
            if self._rechunk:
                payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        client.write(render_answer(self, response, framing, payload))
        if response.chunked or response.length < 0:
            self._classify_stream(response)

    def _classify_stream(self, response: ResponseHead) -> None:
        kind = response.field(b"content-type")
        if kind is not None and kind[:17].lower() == b"text/event-stream":
            self.become_stream()

    def become_stream(self) -> None:
        """Class this exchange as long-lived: other deadlines, and drained by a timer of its own."""
        self._stream = True
        self.upstream_timeout = self.worker.options.stream_timeout
        if self.upstream is not None:
            self.upstream.deadline = self.worker.wheel.now + self.upstream_timeout
        if self.target is not None:
            self.target.streams.add(self)
            if self.target.draining:
                self.worker.end_stream_soon(self)

    def body(self, payload: bytes) -> None:
        """Pass on payload of the answer's body (not empty)."""
        if self.response_pipe is not None:
            self.response_pipe.feed(payload)
        else:
            self.emit_body(payload)

    def emit_body(self, payload: bytes) -> None:
        """Write payload to the client (not empty)."""
        if self.over:
            return
        self.sent += len(payload)
        if self._rechunk:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        self.client.write(payload)

    def finish(self, reusable: bool, trailers: bytes = b"") -> None:
        """End well: the answer has come whole."""
        if self.over:
            return
        upstream = self.upstream
        assert upstream is not None
        pipe = self.response_pipe
        if pipe is not None:
            upstream.exchange = None
            self.upstream = None
            pipe.finish(trailers)
        else:
            if self._rechunk:
                self.client.write(encode_end(trailers) if trailers else LAST_CHUNK)
            self.settle()
        if reusable and self.body_done:
            upstream.rest_idle()
        else:
            upstream.close()
        if pipe is None:
            self.client.exchange_done(not self._close_after and self.body_done)

    def end_body(self, trailers: bytes) -> None:
        """End well after the answer's body has come out of the middleware's channels."""
        if self.over:
            return
        if self._rechunk:
            self.client.write(encode_end(trailers))
        self.settle()
        self.client.exchange_done(not self._close_after and self.body_done)

    def hold_answer(self, hold: bool) -> None:
        """Read no more from the upstream (True), or go on."""
        if self.upstream is not None:
            self.upstream.hold(hold)

    def pipe_failed(self, error: BaseException) -> None:
        """End because a middleware raised: 500, or a broken-off answer if one has begun."""
        if self.over or isinstance(error, asyncio.CancelledError):
            return
        self.worker.loop.call_exception_handler({"message": "a middleware of the door raised", "exception": error})
        head_sent = self._rechunk or self._until_close or self.sent > 0
        if not head_sent:
            self.status = 0
        if not self.refuse(500, "A middleware of the door failed."):
            self.client.abort(reset=self._until_close)

    def switch(self, response: ResponseHead, early: bytes) -> bool:
        """Turn into a tunnel after a 101; False where the client did not ask for that protocol."""
        head = self.head
        offered = head.upgrade
        chosen = response.upgrade
        if offered is None or chosen is None or not response.upgrade_named:
            return False
        if chosen.lower() not in {offer.strip().lower() for offer in offered.split(b",")}:
            return False
        self.response = response
        self.status = 101
        self.latency = _monotonic() - self.started
        if self.target is not None:
            self.target.latency_sum += self.latency
            self.target.answered()
        self.become_stream()
        self.tunnel = Tunnel(self)
        self.tunnel.open(response, chosen, early)
        return True

    # -- trouble -----------------------------------------------------------------------------------------------------

    def client_blocked(self, blocked: bool) -> None:
        """Pause or resume reading from the upstream: the client does not keep up, or does again."""
        if self.response_pipe is not None:
            self.response_pipe.blocked(blocked)
        elif self.upstream is not None:
            self.upstream.hold(blocked)

    def client_gone(self) -> None:
        """End because the client left: the upstream is cancelled, 499 is logged."""
        if self.over:
            return
        upstream = self.upstream
        if self.tunnel is None:
            self.status, self.left = 499, True
        self.settle()
        if upstream is not None:
            if self.tunnel is not None:
                upstream.close()
            else:
                upstream.abort()

    def upstream_lost(self, fresh: bool, heard: bool, timed_out: bool, reason: str) -> None:
        """Judge an upstream connection that ended, or answered nonsense, before the answer's head was whole.

        Args:
            fresh: It had carried no exchange before.
            heard: Bytes of an answer had come.
            timed_out: It was the door that gave up.
            reason: For the error page.
        """
        self.upstream = None
        target = self.target
        assert target is not None
        assert self.route is not None
        if timed_out:
            target.failed(self.worker.wheel.now)
            self.refuse(504, reason, blame=True)
            return
        repeatable = self.head.method in _IDEMPOTENT and not self._body_sent and not heard and not self._interim
        if repeatable and self.attempts < MAX_ATTEMPTS and not self.client.closed:
            if not fresh:
                # The keep-alive race: the upstream closed an idle connection as it was used. A new one decides.
                self.attempts = MAX_ATTEMPTS
                self._stop_continue()
                self.worker.connect(self, target)
                return
            if len(self.route.targets) > 1 and self.attempts < len(self.route.targets):
                target.failed(self.worker.wheel.now)
                self._retry(target)
                return
        if fresh:
            target.failed(self.worker.wheel.now)
        if repeatable and self._wait_for_table(target):
            return
        self.refuse(502, reason, blame=True)

    def answer_broken(self) -> None:
        """End because the upstream died inside the answer's body: the client must not take what it has for whole."""
        if self.over:
            return
        if self.target is not None:
            self.target.errors += 1
        self.settle()
        self.client.exchange = None
        self.client.abort(reset=self._until_close)

    def refuse(self, status: int, reason: str, extra: bytes = b"", *, blame: bool = False) -> bool:
        """End with an answer of the door's own; False where the upstream's has already begun.

        Args:
            status: Status to answer.
            reason: One sentence for the page.
            extra: Rendered fields to add.
            blame: Count it as an error of the target.
        """
        if self.over:
            return True
        upstream, begun = self.upstream, self.status != 0
        if not begun:
            self.status, self.latency = status, _monotonic() - self.started
        if blame and self.target is not None:
            self.target.errors += 1
        self.settle()
        if upstream is not None:
            upstream.abort()
        client = self.client
        client.exchange = None
        if begun or client.closed:
            return begun is False
        head = self.head
        keep = self.may_keep()
        client.write(
            error_page(
                status,
                reason,
                self.request_id,
                close=not keep,
                http10=head.minor == 0,
                body=head.method != b"HEAD",
                extra=extra,
            )
        )
        client.exchange_done(keep)
        return True

    def respond(self, status: int, fields: bytes, content: bytes) -> None:
        """End with a small answer of the door's own making.

        Args:
            status: Status to answer.
            fields: Rendered fields, without the length.
            content: The whole body.
        """
        self.status = status
        self.latency = _monotonic() - self.started
        self.sent = len(content)
        self.settle()
        client = self.client
        keep = self.may_keep()
        client.write(render_small_answer(status, fields, content, self, keep))
        client.exchange_done(keep)

    def may_keep(self) -> bool:
        """Tell whether the client's connection can go on after an answer of the door's own."""
        head = self.head
        whole = self.body_done and head.upgrade is None
        return head.keep_alive and whole and not self.client.half_closed and not self.worker.stopping

    def end_stream(self) -> None:
        """End a long-lived stream because its target goes: the client sees the connection close and comes back."""
        if self.over:
            return
        if self.tunnel is not None:
            self.tunnel.end()
            return
        upstream = self.upstream
        self.settle()
        if upstream is not None:
            upstream.abort()
        client = self.client
        client.exchange = None
        client.abort(reset=False)

    def settle(self) -> None:
        """Close the books: counters, log, links. Exactly once an exchange."""
        self.over = True
        if self._pending is not None:
            self._pending = None  # a client that left may be remembered for a while, its body need not be
        if self._continue_timer is not None:
            self._stop_continue()
        if self.hold_timer is not None:
            self.worker.end_hold(self)
        if self.request_pipe is not None:
            self.request_pipe.cancel()
        if self.response_pipe is not None:
            self.response_pipe.cancel()
        target = self.target
        if target is not None:
            target.in_flight -= 1
            target.requests += 1
            target.bytes_received += self.sent
            if self.status >= 500 and self.response is not None:
                target.errors += 1
            if self._stream:
                target.streams.discard(self)
            if target.draining or target.retired:
                self.worker.target_settled(target)
        self.worker.exchange_settled(self)
        upstream = self.upstream
        if upstream is not None:
            upstream.exchange = None
            self.upstream = None
