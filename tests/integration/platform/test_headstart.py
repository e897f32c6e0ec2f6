"""The head start: what may be started before the daemon is loaded, what may not, and that none of it is ever left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from fairway.apps.registry import load
from fairway.concurrency import background
from fairway.platform import headstart
from fairway.platform.config import DaemonConfig
from fairway.platform.headstart import HeadStart
from fairway.platform.host import Host
from fairway.platform.instance import Instance
from fairway.platform.layout import Layout
from fairway.platform.machine import Machine
from fairway.platform.opening import opened
from fairway.platform.recipe import Recipe
from fairway.platform.recovery import adopt_instances, end_strays
from fairway.platform.starts import Starts
from fairway.platform.state import InstanceRow, StateStore
from fairway.run import proctable
from fairway.run.builder import Builder
from fairway.run.process import find_marked
from fairway.run.release import newest_release

pytestmark = pytest.mark.integration


class Scene:
    """A project whose apps have been built, and a machine that runs none of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / "compose" / "app-registry"
        self.registry.mkdir(parents=True)
        self.layout = Layout(root / ".fairway")
        self.layout.create()
        self.state = StateStore(self.layout.database)
        self.machine = Machine(self.layout, self.state)
        self.head_start = HeadStart()

    def app(self, name: str, more: str = "") -> None:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "notes.txt").write_text("1")
        command = f"[{sys.executable}, -S, -c, import time; time.sleep(60)]"
        entry = f"name: {name}\nsource: ../../{name}\ncommand: {command}\n{textwrap.dedent(more)}\n"
        (self.registry / f"{name}.yaml").write_text(entry)

    def build(self) -> None:
        async def build() -> None:
            builder = Builder(self.layout.root)
            for spec in load(self.registry).apps.values():
                await builder.build(background(), spec)

        asyncio.run(build())

    def begin(self, *only: str) -> list[str]:
        headstart.begin(self.machine, self.head_start, self.registry, only)
        return [early.row.app for early in self.head_start.waiting]

    def recipe(self, name: str, process: str = "web") -> Recipe:
        release = newest_release(self.layout.root, name)
        assert release is not None
        return Recipe(load(self.registry).apps[name], release, process)


@pytest.fixture(autouse=True)
def no_subreaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no daemon: orphans of other tests' daemons are not its to reap."""
    monkeypatch.setattr("fairway.platform.opening.become_subreaper", lambda: False)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.head_start.give_up(made.machine)
    made.state.close()


def lives(pid: int) -> bool:
    entry = proctable.read_entry(pid)
    return entry is not None and entry.state != "Z"


def test_an_unchanged_app_is_started_written_down_and_taken_once(scene: Scene) -> None:
    scene.app("shop", "replicas: 2")
    scene.build()
    assert scene.begin() == ["shop", "shop"]
    rows = scene.state.instances()
    assert [(row.number, row.standing) for row in rows] == [(1, "staged"), (2, "staged")]
    assert len({row.port for row in rows}) == 2
    assert all(row.record is not None and lives(row.record.pid) for row in rows)
    release = scene.head_start.take_release("shop")
    assert release is not None
    assert release.id == rows[0].release
    assert scene.head_start.take_release("shop") is None

    async def take() -> None:
        host = Host(scene.layout, scene.state, head_start=scene.head_start)
        recipe = scene.recipe("shop")
        assert scene.head_start.take(msgspec.structs.replace(recipe, process="worker")) is None
        taken = [scene.head_start.take(recipe) for _ in range(3)]
        assert taken[2] is None
        for early in taken[:2]:
            assert early is not None
            instance = Instance.begun(host, recipe, early)
            assert (instance.state, instance.row) == ("starting", early.row)
            await instance.retire(0.0)
            assert instance.exit == "SIGKILL"
            assert not lives(early.spawned.pid)

    asyncio.run(take())
    assert scene.state.instances() == []


def test_an_instance_that_has_ended_before_it_is_watched_is_seen_to_have_ended(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    scene.begin()
    (early,) = scene.head_start.waiting
    os.kill(early.spawned.pid, signal.SIGTERM)
    os.waitid(os.P_PID, early.spawned.pid, os.WEXITED | os.WNOWAIT)

    async def take() -> None:
        host = Host(scene.layout, scene.state, head_start=scene.head_start)
        taken = scene.head_start.take(scene.recipe("shop"))
        assert taken is not None
        instance = Instance.begun(host, scene.recipe("shop"), taken)
        assert instance.process is not None
        async with asyncio.timeout(5):
            assert str(await instance.process.wait()) == "SIGTERM"
        await instance.retire(0.0)

    asyncio.run(take())


def changed_source(scene: Scene) -> None:
    (scene.root / "shop" / "notes.txt").write_text("22")


def changed_environment(scene: Scene) -> None:
    scene.app("shop", "env: {COLOUR: red}")


def changed_limits_of_a_fixed_port(scene: Scene) -> None:
    scene.app("shop", "backend: {port: 20123}")


def stopped(scene: Scene) -> None:
    scene.state.save_app(msgspec.structs.replace(scene.state.app("shop"), wanted="stopped"))


def pinned(scene: Scene) -> None:
    scene.state.save_app(msgspec.structs.replace(scene.state.app("shop"), pinned="20260101-000000000-12345678"))


def scaled(scene: Scene) -> None:
    scene.state.save_app(msgspec.structs.replace(scene.state.app("shop"), scale=3, scale_base=1))


def waits_for_another(scene: Scene) -> None:
    scene.app("shop", "depends_on: [base]")


def broken_entry(scene: Scene) -> None:
    (scene.registry / "shop.yaml").write_text("name: [shop")


def program_gone(scene: Scene) -> None:
    (record,) = (scene.layout.root / "builds" / "shop").glob("*/build.json")
    record.write_text(record.read_text().replace('"programs":{', '"programs":{"/no/such/program":"1",'))


@pytest.mark.parametrize(
    "change",
    [
        changed_source,
        changed_environment,
        changed_limits_of_a_fixed_port,
        stopped,
        pinned,
        scaled,
        waits_for_another,
        broken_entry,
        program_gone,
    ],
)
def test_whatever_needs_a_second_look_takes_the_usual_way(scene: Scene, change: Callable[[Scene], None]) -> None:
    scene.app("base")
    scene.app("shop")
    scene.build()
    change(scene)
    assert scene.begin() == ["base"]
    assert scene.head_start.take_release("shop") is None


def test_a_name_that_nobody_knows_starts_nothing(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    assert scene.begin("shop", "nobody") == []
    assert scene.begin("shop") == ["shop"]


def test_the_slowest_app_is_first(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.app(name)
    scene.build()
    starts = Starts(scene.layout.cache / "starts.json")
    for name, seconds in (("a", 0.1), ("b", 0.9), ("c", 0.5)):
        starts.note(name, seconds)
    starts.save(["a", "b", "c"])
    assert scene.begin() == ["b", "c", "a"]


def test_a_program_that_cannot_be_started_leaves_nothing(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    scene.machine.layout.logs.joinpath("shop").write_text("a file where a folder has to be")
    assert scene.begin() == []
    assert scene.state.instances() == []


def test_what_nobody_takes_is_killed_and_forgotten(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    scene.begin()
    (early,) = scene.head_start.waiting
    scene.head_start.give_up(scene.machine)
    assert not lives(early.spawned.pid)
    assert scene.state.instances() == []
    with pytest.raises(ChildProcessError):  # reaped, too
        os.waitpid(early.spawned.pid, os.WNOHANG)


def test_recovery_leaves_what_this_daemon_has_started_alone(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    scene.begin()
    (early,) = scene.head_start.waiting

    async def recover() -> None:
        host = Host(scene.layout, scene.state, head_start=scene.head_start)
        assert await adopt_instances(host, {}) == 0
        assert end_strays(host) == 0
        assert len(host.background) == 0

    asyncio.run(recover())
    assert scene.state.instances() == [early.row]
    assert lives(early.spawned.pid)


def test_the_opening_starts_what_it_may_and_ends_what_nobody_took(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    config = DaemonConfig(scene.registry, scene.layout.root, door_port=0, api_port=0)
    with opened(config) as opening:
        (early,) = opening.head_start.waiting
        (door,) = opening.doors.values()
        assert lives(early.spawned.pid)
        assert lives(door.pid)
        assert [row.record.pid for row in opening.machine.state.doors()] == [door.pid]
    assert not lives(early.spawned.pid)
    assert not lives(door.pid)
    assert (scene.state.instances(), scene.state.doors()) == ([], [])


def test_after_a_crash_nothing_is_started_before_all_was_looked_at(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    scene.layout.lock.write_text("4711 http://127.0.0.1:7070\n")  # what a killed daemon leaves
    config = DaemonConfig(scene.registry, scene.layout.root, door_port=0, api_port=0)
    with opened(config) as opening:
        assert opening.head_start.waiting == []
    with opened(config) as opening:  # that one has ended in order
        assert [early.row.app for early in opening.head_start.waiting] == ["shop"]


def test_with_an_instance_left_to_adopt_nothing_is_started(scene: Scene) -> None:
    scene.app("shop")
    scene.build()
    scene.begin()
    (early,) = scene.head_start.waiting
    config = DaemonConfig(scene.registry, scene.layout.root, door_port=0, api_port=0)
    with opened(config) as opening:
        assert opening.head_start.waiting == []
    assert lives(early.spawned.pid)


def test_an_instance_that_cannot_be_written_down_is_ended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    save = StateStore.save_instance

    def full(store: StateStore, row: InstanceRow) -> None:
        if row.record is not None:
            raise apsw.FullError("database or disk is full")
        save(store, row)

    scene.app("shop")
    scene.build()
    monkeypatch.setattr(StateStore, "save_instance", full)
    with pytest.raises(apsw.FullError):
        scene.begin()
    assert find_marked(scene.layout.owner + "/") == {}


def test_a_file_that_no_parser_can_bear_is_no_other_apps_trouble(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path) -> tuple[Path, ...]:
        raise ValueError(f"embedded null byte in {source}")

    scene.app("base")
    scene.app("shop")
    scene.build()
    changed_source(scene)  # so that its files are looked through again
    monkeypatch.setattr("fairway.run.sources.find_references", refuse)
    assert scene.begin() == ["base"]
