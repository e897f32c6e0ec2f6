"""Events in this process's memory: the fastest store, gone with the process."""

from __future__ import annotations

import heapq
import logging
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import islice

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.events.errors import BusClosed, EventError, UnknownGroup
from fairway.events.event import Event
from fairway.events.store import Claimed, Features, GroupInfo, Mark, Stored, dead_letter
from fairway.events.stores.wakeups import Wakeups
from fairway.events.topic import check_group, check_topic, matcher

_LOG = logging.getLogger("fairway.events")
_TAKE = 1024  # events that one claim looks at beyond the cursor
_BEYOND = 10  # times `max_events` that are kept for groups
_DEDUPLICATED = 65536  # newest events whose (source, id) is remembered


class _Pending:
    """An event that a group has taken in and not finished."""

    __slots__ = ("due", "fence", "leased", "stored")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.fence = 0
        self.leased = False
        self.due = 0.0  # end of the lease, or of the delay after a nack


class _Group:
    __slots__ = ("cursor", "dead", "keys", "matches", "pattern", "pending", "ready", "seen", "timers")

    def __init__(self, pattern: str, cursor: int, now: float) -> None:
        self.seen = now
        self.pattern = pattern
        self.matches: Callable[[str], bool] = matcher(pattern)
        self.cursor = cursor
        self.pending: dict[int, _Pending] = {}
        self.ready: list[int] = []  # heap of offsets that may be claimed now
        self.timers: list[tuple[float, int, int]] = []  # heap of (due, offset, fence); stale entries are skipped
        self.keys: dict[str, list[int]] = {}  # partition key → unfinished offsets, ascending; only the first is ready
        self.dead = 0


class MemoryEventStore:
    """Everything in lists, one event loop, no lock.

    Args:
        max_events: Events kept; the oldest that no group needs go first. What a group needs is kept beyond it, up to
            ten times as many: a group that nobody reads must not fill the memory.
        clock: Where time comes from.
    """

    features = Features(name="memory", durability="memory", shared=False, objects=True)

    def __init__(self, *, max_events: int = 100_000, clock: Clock = SYSTEM_CLOCK) -> None:
        if max_events < 1:
            raise EventError(f"expected max_events >= 1, got {max_events}")
        self._log: list[Stored] = []
        self._last = 0
        self._log_id = os.urandom(8).hex()
        self._max = max_events
        self._clock = clock
        self._groups: dict[str, _Group] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._wakeups = Wakeups()
        self._closed = False

    async def append(self, records: Sequence[tuple[str, Event]]) -> list[int]:
        """See `EventStore.append`."""
        self._check_open()
        for topic, event in records:
            check_topic(topic)
            event.check()
        return [self._append(topic, event) for topic, event in records]

    def _append(self, topic: str, event: Event) -> int:
        key = (event.source, event.id)
        if (known := self._seen.get(key)) is not None:
            return known
        self._last += 1
        self._seen[key] = self._last
        if len(self._seen) > _DEDUPLICATED:
            del self._seen[next(iter(self._seen))]
        self._log.append(Stored(self._last, topic, self._clock.time(), event))
        if len(self._log) > self._max * 1.25:  # amortised: a quarter at a time
            self._drop(len(self._log) - self._max)
            if len(self._log) > _BEYOND * self._max:
                _LOG.warning("the oldest of %d events in memory go, though groups have not read them", len(self._log))
                self._remove({stored.offset for stored in self._log[: len(self._log) // 4]})
        self._wakeups.wake()
        return self._last

    async def read(self, after: int, limit: int, pattern: str | None = None) -> list[Stored]:
        """See `EventStore.read`."""
        self._check_open()
        start = self._index(after)
        if pattern is None:
            return self._log[start : start + limit]
        matches = matcher(pattern)
        tail = (self._log[index] for index in range(start, len(self._log)))
        return list(islice((stored for stored in tail if matches(stored.topic)), limit))

    async def last(self) -> int:
        """See `EventStore.last`."""
        return self._last

    @property
    def log_id(self) -> str:
        """See `EventStore.log_id`: it lives as long as the store."""
        return self._log_id

    async def offset_before(self, at: float) -> int:
        """See `EventStore.offset_before`."""
        index = bisect_left(self._log, at, key=lambda stored: stored.at)
        return self._log[index - 1].offset if index else max(0, self._first() - 1)

    @property
    def changes(self) -> int:
        """See `EventStore.changes`."""
        return self._wakeups.changes

    async def wait(self, after: int, timeout: float, changes: int | None = None) -> bool:
        """See `EventStore.wait`."""
        self._wakeups.check_open()
        seen = self._wakeups.changes if changes is None else changes
        if await self.last() > after:
            return True
        await self._wakeups.wait(timeout, seen)
        return await self.last() > after

    async def join(self, group: str, pattern: str, after: int | None) -> None:
        """See `EventStore.join`."""
        self._check_open()
        check_group(group, pattern, after)
        found = self._groups.get(group)
        now = self._clock.time()
        if found is None:
            self._groups[group] = _Group(pattern, self._last if after is None else min(after, self._last), now)
            return
        found.seen = now
        if found.pattern != pattern:
            raise EventError(f"group {group!r} reads {found.pattern!r}; expected the same pattern, got {pattern!r}")

    async def claim(self, group: str, limit: int, lease: float, max_deliveries: int) -> list[Claimed]:
        """See `EventStore.claim`."""
        found = self._group(group)
        now = self._clock.monotonic()
        found.seen = self._clock.time()
        self._expire(group, found, now, max_deliveries)
        while len(found.ready) < limit and found.cursor < self._last:
            self._take(found)
        claimed: list[Claimed] = []
        while found.ready and len(claimed) < limit:
            pending = found.pending.get(heapq.heappop(found.ready))
            if pending is None or pending.leased:
                continue
            pending.fence += 1
            pending.leased = True
            pending.due = now + lease
            heapq.heappush(found.timers, (pending.due, pending.stored.offset, pending.fence))
            claimed.append(Claimed(pending.stored, pending.fence))
        return claimed

    async def next_due(self, group: str) -> float | None:
        """See `EventStore.next_due`."""
        found = self._group(group)
        while found.timers and not self._current(found, found.timers[0]):
            heapq.heappop(found.timers)
        return max(0.0, found.timers[0][0] - self._clock.monotonic()) if found.timers else None

    async def ack(self, group: str, offset: int, fence: int) -> bool:
        """See `EventStore.ack`."""
        found = self._group(group)
        if self._leased(found, offset, fence) is None:
            return False
        self._finish(found, offset)
        return True

    async def nack(self, group: str, offset: int, fence: int, delay: float, max_deliveries: int) -> bool:
        """See `EventStore.nack`."""
        found = self._group(group)
        pending = self._leased(found, offset, fence)
        if pending is None:
            return False
        if fence >= max_deliveries:
            self._kill(group, found, pending, f"not acknowledged in {fence} deliveries")
        else:
            self._release(found, pending, self._clock.monotonic() + delay if delay > 0 else 0.0)
        return True

    async def extend(self, group: str, offset: int, fence: int, lease: float) -> bool:
        """See `EventStore.extend`."""
        found = self._group(group)
        pending = self._leased(found, offset, fence)
        if pending is None:
            return False
        pending.due = self._clock.monotonic() + lease
        found.seen = self._clock.time()
        heapq.heappush(found.timers, (pending.due, offset, fence))
        return True

    async def kill(self, group: str, offset: int, fence: int, reason: str) -> bool:
        """See `EventStore.kill`."""
        found = self._group(group)
        pending = self._leased(found, offset, fence)
        if pending is None:
            return False
        self._kill(group, found, pending, reason)
        return True

    async def groups(self) -> list[GroupInfo]:
        """See `EventStore.groups`."""
        return [
            GroupInfo(
                name,
                group.pattern,
                group.cursor,
                waiting=sum(not pending.leased for pending in group.pending.values()),
                leased=sum(pending.leased for pending in group.pending.values()),
                lag=self._last - group.cursor,
                dead=group.dead,
                seen=group.seen,
            )
            for name, group in sorted(self._groups.items())
        ]

    async def leave(self, group: str) -> bool:
        """See `EventStore.leave`."""
        return self._groups.pop(group, None) is not None

    async def trim(self, before: float) -> int:
        """See `EventStore.trim`."""
        return self._drop(bisect_left(self._log, before, key=lambda stored: stored.at))

    async def scan(self, after: int, limit: int) -> list[Mark]:
        """See `RetainedStore.scan`; the size is that of the document that another store would keep."""
        found = await self.read(after, limit)
        return [Mark(one.offset, one.topic, one.at, len(one.event.encode(stored=True))) for one in found]

    async def remove(self, offsets: Sequence[int]) -> int:
        """See `RetainedStore.remove`."""
        self._check_open()
        return self._remove(set(offsets))

    def _remove(self, offsets: set[int]) -> int:
        count = len(self._log)
        self._log = [stored for stored in self._log if stored.offset not in offsets]
        for group in self._groups.values():
            gone = offsets & group.pending.keys()
            for offset in gone:
                self._finish(group, offset)
            if gone:
                group.ready = [offset for offset in group.ready if offset in group.pending]
                heapq.heapify(group.ready)
        return count - len(self._log)

    async def close(self) -> None:
        """See `EventStore.close`."""
        self._closed = True
        self._wakeups.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosed("the event store is closed")

    def _group(self, name: str) -> _Group:
        self._check_open()
        try:
            return self._groups[name]
        except KeyError:
            raise UnknownGroup(f"expected a group that was joined, got {name!r}") from None

    def _first(self) -> int:
        return self._log[0].offset if self._log else self._last + 1

    def _index(self, after: int) -> int:
        return bisect_right(self._log, after, key=lambda stored: stored.offset)

    def _drop(self, wanted: int) -> int:
        # An event that a group has taken in lives on in its pending entry: only the cursor holds the log itself.
        needed = min((group.cursor for group in self._groups.values()), default=self._last)
        count = min(wanted, self._index(needed))
        del self._log[:count]
        return count

    def _take(self, group: _Group) -> None:
        start = self._index(group.cursor)
        seen = self._log[start : start + _TAKE]  # islice would walk there from the first
        if not seen:
            group.cursor = self._last  # what lay there was removed
        for stored in seen:
            group.cursor = stored.offset
            if not group.matches(stored.topic):
                continue
            group.pending[stored.offset] = _Pending(stored)
            key = stored.event.partition_key
            if key is not None:
                waiting = group.keys.setdefault(key, [])
                waiting.append(stored.offset)
                if len(waiting) > 1:
                    continue
            heapq.heappush(group.ready, stored.offset)

    def _expire(self, name: str, group: _Group, now: float, max_deliveries: int) -> None:
        while group.timers and group.timers[0][0] <= now:
            timer = heapq.heappop(group.timers)
            if not self._current(group, timer):
                continue
            pending = group.pending[timer[1]]
            if pending.leased and pending.fence >= max_deliveries:
                self._kill(name, group, pending, f"lease expired in delivery {pending.fence}")
            else:
                self._release(group, pending, 0.0)

    @staticmethod
    def _current(group: _Group, timer: tuple[float, int, int]) -> bool:
        due, offset, fence = timer
        pending = group.pending.get(offset)
        return pending is not None and pending.due == due and pending.fence == fence

    @staticmethod
    def _leased(group: _Group, offset: int, fence: int) -> _Pending | None:
        pending = group.pending.get(offset)
        return pending if pending is not None and pending.leased and pending.fence == fence else None

    def _release(self, group: _Group, pending: _Pending, due: float) -> None:
        pending.leased = False
        pending.due = due
        if due:
            heapq.heappush(group.timers, (due, pending.stored.offset, pending.fence))
        else:
            heapq.heappush(group.ready, pending.stored.offset)
            self._wakeups.wake()

    def _kill(self, name: str, group: _Group, pending: _Pending, reason: str) -> None:
        self._append(*dead_letter(pending.stored, name, pending.fence, reason))
        group.dead += 1
        self._finish(group, pending.stored.offset)

    def _finish(self, group: _Group, offset: int) -> None:
        key = group.pending.pop(offset).stored.event.partition_key
        if key is None:
            return
        waiting = group.keys[key]
        first = waiting[0] == offset
        waiting.remove(offset)
        if not waiting:
            del group.keys[key]
        elif first:
            heapq.heappush(group.ready, waiting[0])
            self._wakeups.wake()

    def __repr__(self) -> str:
        return f"<MemoryEventStore [{len(self._log)} events, {len(self._groups)} groups, last {self._last}]>"
