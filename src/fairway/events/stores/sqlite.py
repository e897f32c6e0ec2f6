"""Events in one SQLite file: durable without a server, one owner process.

The log is a table whose row id is the offset (AUTOINCREMENT: never given twice). What a group has taken in and not
finished is a row in `pending`; finishing deletes it. Its `leased` is 0 waiting, 1 leased, 2 waiting for the event
before it with the same partition key. Leases are wall-clock times, so they survive a restart; a clock that jumps ahead
makes leases run out early, which the fences make harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec.json import encode

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.events.errors import EventError, PayloadTooLarge, UnknownGroup
from fairway.events.event import Event
from fairway.events.store import Claimed, Features, GroupInfo, Mark, Stored, dead_letter
from fairway.events.stores.sqlite_log import READ_BYTES, EventLog, Row
from fairway.events.stores.sqlite_writer import Writer
from fairway.events.stores.wakeups import Wakeups
from fairway.events.topic import check_group, check_topic, matcher

MAX_EVENT = 1024 * 1024  # bytes of one event in JSON
_TOGETHER = 64 * 1024  # bytes of documents in one call up to which it is inserted with others
_TAKE = 1024  # events looked at in one step of a claim
_ROUNDS = 4  # steps in one transaction
_SEEN = 60.0  # seconds to which it is known when a group was last read
_SLICE = 5000  # rows removed in one transaction
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    offset INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    at REAL NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    key TEXT,
    document BLOB NOT NULL,
    UNIQUE (source, id)
) STRICT;
CREATE INDEX IF NOT EXISTS event_at ON event (at);
CREATE TABLE IF NOT EXISTS event_log (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS consumer_group (
    name TEXT PRIMARY KEY, pattern TEXT NOT NULL, cursor INTEGER NOT NULL, dead INTEGER NOT NULL DEFAULT 0,
    seen REAL NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (
    grp TEXT NOT NULL,
    offset INTEGER NOT NULL,
    key TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    leased INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (grp, offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_key ON pending (grp, key, offset) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS pending_due ON pending (grp, due) WHERE due > 0;
CREATE INDEX IF NOT EXISTS pending_ready ON pending (grp, offset) WHERE leased = 0 AND due = 0;
CREATE INDEX IF NOT EXISTS pending_offset ON pending (offset);
"""
# After `_expire` nothing that may be claimed has a due time; what waits for its key has leased = 2. The last condition
# is for rows that a release before this one wrote. By itself the planner walks the primary key, past all that waits.
_CLAIMABLE = """
SELECT p.offset, p.fence, e.topic, e.at, e.document
FROM pending p INDEXED BY pending_ready JOIN event e ON e.offset = p.offset
WHERE p.grp = ? AND p.leased = 0 AND p.due = 0 AND (p.key IS NULL OR NOT EXISTS (
    SELECT 1 FROM pending q WHERE q.grp = p.grp AND q.key = p.key AND q.offset < p.offset))
ORDER BY p.offset LIMIT ?
"""


class SqliteEventStore:
    """See `EventStore`; one event loop, one process.

    Args:
        path: Database file; its folder has to exist.
        clock: Where time comes from.

    Raises:
        EventStoreUnavailable: The file cannot be opened.
    """

    features = Features(name="sqlite", durability="fsync", shared=False, objects=False)

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._clock = clock
        self._wakeups = Wakeups()
        self._closed = False
        self._writer = Writer(path, _SCHEMA)
        self._db = self._writer.connection
        self._log = EventLog(self._db, clock)
        self._log_id = ""
        self._writer.start(self._migrate, self._log.ended)

    def _migrate(self) -> None:
        """Bring a file of a release before this one up to date, and read which log it is."""
        sql = "INSERT INTO event_log (one, id) VALUES (1, lower(hex(randomblob(8)))) ON CONFLICT DO NOTHING"
        self._db.execute(sql)
        self._log_id = str(self._db.execute("SELECT id FROM event_log").get)
        if "seen" not in {row[1] for row in self._db.execute("PRAGMA table_info(consumer_group)")}:
            self._db.execute("ALTER TABLE consumer_group ADD COLUMN seen REAL NOT NULL DEFAULT 0")
            self._db.execute("UPDATE consumer_group SET seen = ?", (self._clock.time(),))

    @classmethod
    def open(cls, url: str) -> SqliteEventStore:
        """Open ``sqlite:///relative`` or ``sqlite:////absolute``."""
        path = unquote(urlsplit(url).path).removeprefix("/")
        if not path:
            raise EventError("expected sqlite:///path of a file, got no path")
        return cls(Path(path))

    async def append(self, records: Sequence[tuple[str, Event]]) -> list[int]:
        """See `EventStore.append`. Raises `PayloadTooLarge` over 1 MiB an event."""
        rows: list[Row] = []
        for topic, event in records:
            check_topic(topic)
            document = event.encode()
            if len(document) > MAX_EVENT:
                raise PayloadTooLarge(
                    f"event {event.type!r} ({event.id}): expected at most {MAX_EVENT} bytes, got {len(document)}"
                )
            rows.append((topic, event.source, event.id, event.partition_key, document))
        if sum(len(row[4]) for row in rows) > _TOGETHER:
            return await self._writer.run(lambda: self._log.append(rows), done=self._appended)
        return await self._writer.run_together(self._log.append_all, rows, done=self._appended)

    def _appended(self, _: list[int]) -> None:
        self._wakeups.wake()

    def _settled(self, moved: bool) -> None:
        if moved:
            self._wakeups.wake()

    async def read(self, after: int, limit: int, pattern: str | None = None) -> list[Stored]:
        """See `EventStore.read`. Looks at a slice of the log at a time: writers go between two slices."""
        matches = None if pattern is None else matcher(pattern)
        after = _within_log(after)
        rows = self._log.newest(after, limit) if matches is None else []
        if rows:
            limit = 0
        size, more = 0, True
        while more and len(rows) < limit and size < READ_BYTES:
            room = limit - len(rows)
            found, after, more = await self._writer.run(partial(self._log.slice, after, room, matches), writes=False)
            rows += found
            size += sum(len(row[3]) for row in found)
        return [Stored(offset, topic, at, Event.decode(document)) for offset, topic, at, document in rows]

    async def last(self) -> int:
        """See `EventStore.last`."""

        def work() -> int:
            return int(self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").get or 0)

        self._log.last = max(self._log.last, await self._writer.run(work, writes=False))
        return self._log.last

    @property
    def log_id(self) -> str:
        """See `EventStore.log_id`: it lies in the file."""
        return self._log_id

    async def offset_before(self, at: float) -> int:
        """See `EventStore.offset_before`."""

        def work() -> int:
            sql = "SELECT offset FROM event WHERE at < ? ORDER BY at DESC, offset DESC LIMIT 1"
            found = self._db.execute(sql, (at,)).get
            if found is None:
                found = (self._db.execute("SELECT min(offset) FROM event").get or 1) - 1
            return int(found)

        return await self._writer.run(work, writes=False)

    @property
    def changes(self) -> int:
        """See `EventStore.changes`."""
        return self._wakeups.changes

    async def wait(self, after: int, timeout: float, changes: int | None = None) -> bool:
        """See `EventStore.wait`."""
        self._wakeups.check_open()
        seen = self._wakeups.changes if changes is None else changes
        if self._log.last > after or (changes is None and await self.last() > after):
            return True
        await self._wakeups.wait(timeout, seen)
        return self._log.last > after or await self.last() > after

    async def join(self, group: str, pattern: str, after: int | None) -> None:
        """See `EventStore.join`."""
        check_group(group, pattern, after)

        def work() -> str:
            start = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").get or 0
            if after is not None:
                start = min(after, start)
            sql = (
                "INSERT INTO consumer_group (name, pattern, cursor, seen) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET seen = excluded.seen"
            )
            self._db.execute(sql, (group, pattern, start, self._clock.time()))
            return str(self._db.execute("SELECT pattern FROM consumer_group WHERE name = ?", (group,)).get)

        known = await self._writer.run(work)
        if known != pattern:
            raise EventError(f"group {group!r} reads {known!r}; expected the same pattern, got {pattern!r}")

    async def claim(self, group: str, limit: int, lease: float, max_deliveries: int) -> list[Claimed]:
        """See `EventStore.claim`. Takes in a slice of the log at a time: writers go between two slices."""
        rows: list[Any] = []
        more = True
        while more and not rows:
            work = partial(self._claim, group, limit, lease, max_deliveries)
            rows, more, _ = await self._writer.run(work, done=lambda outcome: self._settled(outcome[2]))
        return [
            Claimed(Stored(offset, topic, at, Event.decode(document)), fence + 1)
            for offset, fence, topic, at, document in rows
        ]

    def _claim(self, group: str, limit: int, lease: float, max_deliveries: int) -> tuple[list[Any], bool, bool]:
        now = self._clock.time()
        pattern, cursor, seen = self._group(group)
        self._see(group, seen, now)
        died = self._expire(group, now, max_deliveries)
        rows = list(self._db.execute(_CLAIMABLE, (group, limit)))
        newest = self._db.execute("SELECT max(offset) FROM event").get or 0
        rounds = 0
        while len(rows) < limit and cursor < newest and rounds < _ROUNDS:
            cursor = self._take(group, pattern, cursor)
            rows = list(self._db.execute(_CLAIMABLE, (group, limit)))
            rounds += 1
        self._db.executemany(
            "UPDATE pending SET leased = 1, fence = fence + 1, due = ? WHERE grp = ? AND offset = ?",
            [(now + lease, group, row[0]) for row in rows],
        )
        return rows, cursor < newest, died

    def _take(self, group: str, pattern: str, cursor: int) -> int:
        matches = matcher(pattern)
        sql = "SELECT offset, topic, key FROM event WHERE offset > ? ORDER BY offset LIMIT ?"
        seen = list(self._db.execute(sql, (cursor, _TAKE)))
        self._db.executemany(
            "INSERT INTO pending (grp, offset, key, leased) VALUES (?1, ?2, ?3, CASE WHEN ?3 IS NOT NULL AND EXISTS "
            "(SELECT 1 FROM pending WHERE grp = ?1 AND key = ?3) THEN 2 ELSE 0 END)",
            [(group, offset, key) for offset, topic, key in seen if matches(topic)],
        )
        cursor = int(seen[-1][0])
        self._db.execute("UPDATE consumer_group SET cursor = ? WHERE name = ?", (cursor, group))
        return cursor

    def _expire(self, group: str, now: float, max_deliveries: int) -> bool:
        sql = "SELECT offset, fence FROM pending WHERE grp = ? AND due > 0 AND due <= ? AND leased = 1 AND fence >= ?"
        hopeless = list(self._db.execute(sql, (group, now, max_deliveries)))
        for offset, fence in hopeless:
            self._kill(group, offset, fence, f"lease expired in delivery {fence}")
        sql = "UPDATE pending SET leased = 0, due = 0 WHERE grp = ? AND due > 0 AND due <= ?"
        self._db.execute(sql, (group, now))
        return bool(hopeless)

    async def next_due(self, group: str) -> float | None:
        """See `EventStore.next_due`."""

        def work() -> float | None:
            self._group(group)
            due: float | None = self._db.execute("SELECT min(due) FROM pending WHERE grp = ? AND due > 0", (group,)).get
            return due

        due = await self._writer.run(work, writes=False)
        return None if due is None else max(0.0, due - self._clock.time())

    async def ack(self, group: str, offset: int, fence: int) -> bool:
        """See `EventStore.ack`."""

        def work() -> tuple[bool, bool]:
            self._group(group)
            sql = "DELETE FROM pending WHERE grp = ? AND offset = ? AND fence = ? AND leased = 1 RETURNING key"
            row = self._db.execute(sql, (group, offset, fence)).fetchone()
            return row is not None, row is not None and self._free(group, row[0])

        done, _ = await self._writer.run(work, done=lambda outcome: self._settled(outcome[1]))
        return done

    async def nack(self, group: str, offset: int, fence: int, delay: float, max_deliveries: int) -> bool:
        """See `EventStore.nack`."""

        def work() -> bool:
            if not self._holds(group, offset, fence):
                return False
            if fence >= max_deliveries:
                self._kill(group, offset, fence, f"not acknowledged in {fence} deliveries")
            else:
                due = self._clock.time() + delay if delay > 0 else 0.0
                sql = "UPDATE pending SET leased = 0, due = ? WHERE grp = ? AND offset = ?"
                self._db.execute(sql, (due, group, offset))
            return True

        return await self._writer.run(work, done=self._settled)

    async def extend(self, group: str, offset: int, fence: int, lease: float) -> bool:
        """See `EventStore.extend`."""

        def work() -> bool:
            if not self._holds(group, offset, fence):
                return False
            now = self._clock.time()
            sql = "UPDATE pending SET due = ? WHERE grp = ? AND offset = ?"
            self._db.execute(sql, (now + lease, group, offset))
            self._see(group, self._group(group)[2], now)
            return True

        return await self._writer.run(work)

    async def kill(self, group: str, offset: int, fence: int, reason: str) -> bool:
        """See `EventStore.kill`."""

        def work() -> bool:
            if not self._holds(group, offset, fence):
                return False
            self._kill(group, offset, fence, reason)
            return True

        return await self._writer.run(work, done=self._settled)

    async def groups(self) -> list[GroupInfo]:
        """See `EventStore.groups`."""

        def work() -> list[GroupInfo]:
            newest = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").get or 0
            sql = (
                "SELECT g.name, g.pattern, g.cursor, coalesce(sum(p.leased <> 1), 0), coalesce(sum(p.leased = 1), 0), "
                "? - g.cursor, g.dead, g.seen FROM consumer_group g LEFT JOIN pending p ON p.grp = g.name "
                "GROUP BY g.name ORDER BY g.name"
            )
            return [GroupInfo(*row) for row in self._db.execute(sql, (newest,))]

        return await self._writer.run(work, writes=False)

    async def leave(self, group: str) -> bool:
        """See `EventStore.leave`."""

        def work() -> bool:
            self._db.execute("DELETE FROM pending WHERE grp = ?", (group,))
            self._db.execute("DELETE FROM consumer_group WHERE name = ?", (group,))
            return self._db.changes() > 0

        return await self._writer.run(work)

    async def trim(self, before: float) -> int:
        """See `EventStore.trim`."""

        def work() -> int:
            needed = self._db.execute("SELECT min(cursor) FROM consumer_group").get
            sql = (
                "DELETE FROM event WHERE offset IN (SELECT offset FROM event e WHERE at < ? AND (? IS NULL OR "
                "offset <= ?) AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.offset = e.offset) LIMIT ?)"
            )
            self._db.execute(sql, (before, needed, needed, _SLICE))
            return self._db.changes()

        removed = 0
        while slice_ := await self._writer.run(work):
            removed += slice_
            self._log.forget()
        return removed

    async def scan(self, after: int, limit: int) -> list[Mark]:
        """See `RetainedStore.scan`."""

        def work() -> list[Mark]:
            sql = "SELECT offset, topic, at, length(document) FROM event WHERE offset > ? ORDER BY offset LIMIT ?"
            return [Mark(*row) for row in self._db.execute(sql, (after, limit))]

        return await self._writer.run(work, writes=False)

    async def remove(self, offsets: Sequence[int]) -> int:
        """See `RetainedStore.remove`; a thousand in one transaction."""
        removed = 0
        for start in range(0, len(offsets), 1000):
            work = partial(self._remove, encode(list(offsets[start : start + 1000])))
            count, _ = await self._writer.run(work, done=lambda outcome: self._settled(outcome[1]))
            removed += count
        self._log.forget()
        return removed

    def _remove(self, offsets: bytes) -> tuple[int, bool]:
        sql = "DELETE FROM pending WHERE offset IN (SELECT value FROM json_each(?)) RETURNING grp, key"
        keys = {(group, key) for group, key in self._db.execute(sql, (offsets,)) if key is not None}
        freed = sum(self._free(group, key) for group, key in keys)
        self._db.execute("DELETE FROM event WHERE offset IN (SELECT value FROM json_each(?))", (offsets,))
        return self._db.changes(), freed > 0

    async def close(self) -> None:
        """See `EventStore.close`."""
        self._closed = True
        self._wakeups.close()
        await self._writer.close()

    def _group(self, group: str) -> tuple[str, int, float]:
        row = self._db.execute("SELECT pattern, cursor, seen FROM consumer_group WHERE name = ?", (group,)).fetchone()
        if row is None:
            raise UnknownGroup(f"expected a group that was joined, got {group!r}")
        return row[0], row[1], row[2]

    def _see(self, group: str, seen: float, now: float) -> None:
        if abs(now - seen) > _SEEN:
            self._db.execute("UPDATE consumer_group SET seen = ? WHERE name = ?", (now, group))

    def _holds(self, group: str, offset: int, fence: int) -> bool:
        self._group(group)
        sql = "SELECT 1 FROM pending WHERE grp = ? AND offset = ? AND fence = ? AND leased = 1"
        return self._db.execute(sql, (group, offset, fence)).get is not None

    def _kill(self, group: str, offset: int, fence: int, reason: str) -> None:
        sql = "SELECT topic, at, document, key FROM event WHERE offset = ?"
        [(found, at, document, key)] = self._db.execute(sql, (offset,))
        topic, letter = dead_letter(Stored(offset, found, at, Event.decode(document)), group, fence, reason)
        self._log.append([(topic, letter.source, letter.id, letter.partition_key, letter.encode(stored=True))])
        self._db.execute("DELETE FROM pending WHERE grp = ? AND offset = ?", (group, offset))
        self._free(group, key)
        self._db.execute("UPDATE consumer_group SET dead = dead + 1 WHERE name = ?", (group,))

    def _free(self, group: str, key: str | None) -> bool:
        """Make the next event of a partition key claimable; return whether there is one."""
        if key is None:
            return False
        sql = (
            "UPDATE pending SET leased = 0 WHERE grp = ?1 AND leased = 2 AND offset = "
            "(SELECT min(offset) FROM pending WHERE grp = ?1 AND key = ?2)"
        )
        self._db.execute(sql, (group, key))
        return self._db.changes() > 0

    def __repr__(self) -> str:
        return f"<SqliteEventStore {self._path.name} [{'closed' if self._closed else 'open'}]>"


def _within_log(offset: int) -> int:
    return min(max(offset, 0), 2**62)
