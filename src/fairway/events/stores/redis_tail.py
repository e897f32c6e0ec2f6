"""The newest events that this process has appended to Redis itself: what its subscribers read next, without asking."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from fairway.events.event import Event
from fairway.events.store import Stored

_LONGEST = 256  # events
_LARGEST = 16 * 1024  # bytes of one of them


class Tail:
    """Events without a gap between their offsets."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[tuple[int, str, float, bytes]] = deque(maxlen=_LONGEST)

    def take(self, at: float, told: Sequence[int], records: Sequence[Any]) -> None:
        """Take in what was appended just now; what is there goes where something lies between.

        Args:
            at: When, in seconds since the epoch.
            told: Offsets, negative for an event that was there already, perhaps in other words.
            records: Topic, partition key and document of each, one after another.
        """
        kept = self._kept
        for index, offset in enumerate(told):
            if offset < 0:
                continue
            topic, _, document = records[3 * index : 3 * index + 3]
            if (kept and kept[-1][0] != offset - 1) or len(document) > _LARGEST:
                kept.clear()
            if len(document) <= _LARGEST:
                kept.append((offset, topic, at, document))

    def read(self, after: int, limit: int) -> list[Stored]:
        """Return up to `limit` events from the one right above `after` on; nothing where that is not here."""
        kept = self._kept
        if not kept or not kept[0][0] <= after + 1 <= kept[-1][0]:
            return []
        first = after - kept[-1][0]
        return [
            Stored(offset, topic, at, Event.decode(document))
            for offset, topic, at, document in (kept[n] for n in range(first, min(first + limit, 0)))
        ]

    def forget(self) -> None:
        """Drop everything: events were removed, or the log was lost."""
        self._kept.clear()

    def __repr__(self) -> str:
        return f"<Tail [{len(self._kept)} events]>"
