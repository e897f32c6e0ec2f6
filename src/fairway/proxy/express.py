"""The common way in one piece: a request without a body, to a route of one target, over a kept connection, answered
whole in one read.

Both halves do what `downstream`, `exchange` and `upstream` do in steps, with the same bytes, books and states; they
take half the time because they ask each question once. What they cannot be sure of, they decline before anything has
changed, and the steps decide. What makes a message plain is said where it is read (`RequestHead.plain`,
`ResponseHead.plain`) and where it is routed (`RouteState.express`). That both ways are equal is held by
tests/unit/proxy/test_proxy_express.py, which sends messages both ways.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, cast

from fairway.proxy.control import HISTOGRAM_BOUNDS_S
from fairway.proxy.exchange import Exchange
from fairway.proxy.render import render_start
from fairway.proxy.wheel import NEVER

if TYPE_CHECKING:
    from fairway.proxy.downstream import ClientConnection
    from fairway.proxy.request import RequestHead
    from fairway.proxy.response import ResponseHead
    from fairway.proxy.table import RouteState
    from fairway.proxy.upstream import UpstreamConnection

# States of the two connections, whose modules import this one.
_UP_IDLE: Final = 0
_UP_HEAD: Final = 1
_HEAD: Final = 0
_WAIT: Final = 3
_MAX_IDLE: Final = 512
_monotonic = time.monotonic


def forward(client: ClientConnection, head: RequestHead, size: int) -> bool:
    """Send a plain request on; False, with nothing done, where the steps have to see to it."""
    worker = client.worker
    table = worker.table
    found = head.found
    if found is None or found[0] is not table:
        found = head.found = (table, table.find(head))
    route = cast("RouteState | None", found[1])
    if route is None or not route.express or not worker.express or client.write_paused:
        return False
    target = route.targets[0]
    idle = target.idle
    if target.draining or not idle:
        return False
    upstream = idle.pop()
    if upstream.transport.is_closing():
        return False  # left out, as it is by the steps
    client.state = _WAIT
    client.deadline = NEVER
    client.exchange = upstream.exchange = exchange = Exchange(client, head, size)
    exchange.express = exchange.body_done = True
    exchange.attempts = 1
    exchange.route = route
    exchange.target = target
    exchange.upstream = upstream
    exchange.request_id = request_id = head.request_id or worker.next_request_id()
    if route.upstream_timeout is not None:
        exchange.upstream_timeout = route.upstream_timeout
    worker.in_flight += 1
    route.books.in_flight += 1
    target.in_flight += 1
    upstream.state = _UP_HEAD
    upstream.uses += 1
    upstream.deadline = worker.wheel.now + exchange.upstream_timeout
    upstream.taken = worker.outbox.turn
    host = head.host
    assert host is not None
    if client.forwarded_for != host:
        client.forward_for(host)
    start = head.rendered or render_start(route, head, host)
    if worker.trace or head.traceparent is not None:
        trace = exchange.traceparent = head.traceparent or worker.next_traceparent()
        request_id = b"%b\r\ntraceparent: %b" % (request_id, trace)
    data = b"%b%bX-Request-Id: %b\r\n\r\n" % (start, client.forwarded_rendered, request_id)
    worker.outbox.post(upstream, data)
    return True


def deliver(upstream: UpstreamConnection, exchange: Exchange, response: ResponseHead, payload: bytes) -> bool:
    """Give a whole plain answer to the client and close the books; False, with nothing done, for all others."""
    client = exchange.client
    worker = exchange.worker
    if not worker.express or not exchange.body_done or client.half_closed or client.write_paused:
        return False
    route, target = exchange.route, exchange.target
    assert route is not None
    assert target is not None
    exchange.over = True
    exchange.response = response
    exchange.status = status = response.status
    exchange.sent = sent = len(payload)
    exchange.latency = latency = _monotonic() - exchange.started
    start = response.rendered or response.render()
    request_id = response.request_id or exchange.request_id
    data = b"%bX-Request-Id: %b\r\n\r\n%b" % (start, request_id, payload)
    if target.failures:
        target.answered()
    target.in_flight -= 1
    target.requests += 1
    target.latency_sum += latency
    target.bytes_received += sent
    if status >= 500:
        target.errors += 1
    books = route.books
    books.in_flight -= 1
    books.statuses[status // 100] += 1
    books.buckets[bisect_left(HISTOGRAM_BOUNDS_S, latency)] += 1
    books.latency_sum += latency
    worker.in_flight -= 1
    if worker.log is not None:
        worker.log.exchange(exchange, latency)
    upstream.exchange = exchange.upstream = None
    idle = target.idle
    now = worker.wheel.now
    if response.reusable and not (target.draining or target.retired or upstream.read_paused or len(idle) >= _MAX_IDLE):
        upstream.state = _UP_IDLE
        upstream.deadline = now + worker.options.upstream_idle
        idle.append(upstream)
    else:
        worker.target_settled(target)
        if response.reusable:
            upstream.rest_idle()
        else:
            upstream.close()
    client.exchange = None
    client.state = _HEAD
    client.deadline = now + worker.options.keepalive_timeout
    worker.outbox.post(client, data)
    if client.rest or client.read_paused:
        client.go_on()
    return True
