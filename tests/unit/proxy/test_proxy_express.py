"""The common way in one piece, and the steps: the same bytes, books and states, whichever a message takes."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import Any

import pytest

from fairway.proxy import page as page_module
from fairway.proxy import render as render_module
from fairway.proxy.downstream import HEAD, ClientConnection
from fairway.proxy.exchange import Exchange
from fairway.proxy.memo import GENERATION_S
from fairway.proxy.options import DoorOptions
from fairway.proxy.outbox import SMALL, WAITING, Outbox
from fairway.proxy.routes import Limits, Route, RouteTable, Target
from fairway.proxy.targets import TargetState
from fairway.proxy.upstream import UpstreamConnection
from fairway.proxy.worker import Worker

DATE = b"Date: Fri, 20 Nov 2026 18:06:47 GMT\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class FakeTransport(asyncio.Transport):
    """Keeps what is written, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.calls: list[str] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.calls.append("close")
        self.closing = True

    def abort(self) -> None:
        self.calls.append("abort")
        self.closing = True

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.calls.append("eof")

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


class Stand:
    """A worker with a client and a kept upstream connection, all without sockets."""

    def __init__(self, *, steps: bool = False, **options: Any) -> None:
        self.worker = worker = Worker(DoorOptions(**options), asyncio.get_running_loop())
        self.table = RouteTable(
            version=1,
            routes=(
                Route(name="r", host="app.test", targets=(Target(id="a", host="127.0.0.1", port=1),)),
                Route(
                    name="two",
                    host="two.test",
                    targets=tuple(Target(id=f"two.{i}", host="127.0.0.1", port=1) for i in range(2)),
                ),
                Route(
                    name="strict",
                    host="strict.test",
                    limits=Limits(concurrency=1),
                    targets=(Target(id="b", host="127.0.0.1", port=1),),
                ),
            ),
        )
        worker.replace_table(self.table)
        numbers = itertools.count()
        worker.next_request_id = lambda: b"id-%d" % next(numbers)
        worker.next_traceparent = lambda: b"00-trace"
        if steps:
            worker.express = False
        self.client = self.add_client()
        self.upstreams: list[UpstreamConnection] = []
        for target in worker.table.targets.values():
            self.add_upstream(target)

    def add_client(self) -> ClientConnection:
        client = ClientConnection(self.worker)
        client.connection_made(FakeTransport())
        return client

    def add_upstream(self, target: TargetState) -> UpstreamConnection:
        upstream = UpstreamConnection(self.worker, target)
        upstream.connection_made(FakeTransport())
        upstream.rest_idle()
        self.upstreams.append(upstream)
        return upstream

    def ask(self, *pieces: bytes) -> UpstreamConnection | None:
        """Give bytes to the client's connection; return the upstream's that carries the request, if one does."""
        for piece in pieces:
            self.client.data_received(piece)
        self.worker.outbox.flush()
        return next((upstream for upstream in self.upstreams if upstream.exchange is not None), None)

    def found(self) -> dict[str, Any]:
        """Return everything that both ways have to agree on."""
        worker, client = self.worker, self.client
        return {
            "client": b"".join(client.transport.writes),  # type: ignore[attr-defined]  # a FakeTransport
            "client calls": client.transport.calls,  # type: ignore[attr-defined]
            "client state": (client.state, client.exchange is None, client.rest, client.read_paused),
            "deadline": f"{client.deadline - worker.wheel.now:.6f}",
            "upstream": [b"".join(upstream.transport.writes) for upstream in self.upstreams],  # type: ignore[attr-defined]
            "upstream calls": [upstream.transport.calls for upstream in self.upstreams],  # type: ignore[attr-defined]
            "upstream state": [(one.state, one.uses, one.exchange is None) for one in self.upstreams],
            "upstream deadlines": [f"{upstream.deadline - worker.wheel.now:.6f}" for upstream in self.upstreams],
            "idle": {name: len(target.idle) for name, target in worker.table.targets.items()},
            "targets": {
                name: (one.requests, one.errors, one.in_flight, one.bytes_received, one.failures, one.latency_sum > 0)
                for name, one in worker.table.targets.items()
            },
            "routes": {
                name: (one.books.in_flight, one.books.statuses, sum(one.books.buckets), one.books.latency_sum > 0)
                for name, one in worker.table.routes.items()
            },
            "in flight": worker.in_flight,
        }


@pytest.fixture(autouse=True)
def same_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (render_module, page_module):
        monkeypatch.setattr(module, "date_line", lambda: DATE)


def head(*fields: bytes, method: bytes = b"GET", target: bytes = b"/x", version: bytes = b"1.1") -> bytes:
    return b"%b %b HTTP/%b\r\n%b\r\n\r\n" % (method, target, version, b"\r\n".join((b"Host: app.test", *fields)))


REQUESTS = {
    "plain": head(b"Accept: */*", b"Cookie: a=b"),
    "kept": head(b"Connection: keep-alive, X-Gone", b"X-Gone: 1", b"X-Request-Id: mine"),
    "traced": head(b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "closing": head(b"Connection: close"),
    "old": head(version=b"1.0"),
    "old, kept": head(b"Connection: keep-alive", version=b"1.0"),
    "newer": head(version=b"1.2"),
    "HEAD": head(method=b"HEAD"),
    "DELETE": head(method=b"DELETE"),
    "body": head(b"Content-Length: 3", method=b"POST") + b"abc",
    "no body": head(b"Content-Length: 0", method=b"POST"),
    "chunked": head(b"Transfer-Encoding: chunked", method=b"POST") + b"3\r\nabc\r\n0\r\n\r\n",
    "trailers": head(b"TE: trailers"),
    "upgrade": head(b"Connection: Upgrade", b"Upgrade: x"),
    "pipelined": head() + head(target=b"/second"),
    "and nonsense": head() + b"nonsense\r\n\r\n",
    "two targets": head().replace(b"app.test", b"two.test"),
    "gated": head().replace(b"app.test", b"strict.test"),
    "challenge": head(target=b"/.well-known/acme-challenge/x"),
}
ANSWERS = {
    "plain": [OK],
    "empty": [b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 0\r\n\r\n"],
    "an error": [b"HTTP/1.1 503 No\r\n" + DATE + b"Content-Length: 2\r\n\r\nno"],
    "their 499": [b"HTTP/1.1 499 No\r\n" + DATE + b"Content-Length: 2\r\n\r\nno"],
    "no Date": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
    "closing": [b"HTTP/1.1 200 OK\r\n" + DATE + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"],
    "old": [b"HTTP/1.0 200 OK\r\n" + DATE + b"Content-Length: 2\r\n\r\nok"],
    "own id": [b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\n" + DATE + b"Content-Length: 2\r\n\r\nok"],
    "extra bytes": [OK + b"extra"],
    "in pieces": [OK[:20], OK[20:-1], OK[-1:]],
    "chunked": [b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
    "204": [b"HTTP/1.1 204 No Content\r\n" + DATE + b"Content-Length: 0\r\n\r\n"],
    "304": [b"HTTP/1.1 304 Not Modified\r\n" + DATE + b"Content-Length: 2\r\n\r\n"],
    "426": [b"HTTP/1.1 426 Up\r\nUpgrade: x\r\nConnection: Upgrade\r\n" + DATE + b"Content-Length: 2\r\n\r\nok"],
    "early hints": [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK],
    "101": [b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"],
    "both framings": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "large": [OK.replace(b"Length: 2\r\n\r\nok", b"Length: 50000\r\n\r\n") + b"a" * 50_000],
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("request_name", REQUESTS)
async def test_both_ways_are_one(request_name: str, answer: str) -> None:
    found = []
    for steps in (True, False):
        stand = Stand(steps=steps, trace=True)
        for _ in range(3):  # the first is parsed, the second remembered, the third recalled
            upstream = stand.ask(REQUESTS[request_name])
            for piece in ANSWERS[answer]:
                if upstream is not None and upstream.exchange is not None:
                    upstream.data_received(piece)
            stand.worker.outbox.flush()
        found.append(stand.found())
        _settle(stand)
    assert found[0] == found[1]
    assert found[0]["client"]


async def test_only_clients_that_left_count_as_such() -> None:
    stand = Stand()
    for answer in (ANSWERS["their 499"][0], ANSWERS["their 499"][0].replace(DATE, b"")):
        upstream = stand.ask(REQUESTS["plain"])
        assert upstream is not None
        upstream.data_received(answer)
    assert stand.worker.table.routes["r"].statistics().requests == {"4xx": 2}
    stand.ask(REQUESTS["plain"])
    stand.client.connection_lost(None)
    assert stand.worker.table.routes["r"].statistics().requests == {"4xx": 2, "499": 1}


def _quiet(stand: Stand) -> bool:
    return stand.worker.in_flight == 0


def _settle(stand: Stand) -> None:
    stand.client.connection_lost(None)
    for upstream in list(stand.worker.upstreams):
        upstream.connection_lost(None)
    assert not stand.worker.in_flight


async def test_the_common_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()
    monkeypatch.setattr(Exchange, "begin", lambda self: pytest.fail("a step"))
    monkeypatch.setattr(Exchange, "answer", lambda self, *_: pytest.fail("a step"))
    for number in range(3):
        upstream = stand.ask(head(b"X: %d" % (number // 2)))
        assert upstream is not None
        upstream.data_received(OK)
        stand.worker.outbox.flush()
    assert stand.found()["client"].count(b"200 OK") == 3
    assert stand.worker.table.targets["a"].requests == 3


@pytest.mark.parametrize("reason", ["half closed", "blocked", "stopping", "watched", "draining", "retired"])
async def test_both_ways_are_one_when_something_happens_between(reason: str) -> None:
    found = []
    for steps in (True, False):
        stand = Stand(steps=steps)
        upstream = stand.ask(head())
        assert upstream is not None
        target = upstream.target
        if reason == "half closed":
            assert stand.client.eof_received()
        elif reason == "blocked":
            stand.client.pause_writing()
        elif reason == "stopping":
            stand.worker._stopping = True
            stand.worker._judge_express()
        elif reason == "watched":
            waiting = asyncio.ensure_future(stand.worker._until(partial(_quiet, stand), 5.0))
            await asyncio.sleep(0)
            assert not stand.worker.express
        elif reason == "draining":
            target.draining = True
        else:
            stand.worker.replace_table(RouteTable(version=2, routes=stand.table.routes[1:]))
        upstream.data_received(OK)
        stand.worker.outbox.flush()
        if reason == "watched":
            await waiting
        found.append(stand.found() | {"retired": dict(stand.worker.retired)})
        _settle(stand)
    assert found[0] == found[1]
    assert b"200 OK" in found[0]["client"]


async def test_an_upstream_that_speaks_before_it_is_asked_is_not_believed() -> None:
    """Its bytes meet the request in one turn of the loop: the request has not been sent, so they answer nothing."""
    stand = Stand()
    connected: list[Any] = []
    stand.worker.connect = lambda exchange, target: connected.append(exchange)  # type: ignore[method-assign]
    first = next(upstream for upstream in stand.upstreams if upstream.target.id == "a")
    stand.client.data_received(head())
    assert first.exchange is not None
    first.data_received(OK.replace(b"ok", b"no"))
    stand.worker.outbox.flush()
    assert first.transport.calls == ["abort"]  # type: ignore[attr-defined]
    assert not stand.client.transport.writes  # type: ignore[attr-defined]
    (exchange,) = connected
    second = UpstreamConnection(stand.worker, first.target)
    second.connection_made(FakeTransport())
    exchange.connected(second)
    stand.worker.outbox.flush()
    second.data_received(OK)
    stand.worker.outbox.flush()
    assert b"".join(stand.client.transport.writes).endswith(b"\r\n\r\nok")  # type: ignore[attr-defined]
    _settle(stand)


async def test_an_answer_that_waits_goes_out_before_the_connection_closes() -> None:
    for end in ("eof", "expire", "stop"):
        stand = Stand()
        upstream = stand.ask(head())
        assert upstream is not None
        upstream.data_received(OK)
        transport = stand.client.transport
        assert not transport.writes  # type: ignore[attr-defined]
        if end == "eof":
            assert not stand.client.eof_received()
        elif end == "expire":
            stand.client.expire(0.0)
        else:
            stopping = asyncio.ensure_future(stand.worker.stop(5.0))
            await asyncio.sleep(0)
        assert b"".join(transport.writes).endswith(b"\r\n\r\nok")  # type: ignore[attr-defined]
        _settle(stand)
        if end == "stop":
            assert await stopping == 0


async def test_a_client_that_does_not_read_gets_no_further_answer() -> None:
    stand = Stand()
    upstream = stand.ask(head())
    assert upstream is not None
    upstream.data_received(OK)
    stand.client.pause_writing()  # as the transport does when the answer is written
    assert stand.client.state == HEAD
    assert stand.client.transport.calls == ["pause"]  # type: ignore[attr-defined]
    assert stand.client.deadline > stand.worker.wheel.now
    stand.client.resume_writing()
    assert stand.client.transport.calls == ["pause", "resume"]  # type: ignore[attr-defined]
    _settle(stand)


async def test_books_go_on_in_the_next_table() -> None:
    """A request that outlives its table is counted out of the route's books, not of a copy."""
    stand = Stand()
    upstream = stand.ask(head())
    assert upstream is not None
    stand.worker.replace_table(RouteTable(version=2, routes=stand.table.routes))
    assert stand.worker.table.routes["r"].books.in_flight == 1
    upstream.data_received(OK)
    stand.worker.outbox.flush()
    books = stand.worker.table.routes["r"].books
    assert books.in_flight == 0
    assert (sum(books.statuses), sum(books.buckets)) == (1, 1)
    assert books.latency_sum > 0
    _settle(stand)


# -- outbox -----------------------------------------------------------------------------------------------------------


class Line:
    """What an outbox writes to."""

    def __init__(self, log: list[tuple[Line, bytes]]) -> None:
        self.closed = False
        self.transport: Any = self
        self._log = log

    def write(self, data: bytes) -> None:
        if data == b"raise":
            raise RuntimeError("this transport is broken")
        self._log.append((self, data))


async def test_outbox_keeps_the_order_and_joins_neighbours() -> None:
    log: list[tuple[Line, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    a, b, gone = Line(log), Line(log), Line(log)
    for line, data in ((a, b"1"), (a, b"2"), (gone, b"-"), (b, b"3"), (a, b"4"), (b, b"5")):
        outbox.post(line, data)
    gone.closed = True
    assert not log
    turn = outbox.turn
    await asyncio.sleep(0)
    assert log == [(a, b"12"), (b, b"3"), (a, b"4"), (b, b"5")]
    assert outbox.turn == turn + 1


async def test_outbox_lets_nobody_wait_for_many_or_behind_much() -> None:
    log: list[tuple[Line, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    lines = [Line(log) for _ in range(WAITING)]
    for line in lines:
        outbox.post(line, b"x")
    assert log == [(line, b"x") for line in lines]
    outbox.post(lines[0], b"small")
    outbox.post(lines[1], b"l" * (SMALL + 1))
    assert [len(data) for _, data in log[WAITING:]] == [5, SMALL + 1]
    turn = outbox.turn
    outbox.post(lines[2], b"m" * (SMALL + 1))
    assert log[-1][0] is lines[2]
    assert outbox.turn == turn + 1, "it is sent: an answer may come in this turn"


async def test_outbox_goes_on_after_a_transport_that_raises() -> None:
    log: list[tuple[Line, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    outbox.post(Line(log), b"raise")
    last = Line(log)
    outbox.post(last, b"x")
    with pytest.raises(RuntimeError, match="broken"):
        outbox.flush()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == [(last, b"x")]


# -- what is remembered, and what is sent again ----------------------------------------------------------------------


async def test_heads_are_forgotten_by_the_wheel() -> None:
    stand = Stand()
    secret = head(b"Authorization: Basic c2VjcmV0")
    for _ in range(2):
        upstream = stand.ask(secret)
        assert upstream is not None
        upstream.data_received(OK)
        stand.worker.outbox.flush()
    memo = stand.worker.heads[False]
    assert secret in memo.young
    (ageing,) = [member for slot in stand.worker.wheel._slots for member in slot if "Ageing" in repr(member)]
    now = ageing.deadline
    ageing.expire(now)
    assert ageing.deadline == now + GENERATION_S
    ageing.expire(now + GENERATION_S)
    assert len(memo) == 0
    assert len(stand.worker.answers) == 0
    _settle(stand)


async def test_an_empty_chunked_body_ends_on_the_second_connection_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()
    first = stand.ask(head(b"Transfer-Encoding: chunked", method=b"PUT") + b"0\r\n\r\n")
    assert first is not None
    exchange = first.exchange
    assert exchange is not None
    wanted: list[TargetState] = []
    monkeypatch.setattr(stand.worker, "connect", lambda _, target: wanted.append(target))
    first.connection_lost(None)  # the keep-alive race: nothing was answered, and PUT may be sent again
    (target,) = wanted
    second = UpstreamConnection(stand.worker, target)
    second.connection_made(FakeTransport())
    exchange.connected(second)
    stand.worker.outbox.flush()
    sent = [b"".join(upstream.transport.writes) for upstream in (first, second)]  # type: ignore[attr-defined]
    assert sent[0].endswith(b"\r\n\r\n0\r\n\r\n")
    assert sent[1] == sent[0]
