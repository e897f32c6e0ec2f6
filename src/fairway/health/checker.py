"""Checks every target concurrently: one task a target, results through one channel into one collector.

A slow target delays nobody: each has a task and a timeout of its own. A slow listener delays no probe: it has a bounded
queue that loses its oldest entries. There is no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.concurrency import Chan, RecvChan
from fairway.health.probe import Prober, probe
from fairway.health.state import STALE_INTERVALS, Check, HealthState, HealthStatus, Machine, next_due
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context

_RESULTS = 1024
_KEPT_EVENTS = 1024
# A new target is probed for the first time within this many seconds, not after a whole interval.
_FIRST_WITHIN = 0.5


class HealthEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of state.

    Attributes:
        id: ``EPOCH-NUMBER``: ascending within one run of the checker; what SSE clients send back to resume.
        status: The new status.
        before: State before.
    """

    id: str
    status: HealthStatus
    before: HealthState


class _Watched(msgspec.Struct):
    check: Check
    task: asyncio.Task[None] | None = None
    paused: bool = False
    added: float = 0.0


class CheckerStatistics(msgspec.Struct, frozen=True):
    """`targets` watched, `probes` finished, `changes` of state, `dropped` events of slow subscribers."""

    targets: int
    probes: int
    changes: int
    dropped: int


class HealthChecker:
    """Checks whatever it is told to watch until its context ends.

    Args:
        clock: Where time comes from.
        prober: What probes; `fairway.health.probe.probe`, or a fake.
        on_result: Called by the collector with every status, for metrics; must not block.
        epoch: First half of event ids; None takes the wall clock's second.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        prober: Prober = probe,
        on_result: Callable[[HealthStatus], None] | None = None,
        epoch: str | None = None,
    ) -> None:
        self._clock = clock
        self._prober = prober
        self._on_result = on_result
        self._epoch = epoch if epoch is not None else str(int(clock.time()))
        self._watched: dict[str, _Watched] = {}
        self._statuses: dict[str, HealthStatus] = {}
        self._results: Chan[tuple[_Watched, HealthStatus]] = Chan(_RESULTS)
        self._events: deque[HealthEvent] = deque(maxlen=_KEPT_EVENTS)
        self._subscribers: set[Chan[HealthEvent]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._probes = self._changes = self._dropped = 0

    # -- what is watched -------------------------------------------------------------------------------------

    def watch(self, check: Check) -> None:
        """Check a target from now on; one of the same key is replaced, and starts over only if it differs."""
        known = self._watched.get(check.key)
        if known is not None and known.check == check:
            return
        if known is not None:
            self.forget(check.key)
        entry = _Watched(check, added=self._clock.time())
        self._watched[check.key] = entry
        self._statuses[check.key] = HealthStatus(
            key=check.key, app=check.app, target=str(check.target), since=entry.added
        )
        self._start(entry)

    def forget(self, key: str) -> None:
        """Stop checking a target; unknown keys are ignored. A probe in flight is cancelled."""
        entry = self._watched.pop(key, None)
        self._statuses.pop(key, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget every target whose key is not among `keys`."""
        for key in self._watched.keys() - set(keys):
            self.forget(key)

    def pause(self, key: str) -> None:
        """Leave a target alone until `resume`, as while its app is replaced; unknown keys are ignored."""
        if key in self._watched:
            self._watched[key].paused = True

    def resume(self, key: str) -> None:
        """Check a paused target again; unknown keys are ignored."""
        if key in self._watched:
            self._watched[key].paused = False

    # -- what is known ---------------------------------------------------------------------------------------

    def statuses(self) -> list[HealthStatus]:
        """Return what is known of every target now, ascending by key; states `paused` and `stale` included."""
        return [self._shown(self._watched[key], self._statuses[key]) for key in sorted(self._watched)]

    def status(self, key: str) -> HealthStatus | None:
        """Return what is known of one target, or None where it is not watched."""
        entry = self._watched.get(key)
        return None if entry is None else self._shown(entry, self._statuses[key])

    def subscribe(self, after: str | None = None, *, queue: int = 256) -> Subscription:
        """Return the changes of state from now on.

        Args:
            after: Id of the last event that was seen: those after it come first, as far as they are still kept.
            queue: Events that may wait; a reader that falls behind further loses the oldest.
        """
        chan: Chan[HealthEvent] = Chan(max(1, queue))
        for event in self._missed(after)[-queue:]:
            chan.try_send(event)
        self._subscribers.add(chan)
        return Subscription(chan, self._subscribers)

    def statistics(self) -> CheckerStatistics:
        """Return counters since the start."""
        return CheckerStatistics(len(self._watched), self._probes, self._changes, self._dropped)

    def __repr__(self) -> str:
        return f"<HealthChecker [{len(self._watched)} targets, {self._probes} probes]>"

    # -- how it runs -----------------------------------------------------------------------------------------

    async def run(self, ctx: Context) -> None:
        """Check until `ctx` is done; then probes in flight are cancelled. To be run once."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            collector = group.create_task(self._collect(), name="health-collector")
            for entry in self._watched.values():
                self._start(entry)
            try:
                await ctx.done().recv_ok()
            finally:
                self._group = None
                for entry in self._watched.values():
                    if entry.task is not None:
                        entry.task.cancel()
                collector.cancel()
                for chan in list(self._subscribers):
                    with contextlib.suppress(KeyError):
                        self._subscribers.remove(chan)
                        chan.close()

    def _start(self, entry: _Watched) -> None:
        if self._group is not None and entry.task is None:
            entry.task = self._group.create_task(self._check(entry), name=f"health {entry.check.key}")

    async def _check(self, entry: _Watched) -> None:
        check, clock = entry.check, self._clock
        machine = Machine(check)
        due = clock.monotonic() + min(check.phase, _FIRST_WITHIN * check.phase / check.interval)
        while True:
            await clock.sleep(max(0.0, due - clock.monotonic()))
            if not entry.paused:
                lag = max(0.0, clock.monotonic() - due)
                try:
                    result = await self._prober(check.target)
                except Exception as error:
                    # The prober's own failure says nothing on the target: its status goes stale instead of unhealthy.
                    log.get("health").error("probe crashed", key=check.key, exc_info=error)
                else:
                    await self._results.send((entry, machine.apply(result, clock.time(), lag)))
            due = next_due(due, machine.interval, clock.monotonic())

    async def _collect(self) -> None:
        async for entry, status in self._results:
            if self._watched.get(status.key) is not entry:
                continue  # forgotten or replaced while its result was on the way
            self._probes += 1
            before = self._statuses[status.key]
            self._statuses[status.key] = status
            if self._on_result is not None:
                self._on_result(status)
            if (status.state, status.flapping) != (before.state, before.flapping):
                self._publish(status, before.state)

    def _publish(self, status: HealthStatus, before: HealthState) -> None:
        self._changes += 1
        event = HealthEvent(id=f"{self._epoch}-{self._changes}", status=status, before=before)
        self._events.append(event)
        for chan in self._subscribers:
            if not chan.try_send(event):
                chan.try_recv()
                self._dropped += 1
                chan.try_send(event)

    def _missed(self, after: str | None) -> list[HealthEvent]:
        epoch, _, number = (after or "").partition("-")
        if epoch != self._epoch or not number.isdigit():
            return []
        return [event for event in self._events if int(event.id.partition("-")[2]) > int(number)]

    def _shown(self, entry: _Watched, status: HealthStatus) -> HealthStatus:
        if entry.paused:
            return msgspec.structs.replace(status, state="paused")
        quiet = self._clock.time() - (status.checked_at if status.checked_at is not None else entry.added)
        if quiet > STALE_INTERVALS * entry.check.interval + entry.check.target.timeout:
            return msgspec.structs.replace(status, state="stale", error=f"no result for {quiet:.0f} s")
        return status


class Subscription:
    """One subscriber's changes of state: ``async for event in subscription``; used as a context manager, it ends there.

    Iteration ends when the checker does. Cancelling a waiting reader loses no event.
    """

    def __init__(self, chan: Chan[HealthEvent], subscribers: set[Chan[HealthEvent]]) -> None:
        self._chan = chan
        self._subscribers = subscribers

    @property
    def events(self) -> RecvChan[HealthEvent]:
        """The channel itself, for `select`."""
        return self._chan.receiver

    def close(self) -> None:
        """End the subscription; a second time does nothing."""
        if self._chan in self._subscribers:
            self._subscribers.discard(self._chan)
            self._chan.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> HealthEvent:
        event, ok = await self._chan.recv_ok()
        if not ok or event is None:
            raise StopAsyncIteration
        return event
