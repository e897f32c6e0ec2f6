"""An upgraded connection: bytes both ways, each end shut on its own.

After a 101 the exchange lives on in here until both sides have ended, one of them breaks, nothing moves for the stream
timeout, or the target is drained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.proxy.response import ResponseHead

if TYPE_CHECKING:
    from fairway.proxy.exchange import Exchange

_TUNNEL = 4
_LINGER = 5


class Tunnel:
    """Joins the two connections of an exchange. Backpressure goes both ways through their transports' limits."""

    __slots__ = ("_client_ended", "_exchange", "_upstream_ended")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._client_ended = False
        self._upstream_ended = False

    def __repr__(self) -> str:
        return f"<Tunnel client_ended={self._client_ended} upstream_ended={self._upstream_ended}>"

    def open(self, response: ResponseHead, protocol: bytes, early: bytes) -> None:
        """Pass the 101 on with the bytes behind it; send the upstream what the client sent before it knew."""
        exchange = self._exchange
        client, upstream = exchange.client, exchange.upstream
        assert upstream is not None
        fields = b"Connection: Upgrade\r\nUpgrade: %b\r\nX-Request-Id: %b\r\n\r\n" % (protocol, exchange.request_id)
        client.write(b"".join((response.start, *response.lines, exchange.extra, fields, early)))
        exchange.sent += len(early)
        client.state = _TUNNEL
        upstream.deadline = client.deadline = exchange.worker.wheel.now + exchange.worker.options.stream_timeout
        rest, client.rest = client.rest, b""
        if rest:
            upstream.write(rest)
        client.hold_body(False)
        if client.half_closed:
            self.client_ended()

    def from_client(self, data: bytes) -> None:
        """Pass on bytes of the client."""
        exchange = self._exchange
        upstream = exchange.upstream
        if upstream is not None:
            upstream.deadline = exchange.client.deadline
            upstream.write(data)

    def from_upstream(self, data: bytes) -> None:
        """Pass on bytes of the upstream."""
        exchange = self._exchange
        exchange.sent += len(data)
        exchange.client.deadline = exchange.worker.wheel.now + exchange.worker.options.stream_timeout
        exchange.client.write(data)

    def client_ended(self) -> bool:
        """Shut the sending side towards the upstream; True keeps the client's connection for the other direction."""
        self._client_ended = True
        upstream = self._exchange.upstream
        if upstream is None or upstream.closed or self._upstream_ended:
            self.end()
            return False
        self._exchange.worker.outbox.flush()
        upstream.transport.write_eof()
        return self._exchange.client.transport.can_write_eof()

    def upstream_ended(self) -> bool:
        """Shut the sending side towards the client; True keeps the upstream's connection for the other direction."""
        self._upstream_ended = True
        client = self._exchange.client
        if self._client_ended or client.closed or not client.transport.can_write_eof():
            self.end()
            return False
        self._exchange.worker.outbox.flush()
        client.transport.write_eof()
        return True

    def end(self) -> None:
        """Close both connections after what is written has gone out; idempotent."""
        exchange = self._exchange
        if exchange.over:
            return
        upstream, client = exchange.upstream, exchange.client
        exchange.settle()
        if upstream is not None:
            upstream.close()
        client.exchange = None
        client.state = _LINGER
        client.close()
