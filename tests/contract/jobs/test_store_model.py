"""Every store against a model of the state machine: hypothesis looks for a sequence of calls that tells them apart.

The model is a few dictionaries. A restart closes the store and opens it again over the same data, where it has any.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fairway.jobs.job import Backoff, Completed, Failed, NewJob, Outcome, Released, Snoozed, Stopped, Verdict, raw
from fairway.jobs.store import Store, StoreOptions
from fairway.jobs.stores.memory import MemoryStore
from fairway.jobs.stores.redis import RedisStore
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.testing import FakeClock
from fairway.testing.redis_server import RedisServer

T = TypeVar("T")
LEASE_S, GRACE_S = 30.0, 20.0
FINAL = {"completed", "cancelled", "discarded"}


class Known:
    """A job as the model has it."""

    def __init__(self, job: NewJob, now: float) -> None:
        self.job = job
        self.state = "available" if not job.delay_s else "scheduled"
        self.run_at = now + (job.delay_s or 0.0)
        self.fence = self.attempt = 0
        self.lease_until = 0.0
        self.cancel = False
        self.result: object = None


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say which store."""

    restarts: ClassVar[bool] = True
    grace: ClassVar[bool] = True  # leases begin anew with the store: it was down while the store was closed

    def make(self, options: StoreOptions) -> Store:
        raise AssertionError("a subclass makes the store")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="fairway-model-"))
        self.clock = FakeClock()
        self.known: dict[int, Known] = {}
        self.keys: dict[str, int] = {}
        self.store = self.make(StoreOptions(clock=self.clock, restart_grace_s=GRACE_S))
        self.run(self.store.open())

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    # What happens --------------------------------------------------------------------------------------------------

    @rule(
        priority=st.integers(0, 2),
        delay_s=st.sampled_from([None, None, 10.0, 100.0]),
        max_attempts=st.integers(1, 3),
        unique=st.sampled_from([None, None, "u", "v"]),
        count=st.integers(1, 3),
    )
    def enqueue(self, priority: int, delay_s: float | None, max_attempts: int, unique: str | None, count: int) -> None:
        job = NewJob(
            kind="k", priority=priority, delay_s=delay_s, max_attempts=max_attempts, unique_key=unique,
            backoff=Backoff(base_s=0.0),
        )  # fmt: skip
        held = self.keys.get(unique or "")
        holder = held if held is not None and not self.over(self.known[held]) else 0
        answer = self.run(self.store.enqueue([job] * count))
        if unique:
            assert len(set(answer.ids)) == 1
            assert bool(holder) == (answer.ids[0] in self.known)
            assert not holder or answer.ids[0] == holder
        for i in answer.ids:
            self.known.setdefault(i, Known(job, self.clock.time()))
            if unique:
                self.keys[unique] = i

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        leases = self.run(self.store.claim(["default"], limit, LEASE_S, "w"))
        ready = sorted((k.job.priority, i) for i, k in self.known.items() if k.state == "available")
        assert [lease.id for lease in leases] == [i for _, i in ready[:limit]]
        for lease in leases:
            k = self.known[lease.id]
            k.state = "running"
            k.fence += 1
            k.attempt += 1
            k.lease_until = self.clock.monotonic() + LEASE_S
            assert (lease.fence, lease.attempt) == (k.fence, k.attempt)

    @rule(
        data=st.data(), how=st.sampled_from(["complete", "fail", "release", "snooze", "stop"]), off=st.integers(-1, 1)
    )
    def settle(self, data: st.DataObject, how: str, off: int) -> None:
        if not self.known:
            return
        i = data.draw(st.sampled_from(sorted(self.known)))
        k = self.known[i]
        fence = k.fence + off
        outcomes: dict[str, Outcome] = {
            "complete": Completed(i, fence, raw([i, fence])),
            "fail": Failed(i, fence, "no"),
            "release": Released(i, fence),
            "snooze": Snoozed(i, fence, 10.0),
            "stop": Stopped(i, fence),
        }
        (verdict,) = self.run(self.store.settle([outcomes[how]]))
        if off or k.state != "running":
            again = not off and how == "complete" and k.state == "completed"
            assert verdict is (Verdict.OK if again else Verdict.LOST)
            return
        assert verdict is Verdict.OK
        self.settled(k, how, i)

    def settled(self, k: Known, how: str, i: int) -> None:
        if how in {"release", "snooze"} and not k.cancel:
            k.attempt -= 1
        if how == "complete":
            k.state, k.result = "completed", [i, k.fence]
        elif how == "stop" or k.cancel:
            k.state = "cancelled"
        elif how == "fail":
            k.state = "available" if k.attempt < k.job.max_attempts else "discarded"
        else:
            k.state = "available" if how == "release" else "scheduled"
            k.run_at = self.clock.time() + (10.0 if how == "snooze" else 0.0)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.known:
            i = data.draw(st.sampled_from(sorted(self.known)))
            k = self.known[i]
            self.run(self.store.cancel(i))
            if k.state == "running":
                k.cancel = True
            elif not self.over(k):
                k.state = "cancelled"

    @rule()
    def replay(self) -> None:
        dead = [k for k in self.known.values() if k.state == "discarded"]
        assert self.run(self.store.replay()) == len(dead)
        for i, k in sorted(self.known.items()):
            if k in dead:
                k.state, k.attempt, k.cancel = "available", 0, False
                key = k.job.unique_key
                if key and (self.keys.get(key, i) == i or self.over(self.known[self.keys[key]])):
                    self.keys[key] = i

    @rule(seconds=st.sampled_from([1.0, 12.0, 40.0, 120.0]))
    def advance(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))
        self.time_has_passed()

    def time_has_passed(self) -> None:
        self.run(self.store.maintain())
        for k in self.known.values():
            if k.state == "scheduled" and k.run_at <= self.clock.time():
                k.state = "available"
            elif k.state == "running" and k.lease_until <= self.clock.monotonic():
                k.state = "available" if k.attempt < k.job.max_attempts else "discarded"
                if k.cancel:
                    k.state = "cancelled"

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        if self.known:
            i = data.draw(st.sampled_from(sorted(self.known)))
            k = self.known[i]
            (verdict,) = self.store.renew([(i, k.fence)], LEASE_S)
            if k.state != "running":
                assert verdict is Verdict.LOST
            else:
                assert verdict is (Verdict.CANCEL if k.cancel else Verdict.OK)
                k.lease_until = self.clock.monotonic() + LEASE_S

    @rule(seconds=st.sampled_from([-5_000.0, 3.0]))
    def set_the_wall_clock(self, seconds: float) -> None:
        """Leases do not care; what is due later waits for the wall clock."""
        self.clock.jump(seconds)
        self.time_has_passed()

    @rule()
    def restart(self) -> None:
        if self.restarts:
            self.run(self.store.close())
            self.store = self.make(self.store.options)
            self.run(self.store.open())
            for k in self.known.values():
                if k.state == "running" and self.grace:
                    k.lease_until = self.clock.monotonic() + GRACE_S

    # What has to hold -----------------------------------------------------------------------------------------------

    @staticmethod
    def over(k: Known) -> bool:
        return k.state in FINAL

    @invariant()
    def agree(self) -> None:
        counts = dict.fromkeys((k.state for k in self.known.values()), 0)
        for i, k in self.known.items():
            counts[k.state] += 1
            job = self.run(self.store.get(i))
            assert job is not None
            assert (job.state, job.fence, job.attempt) == (k.state, k.fence, k.attempt)
            if k.state == "completed":
                assert job.result == raw(k.result)
        for status in self.run(self.store.queues()):
            assert {state: n for state, n in status.counts.items() if n} == counts


class MemoryMachine(StoreMachine):
    restarts = False

    def make(self, options: StoreOptions) -> Store:
        return MemoryStore(options)


class SqliteMachine(StoreMachine):
    def make(self, options: StoreOptions) -> Store:
        return SqliteStore(self.folder / "jobs.db", options)


class RedisMachine(StoreMachine):
    """The server outlives the store object, and so do the leases."""

    grace = False
    server: ClassVar[RedisServer]

    def make(self, options: StoreOptions) -> Store:
        return RedisStore(self.server.url, options)

    def teardown(self) -> None:
        super().teardown()
        self.server.command("FLUSHALL")


_SETTINGS = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = _SETTINGS
TestSqliteModel = SqliteMachine.TestCase
TestSqliteModel.settings = _SETTINGS
TestRedisModel = RedisMachine.TestCase
TestRedisModel.settings = _SETTINGS
TestRedisModel = pytest.mark.integration(pytest.mark.usefixtures("redis_for_model")(TestRedisModel))


@pytest.fixture(scope="module")
def redis_for_model(redis_process: RedisServer) -> None:
    redis_process.command("FLUSHALL")
    RedisMachine.server = redis_process
