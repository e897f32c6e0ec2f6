"""The checker on a fake clock with a fake prober."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from fairway.concurrency import background, with_cancel
from fairway.health.checker import HealthChecker
from fairway.health.probe import ProbeResult, ProbeTarget
from fairway.health.state import Check, HealthStatus
from fairway.testing import FakeClock


class Targets:
    """A prober whose targets are up, down or hanging as the test says."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.down: set[int] = set()
        self.hanging: set[int] = set()
        self.broken: set[int] = set()
        self.probed: list[tuple[int, float]] = []
        self.running: dict[int, int] = {}
        self.overlapped = False

    async def __call__(self, target: ProbeTarget) -> ProbeResult:
        port = target.port
        self.probed.append((port, self.clock.monotonic()))
        self.running[port] = self.running.get(port, 0) + 1
        self.overlapped = self.overlapped or self.running[port] > 1
        try:
            if port in self.broken:
                raise RuntimeError("the prober has a bug")
            if port in self.hanging:
                await self.clock.sleep(target.timeout)
                return ProbeResult(ok=False, seconds=target.timeout, error="no answer")
            return ProbeResult(ok=port not in self.down, seconds=0.01, status=200)
        finally:
            self.running[port] -= 1


def check(port: int, *, interval: float = 10.0, timeout: float = 2.0) -> Check:
    return Check(f"app/{port}", "app", ProbeTarget("h", port, timeout=timeout), interval=interval, rise=2, fall=3)


async def settle() -> None:
    """Let every target's task reach its first wait on the clock."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(checker: HealthChecker) -> AsyncIterator[None]:
    ctx = with_cancel(background())
    task = asyncio.create_task(checker.run(ctx))
    await settle()
    try:
        yield
    finally:
        ctx.cancel()
        await task


async def test_becomes_healthy_and_tells() -> None:
    clock = FakeClock()
    checker = HealthChecker(clock=clock, prober=Targets(clock), epoch="7")
    checker.watch(check(1))
    assert [status.state for status in checker.statuses()] == ["unknown"]
    changes = checker.subscribe()
    async with running(checker):
        await clock.advance(5.0)
        assert [status.state for status in checker.statuses()] == ["healthy"]
        seen = [await anext(changes), await anext(changes)]
    assert [(event.id, event.before, event.status.state) for event in seen] == [
        ("7-1", "unknown", "starting"),
        ("7-2", "starting", "healthy"),
    ]
    assert [event async for event in changes] == []


async def test_a_hanging_target_delays_no_other() -> None:
    clock = FakeClock()
    targets = Targets(clock)
    targets.hanging = {0}
    checker = HealthChecker(clock=clock, prober=targets)
    for port in range(100):
        checker.watch(check(port, timeout=9.0))
    async with running(checker):
        await clock.advance(4.0)
        states = {status.key: status.state for status in checker.statuses()}
    assert states.pop("app/0") == "unknown"
    assert set(states.values()) == {"healthy"}


async def test_probes_of_one_target_never_overlap_and_stay_on_the_grid() -> None:
    clock = FakeClock()
    targets = Targets(clock)
    targets.hanging = {1}
    checker = HealthChecker(clock=clock, prober=targets)
    checker.watch(check(1, interval=1.0, timeout=2.5))
    async with running(checker):
        await clock.advance(30.0)
    times = [when for _, when in targets.probed]
    assert not targets.overlapped
    assert len(times) >= 9
    gaps = {round(later - earlier, 6) for earlier, later in pairwise(times)}
    assert gaps <= {2.5, 3.0}  # multiples of the fast and the slow interval behind a probe of 2.5 s


async def test_lag_is_the_checkers_own_and_recorded_apart() -> None:
    clock = FakeClock()
    targets = Targets(clock)
    checker = HealthChecker(clock=clock, prober=targets)
    checker.watch(check(1))
    async with running(checker):
        await clock.advance(3.0)
        status = checker.status("app/1")
    assert status is not None
    assert status.lag == 0.0
    assert status.seconds == 0.01


async def test_pause_resume_and_forget() -> None:
    clock = FakeClock()
    targets = Targets(clock)
    checker = HealthChecker(clock=clock, prober=targets)
    checker.watch(check(1))
    async with running(checker):
        await clock.advance(5.0)
        checker.pause("app/1")
        count = len(targets.probed)
        await clock.advance(100.0)
        assert len(targets.probed) == count
        assert checker.statuses()[0].state == "paused"
        checker.resume("app/1")
        await clock.advance(10.0)
        assert checker.statuses()[0].state == "healthy"
        checker.forget("app/1")
        checker.forget("app/1")
        count = len(targets.probed)
        await clock.advance(100.0)
        assert len(targets.probed) == count
        assert checker.statuses() == []


async def test_watching_the_same_check_again_changes_nothing_and_another_starts_over() -> None:
    clock = FakeClock()
    checker = HealthChecker(clock=clock, prober=Targets(clock))
    checker.watch(check(1))
    async with running(checker):
        await clock.advance(5.0)
        checker.watch(check(1))
        assert checker.statuses()[0].state == "healthy"
        checker.watch(check(1, interval=20.0))
        assert checker.statuses()[0].state == "unknown"
        await settle()
        await clock.advance(10.0)
        assert checker.statuses()[0].state == "healthy"
        checker.keep_only([])
        assert checker.statuses() == []


async def test_a_bug_in_the_prober_is_stale_not_unhealthy() -> None:
    clock = FakeClock()
    targets = Targets(clock)
    checker = HealthChecker(clock=clock, prober=targets)
    checker.watch(check(1))
    async with running(checker):
        await clock.advance(5.0)
        targets.broken = {1}
        await clock.advance(60.0)
        status = checker.statuses()[0]
        assert status.state == "stale"
        assert "no result for" in status.error
        targets.broken = set()
        await clock.advance(15.0)
        assert checker.statuses()[0].state == "healthy"


async def test_a_slow_subscriber_loses_the_oldest_and_delays_nobody() -> None:
    clock = FakeClock()
    targets = Targets(clock)
    checker = HealthChecker(clock=clock, prober=targets, epoch="1")
    for port in range(20):
        checker.watch(check(port))
    slow = checker.subscribe(queue=2)
    async with running(checker):
        await clock.advance(5.0)
        assert checker.statistics().changes == 40
        assert checker.statistics().dropped == 38
        assert [(await anext(slow)).id, (await anext(slow)).id] == ["1-39", "1-40"]


async def test_a_subscriber_resumes_behind_the_event_it_has_seen() -> None:
    clock = FakeClock()
    checker = HealthChecker(clock=clock, prober=Targets(clock), epoch="1")
    checker.watch(check(1))
    async with running(checker):
        await clock.advance(5.0)
        with checker.subscribe("1-1") as again:
            assert (await anext(again)).id == "1-2"
        with checker.subscribe("0-1") as other_run:  # ids of another run of the daemon say nothing here
            assert other_run.events.try_recv() is None


async def test_results_reach_the_listener_of_metrics() -> None:
    clock = FakeClock()
    seen: list[HealthStatus] = []
    checker = HealthChecker(clock=clock, prober=Targets(clock), on_result=seen.append)
    checker.watch(check(1))
    async with running(checker):
        await clock.advance(5.0)
    assert [status.state for status in seen] == ["starting", "healthy"]
    assert repr(checker) == "<HealthChecker [1 targets, 2 probes]>"
