"""Which ticks are due, and that each fires once whoever asks."""

import asyncio
from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from fairway.jobs.job import JobFilter, NewJob, Schedule, ScheduleStatus
from fairway.jobs.schedule import MAX_CATCH_UP, Scheduler, due_ticks, next_tick, ticks_back
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.memory import MemoryStore
from fairway.testing import FakeClock

JOB = NewJob(kind="k")


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


def every(seconds: float, last: float | None, catch_up: str = "skip", created: float = 0.0) -> ScheduleStatus:
    schedule = Schedule(name="s", job=JOB, every_s=seconds, catch_up=catch_up)  # type: ignore[arg-type]
    return ScheduleStatus(schedule=schedule, created_at=created, last_tick=last)


def test_cron_follows_its_zone_over_daylight_saving() -> None:
    daily = Schedule(name="s", job=JOB, cron="30 8 * * *", tz="Europe/Berlin")
    ticks = [next_tick(daily, berlin("2026-03-28T09:00"))]
    ticks.append(next_tick(daily, ticks[0]))
    assert ticks == [berlin("2026-03-29T08:30"), berlin("2026-03-30T08:30")]
    assert ticks[1] - ticks[0] == 86_400.0
    assert ticks[0] - berlin("2026-03-28T08:30") == 23 * 3600.0


def test_ticks_back_are_those_forward() -> None:
    cron = Schedule(name="s", job=JOB, cron="*/7 * * * *")
    forward = []
    tick = 1e9
    for _ in range(20):
        tick = next_tick(cron, tick)
        forward.append(tick)
    assert list(islice(ticks_back(cron, tick), 20)) == forward[::-1]


def test_what_is_due() -> None:
    assert due_ticks(every(10, last=100), now=130, started_at=105) == [110, 120, 130]
    assert due_ticks(every(10, last=100), now=109, started_at=105) == []


@pytest.mark.parametrize(("catch_up", "expected"), [("skip", [130]), ("last", [130]), ("all", [110, 120, 130])])
def test_what_was_missed_and_something_fresh(catch_up: str, expected: list[float]) -> None:
    assert due_ticks(every(10, 100, catch_up), now=131, started_at=125) == expected


@pytest.mark.parametrize(("catch_up", "expected"), [("skip", []), ("last", [120]), ("all", [110, 120])])
def test_what_was_missed(catch_up: str, expected: list[float]) -> None:
    assert due_ticks(every(10, 100, catch_up), now=125, started_at=125) == expected


def test_years_of_silence_cost_nothing_much() -> None:
    ticks = due_ticks(every(1, 0, "all"), now=1.7e9, started_at=1.7e9)
    assert len(ticks) == MAX_CATCH_UP
    assert ticks[-1] == 1.7e9


async def test_each_tick_fires_once_for_any_number_of_schedulers(fake_clock: FakeClock) -> None:
    async with MemoryStore(StoreOptions(clock=fake_clock)) as store:
        await store.put_schedule(Schedule(name="s", job=JOB, every_s=10.0))
        schedulers = [Scheduler(store, fake_clock) for _ in range(4)]
        running = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
        for _ in range(25):
            await fake_clock.advance(2.0)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        jobs = await store.find(JobFilter())
        ticks = sorted(float(job.meta["tick"]) for job in jobs)
        assert ticks == [1_000_010.0, 1_000_020.0, 1_000_030.0, 1_000_040.0, 1_000_050.0]
        assert sum(scheduler.fired for scheduler in schedulers) == 5
        (status,) = await store.schedules()
        assert status.last_tick == ticks[-1]


async def test_a_paused_schedule_fires_nothing(fake_clock: FakeClock) -> None:
    async with MemoryStore(StoreOptions(clock=fake_clock)) as store:
        await store.put_schedule(Schedule(name="s", job=JOB, every_s=10.0, paused=True))
        scheduler = Scheduler(store, fake_clock)
        await fake_clock.advance(60.0)
        assert await scheduler.fire(1_000_000.0) == float("inf")
        assert await store.find(JobFilter()) == []
