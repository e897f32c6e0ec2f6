"""What the door writes: a request's head for the upstream, an answer's for the client, and small answers of its own.

A head that carries no framing and brings no forwarding fields is three pieces put together: what `RequestHead.rendered`
keeps for every request with the same bytes, what the connection keeps for every request to the same host, and the id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.proxy.page import date_line
from fairway.proxy.request import RequestHead

if TYPE_CHECKING:
    from fairway.proxy.downstream import ClientConnection
    from fairway.proxy.exchange import Exchange
    from fairway.proxy.response import ResponseHead
    from fairway.proxy.table import RouteState


def render_request(exchange: Exchange) -> bytes:
    """Return the head that the upstream gets, and note the trace context that it carries."""
    head = exchange.head
    client = exchange.client
    route = exchange.route
    assert route is not None
    assert exchange.target is not None
    host = head.host or exchange.target.host_header
    start = head.rendered
    if not start or route.strip:
        start = render_start(route, head, host)
    if head.forwarded_for is not None or head.forwarded_proto is not None or head.forwarded_host is not None:
        forwarded = _forwarded(head, client, host)
    else:
        if client.forwarded_for != host:
            client.forward_for(host)
        forwarded = client.forwarded_rendered
    trace = head.traceparent
    if trace is None and exchange.worker.trace:
        trace = exchange.worker.next_traceparent()
    exchange.traceparent = trace
    plain = not head.chunked and head.length < 0 and head.upgrade is None and not head.te_trailers
    parts = [start, forwarded, b"X-Request-Id: ", exchange.request_id, b"\r\n"]
    if trace is not None:
        parts.append(b"traceparent: %b\r\n" % trace)
    if not plain:
        _render_framing(head, parts)
    parts.append(b"\r\n")
    return b"".join(parts)


def render_start(route: RouteState, head: RequestHead, host: bytes) -> bytes:
    """Return a head's first part for the upstream: request line, Host, and the fields that are passed on."""
    target = head.target
    if route.strip and target[:1] == b"/":
        target = target[len(route.prefix) :]
        if target[:1] != b"/":
            target = b"/" + target
    start = b"".join((head.method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n", *head.lines))
    if not route.strip and head.host is not None:
        head.rendered = start  # the same for every route that this head may ever take
    return start


def _render_framing(head: RequestHead, parts: list[bytes]) -> None:
    if head.chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
        if head.trailer:
            parts.append(b"Trailer: %b\r\n" % b", ".join(head.trailer))
    elif head.length >= 0:
        parts.append(b"Content-Length: %d\r\n" % head.length)
    if head.expects:
        parts.append(b"Expect: 100-continue\r\n")
    if head.te_trailers:
        parts.append(b"TE: trailers\r\n")
    if head.upgrade is not None:
        parts.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade)


def _forwarded(head: RequestHead, client: ClientConnection, host: bytes) -> bytes:
    """Render X-Forwarded-* for a trusted peer that brought some: its chain goes on with its own address."""
    chain = [*(head.forwarded_for or ()), client.address.encode("ascii")]
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        b", ".join(item for item in chain if item),
        head.forwarded_proto or (b"https" if client.secure else b"http"),
        head.forwarded_host or host,
    )


def render_answer(exchange: Exchange, response: ResponseHead, framing: bytes, payload: bytes) -> bytes:
    """Return the head that the client gets, with the first part of the body behind it.

    Args:
        exchange: Whose answer it is.
        response: What the upstream said.
        framing: Rendered fields that say where the message ends, and whether the connection goes on.
        payload: As it is to be written.
    """
    if response.status == 426 and response.upgrade is not None:
        framing += b"Upgrade: %b\r\nConnection: Upgrade\r\n" % response.upgrade
    if not response.has_date:
        framing += date_line()
    request_id = response.request_id or exchange.request_id
    last = b"%bX-Request-Id: %b\r\n\r\n" % (exchange.extra, request_id)
    return b"".join((response.start, *response.lines, framing, last, payload))


def render_small_answer(status: int, fields: bytes, content: bytes, exchange: Exchange, keep: bool) -> bytes:
    """Return a whole answer of the door's own making; `fields` are rendered, without the length."""
    head = exchange.head
    kept = b"" if head.minor else b"Connection: keep-alive\r\n"
    connection = kept if keep else b"Connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%bContent-Length: %d\r\nX-Request-Id: %b\r\n%b\r\n%b" % (
        status,
        b"OK" if status == 200 else b"",
        date_line(),
        fields,
        len(content),
        exchange.request_id,
        connection,
        b"" if head.method == b"HEAD" else content,
    )
