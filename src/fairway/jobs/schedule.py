"""Schedules: which ticks are due is a pure function; firing one is an enqueue with a unique key.

Any number of processes may run a `Scheduler` over the same store. Each tick has a key of its own in the store
(``schedule:NAME:TICK``), so it enqueues one job whoever comes first, and a scheduler that dies between the enqueue and
its note of it leaves nothing behind but a second enqueue that finds the key taken.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
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


def next_tick(schedule: Schedule, after: float) -> float:
    """Return the schedule's first tick later than `after`, a Unix time; infinity where none comes any more."""
    if schedule.every_s is not None:
        return (after // schedule.every_s + 1) * schedule.every_s
    return next((tick for tick in _cron(schedule, after) if tick > after), math.inf)


def ticks_back(schedule: Schedule, until: float) -> Iterator[float]:
    """Yield the schedule's ticks at or before `until`, descending: how far back, the reader decides."""
    if schedule.every_s is not None:
        n = int(until // schedule.every_s)
        while n > 0:
            yield n * schedule.every_s
            n -= 1
    else:
        yield from (tick for tick in _cron(schedule, until + 1.0, reverse=True) if tick <= until)


def _cron(schedule: Schedule, start: float, reverse: bool = False) -> Iterator[float]:
    from cronsim import CronSim

    assert schedule.cron is not None
    moment = datetime.fromtimestamp(start, UTC).astimezone(ZoneInfo(schedule.tz))
    for tick in CronSim(schedule.cron, moment, reverse=reverse):
        yield tick.timestamp()


def due_ticks(status: ScheduleStatus, now: float, started_at: float) -> list[float]:
    """Return the ticks to fire at `now`, ascending, `MAX_CATCH_UP` at most.

    The work is bounded however long nothing ran: ticks are read from the newest back.

    Args:
        status: The schedule and its last tick.
        now: The wall clock.
        started_at: When this scheduler began to watch: what lies before it was missed, and `catch_up` says what
            becomes of that.
    """
    last = status.created_at if status.last_tick is None else max(status.last_tick, status.created_at)
    due: list[float] = []
    for tick in islice(ticks_back(status.schedule, now), MAX_CATCH_UP):
        missed = tick <= started_at
        if tick <= last or (missed and status.schedule.catch_up == "skip"):
            break
        due.append(tick)
        if missed and status.schedule.catch_up == "last":
            due = due[:-1] or due
            break
    return due[::-1]


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
        upcoming = math.inf
        for status in await self._store.schedules():
            if status.schedule.paused:
                continue
            ticks = due_ticks(status, now, started_at)
            upcoming = min(upcoming, next_tick(status.schedule, now))
            if ticks:
                await self._enqueue(status.schedule, ticks)
        return upcoming

    async def _enqueue(self, schedule: Schedule, ticks: Sequence[float]) -> None:
        jobs = [job_of(schedule, tick) for tick in ticks]
        answer = await self._store.enqueue(jobs)
        self.fired += len(set(answer.ids) - set(answer.duplicates))
        await self._store.ticked(schedule.name, max(ticks))

    def __repr__(self) -> str:
        return f"<Scheduler [{self.fired} fired]>"
