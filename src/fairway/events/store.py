"""The contract of an event store: an append-only log, and consumer groups that read it.

Every store keeps one total order: an event gets the next *offset*, a positive integer, when it is appended. Reading
never removes; retention does. A *group* is a named, durable reader: each matching event is given to one of its
members at a time, under a lease, until one acknowledges it.

States of an event within a group::

    waiting --claim--> leased --ack--> done
       ^                 |
       +--nack, expiry---+--too many deliveries, kill--> dead (appended to the topic ``$dead.GROUP``)

What every store promises, and `fairway.testing.event_stores` checks:

- `append` returns after the events are as durable as `Features.durability` says; the same (source, id) appended again
  is not stored again and answers the first offset.
- A log that was lost, wholly or from some offset on, is another log from then on, see `EventStore.log_id`.
- Offsets ascend without a gap being filled later: once a reader has seen offset n, nothing at or below n appears.
- `claim` gives an event to one caller at a time. `fence` is the number of the delivery, 1 for the first; `ack`, `nack`,
  `extend` and `kill` with another fence than the current one answer False and change nothing.
- Within a group, events with one partition key are claimed in the order of their offsets, the next one only after
  the one before is done or dead.
- `trim` never removes what a group still needs; `remove` does, see `RetainedStore`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import msgspec

from fairway.events.event import Event

Durability = Literal["memory", "process", "fsync", "replicated"]
DEAD_PREFIX = "$dead."


class Features(NamedTuple):
    """What a store guarantees.

    Attributes:
        name: ``memory``, ``sqlite`` or ``redis``.
        durability: What an acknowledged event survives: nothing, the process, a power cut, a lost machine.
        shared: Whether several processes may use it at once.
        objects: Whether data stays the very object that was published; else it comes back as JSON built-ins.
    """

    name: str
    durability: Durability
    shared: bool
    objects: bool


class Stored(NamedTuple):
    """An event in the log: its offset, topic, when it was appended (seconds since the epoch), and itself."""

    offset: int
    topic: str
    at: float
    event: Event


class Claimed(NamedTuple):
    """An event leased to a member of a group; `fence` counts deliveries from 1."""

    stored: Stored
    fence: int


class GroupInfo(NamedTuple):
    """A group as it stands.

    Attributes:
        name: Its name. ``pattern``: the topics that it reads.
        cursor: Offset up to which events have been taken in.
        waiting: Taken in, not leased. ``leased``: given to a member.
        lag: Offsets after the cursor.
        dead: Dead-lettered so far.
        seen: When a member last joined, claimed or extended a lease, in seconds since the epoch, to a minute.
    """

    name: str
    pattern: str
    cursor: int
    waiting: int
    leased: int
    lag: int
    dead: int
    seen: float = 0.0


class Mark(NamedTuple):
    """An event in the log without its data: offset, topic, when it was appended, bytes of its document."""

    offset: int
    topic: str
    at: float
    size: int


class EventStore(Protocol):
    """Where events lie. Every method may raise `EventStoreUnavailable`; then nothing was changed or acknowledged.

    All methods are safe to cancel: a cancelled `append` may or may not have been stored, which publishing the same
    event again settles.
    """

    @property
    def features(self) -> Features:
        """What this store guarantees."""
        ...

    async def append(self, records: Sequence[tuple[str, Event]]) -> list[int]:
        """Store events under their topics, all or none, and return their offsets in order."""
        ...

    async def read(self, after: int, limit: int, pattern: str | None = None) -> list[Stored]:
        """Return up to `limit` events with offsets above `after` whose topics match, ascending; None is all topics,
        system topics too.
        """
        ...

    async def last(self) -> int:
        """Return the newest offset, 0 for an empty log."""
        ...

    @property
    def log_id(self) -> str:
        """Which log it was that `last` saw the last time, empty where that is not known.

        Another one than before means that the log was lost, or a part of it, and begun again: offsets seen so far mean
        nothing in the new one, however far it has grown.
        """
        ...

    async def offset_before(self, at: float) -> int:
        """Return the newest offset appended before `at` (seconds since the epoch), 0 if there is none."""
        ...

    @property
    def changes(self) -> int:
        """A number that moves when an event of a group may have become claimable: given back, or freed by the one
        before it with the same partition key.
        """
        ...

    async def wait(self, after: int, timeout: float, changes: int | None = None) -> bool:
        """Wait until an offset above `after` exists, at most `timeout` seconds; return whether it does.

        Args:
            after: An offset.
            timeout: Seconds, >= 0.
            changes: Return also, maybe with False, as soon as `changes` is another number than this one, which was
                read before a `claim`; None waits for offsets alone, but may return early too.
        """
        ...

    async def join(self, group: str, pattern: str, after: int | None) -> None:
        """Create a group that reads from above `after` (None: from now on); an existing one keeps its cursor.

        Raises:
            EventError: The group exists with another pattern.
        """
        ...

    async def claim(self, group: str, limit: int, lease: float, max_deliveries: int) -> list[Claimed]:
        """Lease up to `limit` events for `lease` seconds.

        An event whose lease ran out is claimed again, or dead-lettered after `max_deliveries` deliveries.

        Raises:
            UnknownGroup: There is no such group.
        """
        ...

    async def next_due(self, group: str) -> float | None:
        """Return in how many seconds the next lease or delay of the group runs out, None if there is none."""
        ...

    async def ack(self, group: str, offset: int, fence: int) -> bool:
        """Mark as done. Repeating it with the same fence right after answers False: it is done already."""
        ...

    async def nack(self, group: str, offset: int, fence: int, delay: float, max_deliveries: int) -> bool:
        """Give it back, to be claimed again after `delay` seconds, or dead-letter it after `max_deliveries`."""
        ...

    async def extend(self, group: str, offset: int, fence: int, lease: float) -> bool:
        """Lease it for `lease` seconds from now; False means that it belongs to somebody else by now."""
        ...

    async def kill(self, group: str, offset: int, fence: int, reason: str) -> bool:
        """Dead-letter it at once: appended to ``$dead.GROUP`` with the extensions of `dead_letter`."""
        ...

    async def groups(self) -> list[GroupInfo]:
        """Return every group, by name."""
        ...

    async def leave(self, group: str) -> bool:
        """Delete a group with all that it still had to read; False if there is none."""
        ...

    async def trim(self, before: float) -> int:
        """Remove events appended before `before` that no group needs any more; return how many."""
        ...

    async def close(self) -> None:
        """Release files and connections; waiting calls raise `BusClosed`."""
        ...


@runtime_checkable
class RetainedStore(EventStore, Protocol):
    """A store whose user sees to it that it does not grow for ever; behind an HTTP API the daemon does."""

    async def scan(self, after: int, limit: int) -> list[Mark]:
        """Return up to `limit` events above `after`, ascending; fewer only at the end of the log."""
        ...

    async def remove(self, offsets: Sequence[int]) -> int:
        """Remove events whether or not a group needs them, and return how many there were.

        Who holds one under a lease has lost it; the next of its partition key becomes claimable.
        """
        ...


@runtime_checkable
class RecentStore(EventStore, Protocol):
    """A store that keeps what it has appended just now, so that subscribers in this process need not ask for it."""

    def recent(self, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` events from the one right above `after` on, without a gap and as `read` gives them.

        Empty where they are not in memory, though they may exist.
        """
        ...


def dead_letter(stored: Stored, group: str, deliveries: int, reason: str) -> tuple[str, Event]:
    """Return topic and event of a dead letter.

    The event keeps its type, data, source and subject; ``deadtopic``, ``deadoffset``, ``deaddeliveries`` and
    ``deadreason`` tell its story. Its id is made of group and offset, so that killing twice stores once.
    """
    event = stored.event
    story = {
        "deadtopic": stored.topic,
        "deadoffset": str(stored.offset),
        "deaddeliveries": str(deliveries),
        "deadreason": "".join(c if c.isprintable() else " " for c in reason)[:500],
    }
    return DEAD_PREFIX + group, Event(
        type=event.type,
        data=event.data,
        time=event.time,
        id=f"{event.id}.{group}.{stored.offset}"[-500:],
        source=event.source,
        subject=event.subject,
        partition_key=event.partition_key,
        extensions={**event.extensions, **story},
        content_type=event.content_type,
    )


def revive(stored: Stored) -> tuple[str, Event]:
    """Return topic and event of a dead letter as they were before, but for the id, which names this revival."""
    letter = stored.event
    story = ("deadtopic", "deadoffset", "deaddeliveries", "deadreason")
    extensions = {name: value for name, value in letter.extensions.items() if name not in story}
    event = msgspec.structs.replace(letter, id=f"{letter.id}.revived.{stored.offset}"[-500:], extensions=extensions)
    return letter.extensions.get("deadtopic", letter.type), event
