"""The event stores against a model: a few hundred random steps, two groups, leases that run out, events that are
removed, restarts of SQLite, SIGKILL of Redis."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fairway.events import Event
from fairway.events.store import RetainedStore
from fairway.events.stores.memory import MemoryEventStore
from fairway.events.stores.redis import RedisEventStore
from fairway.events.stores.sqlite import SqliteEventStore
from fairway.events.topic import matcher
from fairway.testing.redis_server import RedisServer

TOPICS = ("a.x", "a.y", "b")
GROUPS = {"all": ">", "some": "a.*"}
LEASE, TRIES = 30.0, 3


class Time:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@dataclass
class Item:
    offset: int
    key: str | None
    fence: int = 0
    leased: bool = False
    due: float = 0.0


@dataclass
class Group:
    pattern: str
    items: dict[int, Item] = field(default_factory=dict)
    dead: int = 0
    done: set[int] = field(default_factory=set)


class Model(RuleBasedStateMachine):
    """What the contract says, in the plainest words; `store` has to agree after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Time()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.store = self.run(self.open())
        self.log: list[tuple[int, str, str, str | None]] = []  # offset, id, topic, key
        self.groups: dict[str, Group] = {}
        self.newest = 0
        self.removed: set[str] = set()  # ids: stores differ in how long they know them

    async def open(self) -> RetainedStore:
        return MemoryEventStore(clock=self.clock)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    @initialize()
    def join_first(self) -> None:
        self.join("all", False)

    @rule(group=st.sampled_from(sorted(GROUPS)), now=st.booleans())
    def join(self, group: str, now: bool) -> None:
        self.run(self.store.join(group, GROUPS[group], None if now else 0))
        if group not in self.groups:
            self.groups[group] = Group(GROUPS[group])
            for offset, _, topic, key in self.log:
                if not now:
                    self.offer(self.groups[group], offset, topic, key)

    @staticmethod
    def offer(group: Group, offset: int, topic: str, key: str | None) -> None:
        if matcher(group.pattern)(topic):
            group.items[offset] = Item(offset, key)

    def record(self, offset: int, name: str, topic: str, key: str | None) -> None:
        self.log.append((offset, name, topic, key))
        self.newest = offset
        for group in self.groups.values():
            self.offer(group, offset, topic, key)

    @rule(
        records=st.lists(
            st.tuples(st.sampled_from(TOPICS), st.integers(0, 40), st.sampled_from([None, "k", "l"])), max_size=4
        )
    )
    def append(self, records: list[tuple[str, int, str | None]]) -> None:
        made = [
            (topic, Event("t", number, id=f"i{number}", partition_key=key))
            for topic, number, key in records
            if f"i{number}" not in self.removed
        ]
        offsets = self.run(self.store.append(made))
        for (topic, event), offset in zip(made, offsets, strict=True):
            known = [entry for entry in self.log if entry[1] == event.id]
            if known:
                assert offset == known[0][0]
            else:
                assert offset > self.newest
                self.record(offset, event.id, topic, event.partition_key)

    def claimable(self, group: Group) -> list[Item]:
        found, keys = [], set()
        for item in sorted(group.items.values(), key=lambda one: one.offset):
            first = item.key is None or item.key not in keys
            keys.add(item.key)
            if first and not item.leased and item.due <= self.clock.now:
                found.append(item)
        return found

    def expire(self, name: str) -> None:
        group = self.groups[name]
        letters = []
        for item in sorted(group.items.values(), key=lambda one: (one.due, one.offset)):
            if item.leased and item.due <= self.clock.now:
                item.leased, item.due = False, 0.0
                if item.fence >= TRIES:
                    letters.append(item)
        for item in letters:
            self.bury(name, item)

    def bury(self, name: str, item: Item) -> None:
        group = self.groups[name]
        del group.items[item.offset]
        group.dead += 1
        group.done.add(item.offset)
        [letter] = [
            stored
            for stored in self.run(self.store.read(0, 10_000, f"$dead.{name}"))
            if stored.event.extensions["deadoffset"] == str(item.offset)
        ]
        assert letter.event.partition_key == item.key
        if all(entry[0] != letter.offset for entry in self.log):
            self.log.append((letter.offset, letter.event.id, letter.topic, item.key))
            self.log.sort()
            self.newest = max(self.newest, letter.offset)

    @rule(name=st.sampled_from(sorted(GROUPS)), limit=st.integers(1, 5))
    def claim(self, name: str, limit: int) -> None:
        if name not in self.groups:
            return
        claimed = self.run(self.store.claim(name, limit, LEASE, TRIES))
        self.expire(name)
        group = self.groups[name]
        expected = self.claimable(group)[:limit]
        assert [item.stored.offset for item in claimed] == [item.offset for item in expected]
        for got, item in zip(claimed, expected, strict=True):
            assert got.stored.offset not in group.done
            item.fence += 1
            item.leased, item.due = True, self.clock.now + LEASE
            assert got.fence == item.fence

    @rule(
        name=st.sampled_from(sorted(GROUPS)),
        choice=st.integers(0, 100),
        off=st.sampled_from([0, 0, 0, 0, 1, -1]),
        step=st.sampled_from(["ack", "ack", "nack", "delay", "extend", "kill"]),
    )
    def settle(self, name: str, choice: int, off: int, step: str) -> None:
        if name not in self.groups or not self.groups[name].items:
            return
        group = self.groups[name]
        offsets = sorted(group.items)
        leased = [offset for offset in offsets if group.items[offset].leased] or offsets
        item = group.items[leased[choice % len(leased)]]
        fence, store = item.fence + off, self.store
        held = item.leased and off == 0
        at = (name, item.offset, fence)
        work = {
            "ack": lambda: store.ack(*at),
            "nack": lambda: store.nack(*at, 0.0, TRIES),
            "delay": lambda: store.nack(*at, 7.0, TRIES),
            "extend": lambda: store.extend(*at, LEASE),
            "kill": lambda: store.kill(*at, "why"),
        }[step]
        assert self.run(work()) is held
        if not held:
            return
        if step == "ack":
            del group.items[item.offset]
            group.done.add(item.offset)
            assert self.run(store.ack(*at)) is False
        elif step == "extend":
            item.due = self.clock.now + LEASE
        elif step == "kill" or item.fence >= TRIES:
            self.bury(name, item)
        else:
            item.leased, item.due = False, self.clock.now + 7.0 if step == "delay" else 0.0

    @rule(seconds=st.sampled_from([1.0, 8.0, 31.0]))
    def elapse(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(choices=st.lists(st.integers(0, 100), min_size=1, max_size=3))
    @precondition(lambda self: len(self.log) > 5)
    def remove(self, choices: list[int]) -> None:
        entries = [entry for entry in self.log if not entry[2].startswith("$")]
        gone = {entries[choice % len(entries)] for choice in choices} if entries else set()
        assert self.run(self.store.remove([entry[0] for entry in gone])) == len(gone)
        self.log = [entry for entry in self.log if entry not in gone]
        self.removed |= {entry[1] for entry in gone}
        for group in self.groups.values():
            for entry in gone:
                group.items.pop(entry[0], None)

    @rule(name=st.sampled_from(sorted(GROUPS)))
    @precondition(lambda self: len(self.log) > 20)
    def leave(self, name: str) -> None:
        assert self.run(self.store.leave(name)) is (self.groups.pop(name, None) is not None)

    @invariant()
    def the_log_agrees(self) -> None:
        stored = self.run(self.store.read(0, 10_000))
        assert [(item.offset, item.event.id, item.topic) for item in stored] == [entry[:3] for entry in self.log]
        assert self.run(self.store.last()) == self.newest
        assert [mark[:2] for mark in self.run(self.store.scan(0, 10_000))] == [
            (entry[0], entry[2]) for entry in self.log
        ]

    @invariant()
    def the_groups_agree(self) -> None:
        found = {info.name: info for info in self.run(self.store.groups())}
        assert set(found) == set(self.groups)
        for name, group in self.groups.items():
            assert found[name].leased == sum(item.leased for item in group.items.values())
            assert found[name].dead == group.dead
            assert found[name].waiting <= len(group.items) - found[name].leased


class SqliteModel(Model):
    """The same over a file that is closed and opened again now and then."""

    async def open(self) -> RetainedStore:
        return SqliteEventStore(Path(self.folder.name) / "events.db", clock=self.clock)

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.open())


class RedisModel(Model):
    """The same over a Redis, whose clock the model moves; the server is killed and started again now and then."""

    server: ClassVar[RedisServer]

    async def open(self) -> RedisEventStore:
        self.server.command("FLUSHALL")
        return RedisEventStore.open(self.server.url)

    def run(self, work: Any) -> Any:
        return self.runner.run(self.timed(work))

    async def timed(self, work: Any) -> Any:
        """Let Redis's time be the model's, however long the steps take."""
        if hasattr(self, "store"):
            seconds, micros = await self.store._link.command("TIME")
            self.store.skew = self.clock.now - int(seconds) - int(micros) / 1e6
        return await work

    @rule()
    def killed(self) -> None:
        self.run(self.store.close())
        self.server.kill()
        self.server.start()
        self.store = self.runner.run(self.reopen())

    async def reopen(self) -> RedisEventStore:
        return RedisEventStore.open(self.server.url)


_SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


def test_memory_store_agrees_with_the_model() -> None:
    run_state_machine_as_test(Model, settings=settings(max_examples=60, stateful_step_count=50, **_SETTINGS))


def test_sqlite_store_agrees_with_the_model() -> None:
    run_state_machine_as_test(SqliteModel, settings=settings(max_examples=25, stateful_step_count=50, **_SETTINGS))


@pytest.mark.integration
def test_redis_store_agrees_with_the_model(tmp_path) -> None:
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")
    RedisModel.server = RedisServer(tmp_path, "always")  # else SIGKILL may lose what a slow disk still waits for
    RedisModel.server.start()
    try:
        run_state_machine_as_test(RedisModel, settings=settings(max_examples=20, stateful_step_count=40, **_SETTINGS))
    finally:
        RedisModel.server.kill()
