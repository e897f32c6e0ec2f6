"""How long events and groups are kept: what may go is decided here, once every few minutes, whatever the store.

Two promises, in this order. An event that is older than `keep` goes, unless a group still needs it. A topic never
grows beyond its `Bound`, whatever groups need. And a group that nobody has read for `groups` is deleted, so that one
that was abandoned does not keep events for ever: the log says so, and an event on ``$groups.expired`` tells which.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.concurrency import Context
from fairway.events.errors import BusClosed, EventError, EventStoreUnavailable
from fairway.events.event import Event
from fairway.events.store import GroupInfo, Mark, RetainedStore
from fairway.events.topic import matcher

EXPIRED_TOPIC = "$groups.expired"
DAY = 86_400.0
_GRACE = 3600.0  # seconds after a start, or a jump of the clock, before groups expire, and events after a jump
_JUMP = 60.0  # seconds by which the time of day departs from the time that passes: it was set, or the machine slept
_SLICE = 1000
_LOG = logging.getLogger("fairway.events")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_BYTES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What one topic may hold at most, whatever groups need; None is no bound.

    Attributes:
        max_age: Seconds, > 0. max_events: how many, >= 1. max_bytes: of their documents, >= 1.
    """

    max_age: float | None = None
    max_events: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_age", "max_events", "max_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise EventError(f"expected retention's {name} above 0, got {value}")

    @property
    def sized(self) -> bool:
        """Whether it bounds more than the age."""
        return self.max_events is not None or self.max_bytes is not None

    def exceeded(self, events: int, size: int) -> bool:
        """Whether so many events of so many bytes are too many."""
        return (self.max_events is not None and events > self.max_events) or (
            self.max_bytes is not None and size > self.max_bytes
        )


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long events and groups are kept.

    Attributes:
        keep: Seconds after which an event goes that no group needs; None keeps it.
        groups: Seconds after which a group goes that no member has read; None keeps it.
        topics: Pattern to bound; the first pattern that matches a topic counts. System topics such as ``$dead.GROUP``
            match only patterns that start with ``$``.
        every: Seconds between two looks.
    """

    keep: float | None = 7 * DAY
    groups: float | None = 14 * DAY
    topics: Mapping[str, Bound] = msgspec.field(
        default_factory=lambda: {">": Bound(max_age=30 * DAY), "$dead.>": Bound(max_age=30 * DAY)}
    )
    every: float = 600.0

    def __post_init__(self) -> None:
        for name in ("keep", "groups", "every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise EventError(f"expected retention's {name} above 0, got {value}")
        for pattern in self.topics:
            matcher(pattern)

    def bound(self, topic: str) -> Bound | None:
        """Return the bound of a topic, None where there is none."""
        return next((bound for pattern, bound in self.topics.items() if matcher(pattern)(topic)), None)

    @classmethod
    def parse(cls, values: Any) -> Retention:
        """Read it as a configuration file has it.

        ``{"keep": "7d", "groups": "14d", "topics": {"metrics.>": {"max_age": "1h", "max_bytes": "64M"}}}``: ages are
        seconds or a number with s, m, h, d or w, sizes bytes or a number with K, M or G, and ``never`` is no bound.
        Topics that no pattern of these matches keep the bound of the default.

        Raises:
            EventError: A field is unknown or of another form; the message names it.

        Example:
            >>> Retention.parse({"keep": "2h", "topics": {"a.>": {"max_bytes": "1K"}}}).topics["a.>"].max_bytes
            1024
        """
        told = _fields("retention", values, {"keep", "groups", "topics", "every"})
        ages: dict[str, Any] = {
            name: _age(f"retention.{name}", told[name]) for name in ("keep", "groups", "every") if name in told
        }
        if "every" in ages and ages["every"] is None:
            raise EventError("expected retention.every as an age such as 10m, got never")
        if "topics" not in told:
            return cls(**ages)
        topics = _fields("retention.topics", told["topics"], None)
        bounds = {pattern: _bound(pattern, one) for pattern, one in topics.items()}
        return cls(**ages, topics={**bounds, **{name: one for name, one in cls().topics.items() if name not in bounds}})


def _fields(where: str, values: Any, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise EventError(f"expected {where} to be a mapping, got {str(values)[:80]!r}")
    if known is not None and (unknown := sorted(values.keys() - known)):
        raise EventError(f"expected {where} to have {', '.join(sorted(known))}, got {', '.join(unknown)[:200]}")
    return values


def _bound(pattern: str, values: Any) -> Bound:
    where = f"retention.topics[{pattern!r}]"
    told = _fields(where, values, {"max_age", "max_events", "max_bytes"})
    age = told.get("max_age")
    return Bound(
        max_age=None if age is None else _age(f"{where}.max_age", age),
        max_events=_count(f"{where}.max_events", told.get("max_events"), {"": 1}),
        max_bytes=_count(f"{where}.max_bytes", told.get("max_bytes"), _BYTES),
    )


def _age(where: str, value: Any) -> float | None:
    if value == "never":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12:
        return float(value)
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", value) if isinstance(value, str) else None
    if found is None or not float(found[1]) > 0:
        raise EventError(f"expected {where} as an age such as 90s, 12h or 7d, or never, got {str(value)[:80]!r}")
    return float(found[1]) * _SECONDS[found[2]]


def _count(where: str, value: Any, units: dict[str, int]) -> int | None:
    if value is None or value == "never":
        return None
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    found = re.fullmatch(r"(\d{1,15})([KMG]?)", text)
    if found is None or found[2] not in units or int(found[1]) < 1:
        raise EventError(f"expected {where} as a number above 0 such as 100000, got {str(value)[:80]!r}")
    return int(found[1]) * units[found[2]]


class Tally:
    """What topics hold, and which of their oldest events have to go; marks come in the order of the log.

    Args:
        retention: The bounds.
        now: Seconds since the epoch.
    """

    def __init__(self, retention: Retention, now: float) -> None:
        self._retention = retention
        self._now = now
        self._bounds: dict[str, Bound | None] = {}
        self._held: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        ages = [bound.max_age for bound in retention.topics.values() if bound.max_age is not None]
        self._youngest = now - min(ages, default=float("inf"))  # what is newer goes for its size only
        self._over: set[str] = set()

    def add(self, marks: list[Mark]) -> None:
        """Count events that are there."""
        for mark in marks:
            held = self._held[mark.topic]
            held[0] += 1
            held[1] += mark.size
            bound = self._bound(mark.topic)
            if bound is not None and bound.exceeded(*held):
                self._over.add(mark.topic)

    def choose(self, marks: list[Mark]) -> Iterator[int]:
        """Yield offsets of those that have to go."""
        for mark in marks:
            bound = self._bound(mark.topic)
            if bound is None:
                continue
            held = self._held[mark.topic]
            old = bound.max_age is not None and mark.at < self._now - bound.max_age
            if old or mark.topic in self._over:
                held[0] -= 1
                held[1] -= mark.size
                if not bound.exceeded(*held):
                    self._over.discard(mark.topic)
                yield mark.offset

    def done(self, newest: Mark) -> bool:
        """Whether nothing above `newest` has to go."""
        return not self._over and newest.at >= self._youngest

    def _bound(self, topic: str) -> Bound | None:
        if topic not in self._bounds:
            self._bounds[topic] = self._retention.bound(topic)
        return self._bounds[topic]

    def __repr__(self) -> str:
        return f"<Tally [{len(self._held)} topics, {len(self._over)} too large]>"


class Retainer:
    """Carries a `Retention` out on a store.

    Args:
        store: The store.
        retention: What is kept.
        clock: Where time comes from.
    """

    def __init__(self, store: RetainedStore, retention: Retention, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._began = clock.monotonic()
        self._apart = clock.time() - self._began
        self._jumped = float("-inf")  # when the time of day was found to depart from the time that passes
        self.removed = 0
        self.expired = 0

    async def run(self, ctx: Context) -> None:
        """Look now and then until `ctx` ends; errors are logged and the next look tries again."""
        done = ctx.done()
        while ctx.err() is None:
            try:
                async with ctx.bind():
                    await self.look()
            except BusClosed:
                return
            except EventStoreUnavailable as error:
                _LOG.warning("event retention: %s; put off", error)
            except Exception:
                if ctx.err() is not None:
                    return
                _LOG.exception("event retention failed; trying again later")
            try:
                async with asyncio.timeout(self._retention.every):
                    await done.recv_ok()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Delete what may not stay. Cancelling is safe: what is left goes at the next look."""
        now = self._clock.time()
        self._notice_jump(now)
        await self._expire(now)
        if self._clock.monotonic() - self._jumped < _GRACE:
            await self._bound(0.0)  # a clock that was set wrong makes everything old; by then it may be right again
            return
        if self._retention.keep is not None:
            self.removed += await self._store.trim(now - self._retention.keep)
        await self._bound(now)

    def _notice_jump(self, now: float) -> None:
        apart = now - self._clock.monotonic()
        if abs(apart - self._apart) > _JUMP:
            _LOG.warning(
                "event retention: the clock was set, or the machine slept: no event goes for its age for an hour"
            )
            self._apart, self._jumped = apart, self._clock.monotonic()
            self._began = self._jumped  # members that are there have had no time to say so

    async def _expire(self, now: float) -> None:
        idle = self._retention.groups
        if idle is None or self._clock.monotonic() - self._began < min(idle, _GRACE):
            return
        for group in await self._store.groups():
            if now - group.seen > idle and await self._store.leave(group.name):
                self.expired += 1
                _LOG.warning(
                    "group %s of %s was deleted: nobody has read it for %.1f days; %d events were waiting for it",
                    *(group.name, group.pattern, (now - group.seen) / DAY, group.lag + group.waiting + group.leased),
                )
                await self._store.append([(EXPIRED_TOPIC, _expiry(group))])

    async def _bound(self, now: float) -> None:
        tally = Tally(self._retention, now)
        if any(bound.sized for bound in self._retention.topics.values()):
            async for marks in self._slices():
                tally.add(marks)
        async for marks in self._slices():
            going = list(tally.choose(marks))
            if going:
                self.removed += await self._store.remove(going)
            if tally.done(marks[-1]):
                return

    async def _slices(self) -> AsyncIterator[list[Mark]]:
        after = 0
        while marks := await self._store.scan(after, _SLICE):
            yield marks
            after = marks[-1].offset

    def statistics(self) -> dict[str, int]:
        """Return how many events were removed and how many groups deleted since the start."""
        return {"removed": self.removed, "expired_groups": self.expired}

    def __repr__(self) -> str:
        return f"<Retainer [{self.removed} events removed, {self.expired} groups deleted]>"


def _expiry(group: GroupInfo) -> Event:
    waiting = group.lag + group.waiting + group.leased
    data = {"group": group.name, "pattern": group.pattern, "seen": group.seen, "waiting": waiting}
    return Event("fairway.group.expired", data, source="fairway", subject=group.name)
