"""One event in the hands of a member of a consumer group."""

from __future__ import annotations

from fairway.events.errors import EventError
from fairway.events.event import Event
from fairway.events.store import Claimed, EventStore

LONGEST = 31_536_000.0  # seconds of a lease or a delay: a year


class Delivery:
    """An event under a lease, to be settled once: `ack`, `nack` or `kill`.

    Each answers False where the lease was lost meanwhile: somebody else has the event by now, and what this member
    did counts as not done.

    Attributes:
        event: The event. ``topic``, ``offset``: where it lies.
        attempt: Number of this delivery, from 1; also its fence.
    """

    __slots__ = ("_group", "_max_deliveries", "_store", "attempt", "event", "offset", "settled", "topic")

    def __init__(self, store: EventStore, group: str, claimed: Claimed, max_deliveries: int) -> None:
        self._store = store
        self._group = group
        self._max_deliveries = max_deliveries
        self.event: Event = claimed.stored.event
        self.topic = claimed.stored.topic
        self.offset = claimed.stored.offset
        self.attempt = claimed.fence
        self.settled = False

    async def ack(self) -> bool:
        """Done: never delivered to this group again."""
        self.settled = True
        return await self._store.ack(self._group, self.offset, self.attempt)

    async def nack(self, delay: float = 0.0) -> bool:
        """Not done: deliver again after `delay` seconds, or dead-letter it if it was the last try.

        Raises:
            EventError: `delay` is negative, over a year, or not a number.
        """
        _check_seconds("delay", delay)
        self.settled = True
        return await self._store.nack(self._group, self.offset, self.attempt, delay, self._max_deliveries)

    async def kill(self, reason: str) -> bool:
        """Hopeless: dead-letter it now, with the reason."""
        self.settled = True
        return await self._store.kill(self._group, self.offset, self.attempt, reason)

    async def extend(self, lease: float) -> bool:
        """Keep it for `lease` more seconds. Raises `EventError` as `nack` does."""
        _check_seconds("lease", lease)
        return await self._store.extend(self._group, self.offset, self.attempt, lease)

    def __repr__(self) -> str:
        return f"<Delivery {self.topic}@{self.offset} to {self._group}, attempt {self.attempt}>"


def _check_seconds(what: str, seconds: float) -> None:
    if not 0 <= seconds <= LONGEST:
        raise EventError(f"expected {what} from 0 to {LONGEST:g} seconds, got {seconds}")
