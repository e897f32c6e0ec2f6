"""Workers of the door that come up together: all of them with routes, or none is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fairway.platform import doors as module
from fairway.platform.background import Background
from fairway.platform.doorplan import DoorPlan
from fairway.platform.doors import DoorFailed, Doors
from fairway.proxy.errors import ControlError
from fairway.run.process import Exit
from fairway.testing.loop import elapse, virtual_time


class Child:
    """A worker's process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.exit: Exit | None = None
        self.adopted = False
        self.exited = SimpleNamespace(recv_ok=asyncio.Event().wait)

    async def stop(self, grace: float) -> None:
        self.exit = self.exit or Exit(signal=9)


class Client:
    """A worker's control socket: it answers, and takes routes, or does not."""

    def __init__(self) -> None:
        self.answers = self.takes = True
        self.tables = 0

    async def statistics(self) -> None:
        if not self.answers:
            raise ControlError("nobody listens")

    async def push(self, _: object) -> None:
        if not self.takes:
            raise ControlError("expected an answer in time, got none")
        self.tables += 1


class Street:
    """Doors of two workers that nobody has to start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.children = [Child(0), Child(1)]
        self.clients = [Client(), Client()]
        self.rows = {0, 1}
        monkeypatch.setattr(module, "Process", SimpleNamespace(watch=lambda number: self.children[number]))
        monkeypatch.setattr(module, "DoorClient", lambda path: self.clients[int(path.name)])
        monkeypatch.setattr(DoorPlan, "spawn", lambda _, number: number)
        layout = SimpleNamespace(door_socket=lambda n: folder / str(n), log_file=lambda *_: folder / "door.log")
        state = SimpleNamespace(doors=list, remove_door=self.rows.discard)
        host = cast(Any, SimpleNamespace(background=Background(), layout=layout, state=state))
        self.doors = Doors(host, DoorPlan(cast(Any, None), ("127.0.0.1", 0), 2))
        self.background: Background = host.background


@pytest.fixture
def street(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Street:
    return Street(monkeypatch, tmp_path)


@virtual_time
async def test_one_that_ends_takes_those_that_came_up_and_those_on_their_way_along(street: Street) -> None:
    street.clients[0].answers = street.clients[1].takes = False
    opening = asyncio.ensure_future(street.doors.opened())
    await elapse(1)
    assert not opening.done()
    street.children[0].exit = Exit(code=1)
    with pytest.raises(DoorFailed, match="door worker 0 to come up, it ended with exit 1"):
        await opening
    assert [str(child.exit) for child in street.children] == ["exit 1", "SIGKILL"]
    assert (street.doors.workers, street.rows) == ({}, set())


@virtual_time
async def test_one_that_is_up_ends_with_its_sibling(street: Street) -> None:
    street.clients[0].answers = False
    opening = asyncio.ensure_future(street.doors.opened())
    await elapse(1)
    assert list(street.doors.workers) == [1]
    street.children[0].exit = Exit(code=1)
    with pytest.raises(DoorFailed):
        await opening
    assert (street.doors.workers, street.rows, str(street.children[1].exit)) == ({}, set(), "SIGKILL")
    await street.background.cancel()


@virtual_time
async def test_the_door_is_open_once_every_worker_has_routes(street: Street) -> None:
    street.clients[1].takes = False
    opening = asyncio.ensure_future(street.doors.opened())
    await elapse(5)
    assert not opening.done()
    assert list(street.doors.workers) == [0]
    street.clients[1].takes = True
    await opening
    assert [client.tables for client in street.clients] == [1, 1]
    assert sorted(street.doors.workers) == [0, 1]
    await street.background.cancel()


@virtual_time
async def test_one_that_takes_no_routes_has_not_come_up(street: Street) -> None:
    street.clients[1].takes = False
    opening = asyncio.ensure_future(street.doors.opened())
    with pytest.raises(DoorFailed, match="worker 1 to come up, it expected an answer in time"):
        await opening
    assert (street.doors.workers, street.rows) == ({}, set())
    await street.background.cancel()
