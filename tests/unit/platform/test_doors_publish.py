"""Routes are pushed when they have changed, and again where a worker did not take them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from fairway.platform.background import Background
from fairway.platform.doorplan import DoorPlan
from fairway.platform.doors import Doors, Worker
from fairway.platform.restart import Backoff
from fairway.proxy.errors import ControlError
from fairway.proxy.routes import RouteTable
from fairway.testing.loop import elapse, virtual_time


class Client:
    """A worker that takes tables, or is late, or hangs."""

    def __init__(self) -> None:
        self.taken: list[RouteTable] = []
        self.late = False
        self.hangs: asyncio.Event | None = None

    async def push(self, table: RouteTable) -> None:
        if self.hangs is not None:
            self.hangs.set()
            await asyncio.Event().wait()
        if self.late:
            raise ControlError("expected an answer in time, got none")
        self.taken.append(table)


def made() -> tuple[Doors, list[Client]]:
    host = cast(Any, SimpleNamespace(background=Background()))
    doors, clients = Doors(host, DoorPlan(cast(Any, None), ("127.0.0.1", 0), 2)), [Client(), Client()]
    for number, client in enumerate(clients):
        process = cast(Any, SimpleNamespace(exit=None))
        doors.workers[number] = Worker(number, process, cast(Any, client), Backoff(), 0.0)
    return doors, clients


async def test_routes_that_have_not_changed_are_pushed_once() -> None:
    doors, clients = made()
    await doors.publish()
    await doors.publish()
    assert [len(client.taken) for client in clients] == [1, 1]


async def test_a_worker_that_was_late_gets_the_routes_with_the_next_that_is_published() -> None:
    doors, clients = made()
    clients[1].late = True
    await doors.publish()
    assert [len(client.taken) for client in clients] == [1, 0]
    clients[1].late = False
    await doors.publish()
    await doors.publish()
    assert [len(client.taken) for client in clients] == [2, 1]
    await doors._host.background.cancel()


@virtual_time
async def test_a_worker_that_was_late_gets_the_routes_although_nobody_publishes() -> None:
    doors, clients = made()
    clients[1].late = True
    await doors.publish()
    await elapse(5)
    assert clients[1].taken == []
    clients[1].late = False
    await elapse(10)
    assert [len(client.taken) for client in clients] == [1, 1]
    assert not doors.workers[1].catching_up


@virtual_time
async def test_nobody_pushes_to_a_worker_that_has_ended() -> None:
    doors, clients = made()
    clients[1].late = True
    await doors.publish()
    doors.workers[1].process.exit = cast(Any, "exit code 1")
    clients[1].late = False
    await elapse(100)
    assert clients[1].taken == []
    assert not doors.workers[1].catching_up


async def test_certificates_that_could_not_be_made_are_tried_again() -> None:
    class Certificates:
        tries = 0

        async def ensure(self, *_: object) -> None:
            self.tries += 1

        def needs(self, _: object) -> list[str]:
            return ["a.localhost"] if self.tries < 2 else []

    doors, _ = made()
    doors._certificates = certificates = cast(Any, Certificates())
    for _ in range(4):
        await doors.publish()
    assert certificates.tries == 2


async def test_a_publishing_that_is_cancelled_is_made_up_for() -> None:
    doors, clients = made()
    clients[0].hangs = asyncio.Event()
    publishing = asyncio.ensure_future(doors.publish())
    await clients[0].hangs.wait()
    publishing.cancel()
    await asyncio.wait({publishing})
    clients[0].hangs = None
    await doors.publish()
    assert len(clients[0].taken) == 1
