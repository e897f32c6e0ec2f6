"""The log of the SQLite store: its rows, and the newest of them in memory.

All but `EventLog.newest` runs on the writer's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw
from msgspec.json import encode

from fairway.clock import Clock

READ_BYTES = 16 * 1024 * 1024
"""Bytes of the documents that one read returns at most, and one event more."""
_LOOK = 4096  # events that one step of a read by pattern looks at
_TAIL = 256  # newest events that are kept in memory for subscribers
_TAIL_EVENT = 16 * 1024  # bytes of the largest of them
# Many events in one statement, in the order of the array.
_KNOWN = """
SELECT e.source, e.id, e.offset
FROM json_each(?) AS told JOIN event e ON e.source = told.value ->> 0 AND e.id = told.value ->> 1
"""
_INSERT = """
INSERT INTO event (topic, at, source, id, key, document)
SELECT value ->> 0, ?1, value ->> 1, value ->> 2, value ->> 3, CAST(value ->> 4 AS BLOB) FROM json_each(?2) ORDER BY key
"""
Kept = tuple[int, str, float, bytes]
"""Offset, topic, when it was appended, document."""
Row = tuple[str, str, str, str | None, bytes]
"""Topic, source, id, partition key, document."""


class EventLog:
    """The table of events.

    Args:
        connection: The writer's.
        clock: Where time comes from.
    """

    def __init__(self, connection: apsw.Connection, clock: Clock) -> None:
        self._db = connection
        self._clock = clock
        self.last = 0  # newest committed offset that is known
        self._tail: list[Kept] = []  # the newest events of this store's own, without a gap: what subscribers read next
        self._new: list[Kept] = []  # those of the transaction under way

    def newest(self, after: int, limit: int) -> list[Kept]:
        """Return what follows `after` if it is in memory, from any thread; nothing means that it has to be read."""
        tail = self._tail
        if not tail or not tail[0][0] <= after + 1 <= tail[-1][0]:
            return []
        start = after + 1 - tail[0][0]
        return tail[start : start + limit]

    def forget(self) -> None:
        """Drop what is in memory: rows were removed."""
        self._tail = []

    def ended(self, committed: bool) -> None:
        """Take the rows of a transaction into memory, or forget them."""
        new, self._new = self._new, []
        if not committed or not new:
            return
        small = all(len(one[3]) <= _TAIL_EVENT for one in new)
        follows = self._tail and new[0][0] == self._tail[-1][0] + 1 and new[-1][0] - new[0][0] == len(new) - 1
        self._tail = [*(self._tail if follows else ()), *new][-_TAIL:] if small else []
        self.last = new[-1][0]

    def append_all(self, calls: list[list[Row]]) -> list[list[int]]:
        """Append what several calls ask for: one statement looks for known events, one inserts the others."""
        if len(calls) == 1 and len(calls[0]) == 1:
            return [self.append(calls[0])]
        rows = [row for call in calls for row in call]
        offsets: dict[tuple[str, str], int] = {}
        for source, name, offset in self._db.execute(_KNOWN, (encode([(row[1], row[2]) for row in rows]),)):
            offsets[source, name] = offset
        fresh: dict[tuple[str, str], Row] = {}
        for row in rows:
            if (row[1], row[2]) not in offsets:
                fresh.setdefault((row[1], row[2]), row)
        if fresh:
            at = self._clock.time()
            self._db.execute(_INSERT, (at, encode([(*head, body.decode()) for *head, body in fresh.values()])))
            first = self._db.last_insert_rowid() - len(fresh) + 1
            for offset, (identity, row) in enumerate(fresh.items(), first):
                offsets[identity] = offset
                self._new.append((offset, row[0], at, row[4]))
        return [[offsets[row[1], row[2]] for row in call] for call in calls]

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Append rows one by one; a known (source, id) answers its offset."""
        at = self._clock.time()
        offsets = []
        for topic, source, name, key, document in rows:
            # Asked first: a refused INSERT would use up an offset, and `last` would name an event that never comes.
            known = self._db.execute("SELECT offset FROM event WHERE source = ? AND id = ?", (source, name)).get
            if known is None:
                sql = "INSERT INTO event (topic, at, source, id, key, document) VALUES (?, ?, ?, ?, ?, ?)"
                self._db.execute(sql, (topic, at, source, name, key, document))
                known = self._db.last_insert_rowid()
                self._new.append((known, topic, at, document))
            offsets.append(known)
        return offsets

    def slice(self, after: int, room: int, matches: Callable[[str], bool] | None) -> tuple[list[Kept], int, bool]:
        """Look at a part of the log: return what matches, how far it went, and whether there may be more."""
        found: list[Kept] = []
        size, seen = 0, 0
        if matches is None:
            sql = "SELECT offset, topic, at, document FROM event WHERE offset > ? ORDER BY offset LIMIT ?"
            for row in self._db.execute(sql, (after, room)):
                found.append(row)
                size += len(row[3])
                if size >= READ_BYTES:
                    break
            return found, after, False
        sql = "SELECT offset, topic FROM event WHERE offset > ? ORDER BY offset LIMIT ?"
        for offset, topic in self._db.execute(sql, (after, _LOOK)):
            seen, after = seen + 1, offset
            if matches(topic):
                one = "SELECT offset, topic, at, document FROM event WHERE offset = ?"
                found += self._db.execute(one, (offset,))
                size += len(found[-1][3])
                if len(found) == room or size >= READ_BYTES:
                    return found, after, True
        return found, after, seen == _LOOK

    def __repr__(self) -> str:
        return f"<EventLog [last {self.last}, {len(self._tail)} in memory]>"
