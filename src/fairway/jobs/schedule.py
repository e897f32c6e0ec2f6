"""Schedules: which ticks are due is a pure function; firing one is an enqueue with a unique key.

Any number of processes may run a `Scheduler` over the same store. Each tick has a key of its own in the store
(``schedule:NAME:TICK``), so it enqueues one job whoever comes first, and a scheduler that dies between the enqueue and
its note of it leaves nothing behind but a second enqueue that finds the key taken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import NewJob, Schedule, ScheduleStatus
from fairway.jobs.store import Store
from fairway.telemetry import log

MAX_CATCH_UP = 1_000
"""Missed ticks that ``catch_up: all`` enqueues at most, the newest ones."""

_REFRESH_S = 15.0  # how soon a schedule that another process stored is noticed
_KEY_DAYS = 40.0


def ticks_after(schedule: Schedule, after: float) -> Iterator[float]:
    """Yield the schedule's ticks later than `after`, ascending, Unix times."""
    if schedule.every_s is not None:
        n = int(after // schedule.every_s) + 1
        while True:
            yield n * schedule.every_s
            n += 1
    from cronsim import CronSim

    assert schedule.cron is not None
    start = datetime.fromtimestamp(after, UTC).astimezone(ZoneInfo(schedule.tz))
    for moment in CronSim(schedule.cron, start):
        tick = moment.timestamp()
        if tick > after:
            yield tick


def due_ticks(status: ScheduleStatus, now: float, started_at: float) -> tuple[list[float], float]:
    """Return the ticks to fire at `now`, ascending, and the time of the next one.

    Args:
        status: The schedule and its last tick.
        now: The wall clock.
        started_at: When this scheduler began to watch: what lies before it was missed, and `catch_up` says what
            becomes of that.
    """
    schedule = status.schedule
    last = status.created_at if status.last_tick is None else max(status.last_tick, status.created_at)
    missed: list[float] = []
    fresh: list[float] = []
    upcoming = float("inf")
    for tick in ticks_after(schedule, last):
        if tick > now:
            upcoming = tick
            break
        (missed if tick <= started_at else fresh).append(tick)
        if len(missed) > 2 * MAX_CATCH_UP:
            missed = missed[-MAX_CATCH_UP:]
    if schedule.catch_up == "skip":
        missed = []
    elif schedule.catch_up == "last":
        missed = missed[-1:] if not fresh else []
    return missed[-MAX_CATCH_UP:] + fresh[-MAX_CATCH_UP:], upcoming


def job_of(schedule: Schedule, tick: float) -> NewJob:
    """Return the job of a tick; its `meta` names both."""
    return msgspec.structs.replace(
        schedule.job,
        unique_key=f"schedule:{schedule.name}:{tick:.3f}",
        unique_for_s=_KEY_DAYS * 86_400,
        meta={**schedule.job.meta, "schedule": schedule.name, "tick": f"{tick:.3f}"},
    )


class Scheduler:
    """Fires the schedules of a store.

    Args:
        store: Open store.
        clock: Where the time comes from.
    """

    def __init__(self, store: Store, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._clock = clock
        self._wake = asyncio.Event()
        self.fired = 0

    def wake(self) -> None:
        """Look at the schedules again now: one was stored or removed in this process."""
        self._wake.set()

    async def run(self, schedules: Sequence[Schedule] = ()) -> None:
        """Store `schedules`, then fire what is due for ever; cancel to end. A store that is gone is waited for."""
        started_at = self._clock.time()
        pause = 0.5
        stored = False
        while True:
            try:
                if not stored:
                    for schedule in schedules:
                        await self._store.put_schedule(schedule)
                    stored = True
                upcoming = await self.fire(started_at)
                pause = 0.5
            except (StoreUnavailable, OSError) as error:
                log.get("scheduler").warning("cannot fire", error=str(error), again_in_s=round(pause, 1))
                upcoming = self._clock.time() + pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
                pause = min(10.0, pause * 2)
            await self._sleep(max(0.0, upcoming - self._clock.time()))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, at most until another process may have stored a schedule, or `wake`."""
        self._wake.clear()
        nap = asyncio.ensure_future(self._clock.sleep(min(_REFRESH_S, seconds)))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((nap, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            woken.cancel()

    async def fire(self, started_at: float) -> float:
        """Enqueue what is due now; return the time of the next tick, or infinity."""
        now = self._clock.time()
        upcoming = float("inf")
        for status in await self._store.schedules():
            if status.schedule.paused:
                continue
            ticks, following = due_ticks(status, now, started_at)
            upcoming = min(upcoming, following)
            if ticks:
                await self._enqueue(status.schedule, ticks)
        return upcoming

    async def _enqueue(self, schedule: Schedule, ticks: Iterable[float]) -> None:
        jobs = [job_of(schedule, tick) for tick in ticks]
        answer = await self._store.enqueue(jobs)
        self.fired += len(set(answer.ids) - set(answer.duplicates))
        await self._store.ticked(schedule.name, max(ticks))

    def __repr__(self) -> str:
        return f"<Scheduler [{self.fired} fired]>"
