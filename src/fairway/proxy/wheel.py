"""One timer for all connections of a worker.

Every connection has a `deadline`, an attribute that the data path only assigns. The wheel visits each connection once
a turn and calls `expire` on those whose deadline has passed. So a request arms and disarms timers without a call into
the event loop, and a timeout is late by at most one turn. Rejected: a `call_later` a request (about 1 µs each, and a
heap entry that outlives it).

A worker without connections rests: then the wheel turns once a second instead of twenty times, which is what an idle
door would else spend its CPU on. The first member that comes wakes it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

NEVER = float("inf")
SLOTS = 8
TURN_S = 0.4
REST_S = 1.0


class Expiring(Protocol):
    """What the wheel visits."""

    deadline: float

    def expire(self, now: float) -> None:
        """Act on a passed deadline; called on every visit until the deadline moves or the object leaves the wheel."""
        ...


class Wheel:
    """Visits its members in turn; `now` is the loop's time at the last tick, fresh enough for deadlines.

    Args:
        loop: The worker's loop.
        residents: How many members are there without a connection; while there are no others, the wheel rests.
    """

    __slots__ = ("_handle", "_loop", "_next", "_residents", "_resting", "_slots", "_turn", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop, residents: int = 0) -> None:
        self._loop = loop
        self._slots: list[set[Expiring]] = [set() for _ in range(SLOTS)]
        self._next = 0
        self._turn = 0
        self._residents = residents
        self._resting = False
        self._handle: asyncio.TimerHandle | None = None
        self.now = loop.time()

    def __repr__(self) -> str:
        return f"<Wheel members={len(self)}>"

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    def start(self) -> None:
        """Begin to turn; idempotent."""
        if self._handle is None:
            self._handle = self._loop.call_later(TURN_S / SLOTS, self._tick)

    def stop(self) -> None:
        """Turn no more; idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def add(self, member: Expiring) -> int:
        """Take a member in; return the slot to give to `remove`. `now` is fresh afterwards."""
        if self._resting:
            self._wake()
        slot = self._next = (self._next + 1) % SLOTS
        self._slots[slot].add(member)
        return slot

    def remove(self, member: Expiring, slot: int) -> None:
        """Let a member go; idempotent."""
        self._slots[slot].discard(member)

    def _wake(self) -> None:
        self._resting = False
        self.now = self._loop.time()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = self._loop.call_later(TURN_S / SLOTS, self._tick)

    def _tick(self) -> None:
        self._resting = len(self) <= self._residents
        self._handle = self._loop.call_later(REST_S if self._resting else TURN_S / SLOTS, self._tick)
        now = self.now = self._loop.time()
        self._turn = (self._turn + 1) % SLOTS
        visited = self._slots if self._resting else (self._slots[self._turn],)
        due = [member for slot in visited for member in slot if member.deadline <= now]
        for member in due:
            member.expire(now)
