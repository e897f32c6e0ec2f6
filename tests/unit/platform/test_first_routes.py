"""What the door is told first of apps that are on their way: not that they are stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from fairway.concurrency import background
from fairway.platform.doorplan import DoorPlan
from fairway.platform.doors import Doors
from fairway.platform.host import Host
from fairway.platform.layout import Layout
from fairway.platform.platform import Platform
from fairway.platform.state import AppRow, StateStore
from fairway.proxy.routes import RouteTable


class Opened(Exception):
    """The door would let its clients in now."""


class FirstTable(Doors):
    """A door whose workers answer already when the platform comes to them."""

    first = RouteTable()

    async def opened(self) -> None:
        self.first = self._table()
        raise Opened


class Builder:
    """Builds for ever."""

    async def build(self, *_: object) -> None:
        await asyncio.Event().wait()


async def test_the_first_routes_say_that_an_app_is_on_its_way(tmp_path: Path) -> None:
    registry = tmp_path / "compose" / "app-registry"
    registry.mkdir(parents=True)
    for name, more in (("shop", ""), ("idle", ""), ("front", "depends_on: [shop]")):
        (tmp_path / name).mkdir()
        (registry / f"{name}.yaml").write_text(f"name: {name}\nsource: ../../{name}\ncommand: [true]\n{more}\n")
    layout = Layout(tmp_path / ".fairway")
    layout.create()
    state = StateStore(layout.database)
    state.save_app(AppRow(name="idle", wanted="stopped"))
    host = Host(layout, state)
    doors = FirstTable(host, DoorPlan(host, ("127.0.0.1", 0)))
    platform = Platform(host, doors, lambda: cast(Any, Builder()), registry)
    with pytest.raises(Opened):
        await platform.start(background())
    said = {route.name: route.notice for route in doors.first.routes}
    assert said["shop"].startswith("shop is being built.")
    assert said["front"].startswith("front waits for an app")
    assert said["idle"].startswith("idle is stopped.")
    await host.background.cancel()
    state.close()
