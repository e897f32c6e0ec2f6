"""Requests that wait for a table: whoever left waits no more, and no timer outlives a wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairway.proxy import worker as worker_module
from fairway.proxy.downstream import ClientConnection
from fairway.proxy.options import DoorOptions
from fairway.proxy.routes import Route, RouteTable, Target
from fairway.proxy.worker import Worker

GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open here."""

    def abort(self) -> None:
        """Nothing is open here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered here."""


def table(version: int, state: str = "holding", **more: Any) -> RouteTable:
    targets = (Target(id="a", host="127.0.0.1", port=1),)
    return RouteTable(
        version=version,
        routes=(Route(name="r", host="app.test", targets=targets, state=state, **more),),  # type: ignore[arg-type]
    )


def ask(worker: Worker, request: bytes = GET) -> tuple[ClientConnection, FakeTransport]:
    client, transport = ClientConnection(worker), FakeTransport()
    client.connection_made(transport)
    client.data_received(request)
    worker.outbox.flush()
    return client, transport


def held(worker: Worker) -> int:
    return worker.table.routes["r"].statistics().held


async def test_clients_that_left_take_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "HELD_PER_ROUTE", 3)
    worker = Worker(DoorOptions(), asyncio.get_running_loop())
    worker.replace_table(table(1))
    for _ in range(5):
        client, _ = ask(worker)
        client.connection_lost(None)
    assert held(worker) == 0
    waiting = [ask(worker)[1] for _ in range(3)]
    assert held(worker) == 3
    assert b" 503 " in ask(worker)[1].written
    assert [transport.written for transport in waiting] == [b""] * 3


async def test_all_routes_of_a_worker_share_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "HELD_PER_ROUTE", 3)
    monkeypatch.setattr(worker_module, "HELD_PER_WORKER", 4)
    worker = Worker(DoorOptions(), asyncio.get_running_loop())

    def both(version: int, state: str) -> RouteTable:
        targets = (Target(id="a", host="127.0.0.1", port=1),)
        return RouteTable(
            version=version,
            routes=tuple(
                Route(name=host, host=host, targets=targets, state=state)  # type: ignore[arg-type]  # one of its literals
                for host in ("app.test", "other.test")
            ),
        )

    other = GET.replace(b"app.test", b"other.test")
    worker.replace_table(both(1, "holding"))
    waiting = [ask(worker, request) for request in (GET, GET, GET, other)]
    refused = ask(worker, other)[1].written
    assert b" 503 " in refused
    assert b"services that are about to return" in refused
    assert b"wait for this service" in ask(worker)[1].written, "the route's own bound is named first"
    waiting.pop()[0].connection_lost(None)
    waiting.append(ask(worker, other))
    assert [transport.written for _, transport in waiting] == [b""] * 4
    assert b" 503 " in ask(worker, other)[1].written
    worker.replace_table(both(2, "unavailable"))
    assert worker.table.routes["other.test"].held == 0
    worker.replace_table(both(3, "holding"))
    assert ask(worker, other)[1].written == b"", "whoever waits no more takes no place"


async def test_a_wait_leaves_no_timer_behind() -> None:
    loop = asyncio.get_running_loop()
    worker = Worker(DoorOptions(), loop)
    worker.replace_table(table(1))
    body = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nbody"
    client, _ = ask(worker, body)
    left = client.exchange
    assert left is not None
    timer = left.hold_timer
    assert timer is not None
    client.connection_lost(None)
    assert timer.cancelled()
    assert left._pending is None
    client, _ = ask(worker)
    assert client.exchange is not None
    timer = client.exchange.hold_timer
    assert timer is not None
    worker.replace_table(table(2))
    assert client.exchange.hold_timer is timer
    assert not timer.cancelled(), "it waits on, no longer than it was to wait"
    worker.replace_table(table(3, "serving"))
    assert timer.cancelled(), "it would end a second wait too early"
    for task in list(worker._tasks):
        task.cancel()


async def test_a_wait_that_ends_is_counted_no_longer() -> None:
    worker = Worker(DoorOptions(), asyncio.get_running_loop())
    worker.replace_table(table(1, hold_timeout=0.001, notice="It starts."))
    client, transport = ask(worker)
    async with asyncio.timeout(5.0):
        while client.exchange is not None:
            await asyncio.sleep(0)
    worker.outbox.flush()
    assert b" 503 " in transport.written
    assert b"It starts." in transport.written
    assert held(worker) == 0
