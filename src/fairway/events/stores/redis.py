"""Events on Redis or Valkey, one server or a cluster: one stream, any number of processes.

Every step is a script (`redis_scripts`), so that its outcome is one of the contract's whatever other processes do. One
connection waits for news (`XREAD BLOCK` of two seconds, never for ever) on behalf of every waiter in this process.

All keys of a namespace lie in one slot of a cluster, and `fairway.resp` follows that slot. After FLUSHALL the log is
empty and offsets start again at 1; members of a group join it again from the start. After a failover, or a restart
from a snapshot, events that were not there are gone, as with every use of Redis, and others get their offsets: the log
has an id, which whoever looks replaces where its end is not what it was (`redis_scripts.LOOK`);
readers begin again then.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fairway.events.errors import BusClosed, EventError, EventStoreUnavailable, PayloadTooLarge, UnknownGroup
from fairway.events.event import Event
from fairway.events.store import Claimed, Durability, Features, GroupInfo, Mark, Stored, dead_letter
from fairway.events.stores import redis_scripts as scripts
from fairway.events.stores.redis_tail import Tail
from fairway.events.stores.wakeups import Wakeups
from fairway.events.topic import check_group, check_topic, matcher
from fairway.resp import Address, Argument, Faults, Link, Refusal, Script

MAX_EVENT = 1024 * 1024  # bytes of one event in JSON
_READ_BYTES = 16 * 1024 * 1024  # documents that one step of a read asks for, by the size of those before
_FIRST_READ = 64 * 1024  # bytes that an event is taken to have before the first was read
_REMEMBERED = 86_400  # seconds that a (source, id) is known
_BLOCK_MS = 2000
# Seconds between two looks of the listener: what comes faster comes together. The pause doubles while all that it hears
# was appended here.
_SPACING = (0.001, 0.008)
_LOOK = 1.0  # seconds between two looks whether the log is still the one that was read
_PAUSE = 0.5  # seconds between two tries of the listener while Redis is away
_NOT_NOW = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY")  # refusals that pass
_LOG = logging.getLogger("fairway.events")
FAULTS = Faults(
    service="events",
    unavailable=EventStoreUnavailable,
    closed=lambda: BusClosed("the event store is closed"),
    url=EventError,
)
_APPEND = Script("append", scripts.APPEND)
_LOG_LOOK = Script("look", scripts.LOOK)
_JOIN = Script("join", scripts.JOIN)
_LEAVE = Script("leave", scripts.LEAVE)
_CLAIM = Script("claim", scripts.CLAIM)
_ACK = Script("ack", scripts.ACK)
_NACK = Script("nack", scripts.NACK)
_EXTEND = Script("extend", scripts.EXTEND)
_KILL = Script("kill", scripts.KILL)
_NEXT_DUE = Script("next_due", scripts.NEXT_DUE)
_TRIM = Script("trim", scripts.TRIM)
_MARKS = Script("marks", scripts.MARKS)
_REMOVE = Script("remove", scripts.REMOVE)


class RedisEventStore:
    """See `EventStore`; any number of processes.

    Args:
        addresses: One server, or some nodes of a cluster.
        namespace: Prefix of every key, in braces: one slot of a cluster.
        skew: Seconds added to Redis's clock; tests pass time with it.
    """

    def __init__(self, addresses: Sequence[Address], *, namespace: str = "fairway", skew: float = 0.0) -> None:
        self._link = Link(addresses)
        self._ear = Link(addresses, patience=_BLOCK_MS / 1000 + 5.0)  # of its own: it blocks
        self._prefix = f"{{{namespace}:events}}:"
        self.skew = skew
        self._durability: Durability = "process"
        self._checked: Address | None = None  # the server whose settings are known
        self._closed = False
        self._wakeups = Wakeups()
        self._woken = 0  # offset up to which waiters have been woken
        self._listener: asyncio.Task[None] | None = None
        self._clock = time.monotonic
        self._looked = -_LOOK  # when it made sure of the log the last time
        self._log_id = b""
        self._newest: tuple[int, bytes] = (0, b"")  # the newest offset then, and when it was appended
        self._tail = Tail()
        self._size = _FIRST_READ  # bytes of an event, as the last read found them

    @classmethod
    def open(cls, url: str) -> RedisEventStore:
        """Open the server or cluster at `url`; nothing is connected before the first call.

        ``redis://user:password@host:port/db``, ``rediss://…?ssl_ca_certs=FILE`` for TLS, ``unix://path``; several nodes
        of a cluster as ``redis://host1:7001,host2:7002``; ``?namespace=NAME`` keeps several logs apart.

        Raises:
            EventError: The URL cannot be read.
        """
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        namespace = query.pop("namespace", "fairway")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", namespace):
            raise EventError(f"expected a namespace of letters, digits, _, - and ., got {namespace[:80]!r}")
        return cls(Address.parse(urlunsplit(parts._replace(query=urlencode(query))), FAULTS), namespace=namespace)

    @property
    def features(self) -> Features:
        """What this Redis guarantees, known after the first call."""
        return Features(name="redis", durability=self._durability, shared=True, objects=False)

    async def append(self, records: Sequence[tuple[str, Event]]) -> list[int]:
        """See `EventStore.append`. Raises `PayloadTooLarge` over 1 MiB an event."""
        keys = self._keys("log", "last")
        arguments: list[Any] = [self.skew, _REMEMBERED]
        for topic, event in records:
            check_topic(topic)
            document = event.encode()
            if len(document) > MAX_EVENT:
                raise PayloadTooLarge(
                    f"event {event.type!r} ({event.id}): expected at most {MAX_EVENT} bytes, got {len(document)}"
                )
            keys.append(self._seen(event))
            arguments += [topic, event.partition_key or "", document]
        at, *told = await self._run(_APPEND, keys, arguments)
        self._tail.take(float(at), told, arguments[2:])
        offsets = [abs(offset) for offset in told]
        self._woken = max(self._woken, *offsets, 0)
        self._wakeups.wake()
        return offsets

    def recent(self, after: int, limit: int) -> list[Stored]:
        """See `RecentStore.recent`: what this store has appended itself, with nothing of others between."""
        return self._tail.read(after, limit)

    async def read(self, after: int, limit: int, pattern: str | None = None) -> list[Stored]:
        """See `EventStore.read`."""
        matches = None if pattern is None else matcher(pattern)
        found: list[Stored] = []
        taken = 0
        while len(found) < limit and taken < _READ_BYTES:
            room = max(1, _READ_BYTES // self._size)
            wanted = min(limit - len(found) if matches is None else max(limit, 512), room)
            start = f"{max(after, 0) + 1}-0"
            rows = await self._call(b"XRANGE", self._prefix + "log", start, "+", "COUNT", wanted)
            size = 0
            for name, (_, topic_, _, at, _, _, _, document) in rows:
                after, size = int(name.partition(b"-")[0]), size + len(document)
                topic = topic_.decode()
                if len(found) < limit and (matches is None or matches(topic)):
                    taken += len(document)
                    found.append(Stored(after, topic, float(at), Event.decode(document)))
            if rows:
                self._size = max(256, size // len(rows))
            if len(rows) < wanted:
                break
        return found

    async def last(self) -> int:
        """See `EventStore.last`. Now and then, and where that is less than before, it makes sure of the log."""
        newest = int(await self._call(b"GET", self._prefix + "last") or 0)
        if newest < self._newest[0] or self._clock() - self._looked >= _LOOK:
            try:
                newest = await self._look()
            except EventStoreUnavailable as error:  # its slot is on its way, say: another time
                _LOG.info("event store: %s; not looked whether the log is still the one that was read", error)
        self._woken = min(self._woken, newest)  # the log may have been lost
        return newest

    async def _look(self) -> int:
        keys, fresh = self._keys("last", "id", "log"), os.urandom(8).hex()
        newest, log_id, at = await self._run(_LOG_LOOK, keys, [self._log_id, *self._newest, fresh])
        self._looked = self._clock()
        if log_id != self._log_id or newest >= self._newest[0]:  # else an answer that was overtaken
            if log_id != self._log_id:
                self._tail.forget()
            self._log_id, self._newest = log_id, (newest, at)
        return int(newest)

    @property
    def log_id(self) -> str:
        """See `EventStore.log_id`."""
        return self._log_id.decode()

    async def offset_before(self, at: float) -> int:
        """See `EventStore.offset_before`: a binary search over the stream."""
        first = await self._call("XRANGE", self._prefix + "log", "-", "+", "COUNT", 1)
        if not first:
            return await self.last()
        low = int(first[0][0].partition(b"-")[0]) - 1
        high = await self.last()
        while low < high:
            middle = (low + high) // 2 + 1
            rows = await self._call("XRANGE", self._prefix + "log", f"{middle}-0", "+", "COUNT", 1)
            if rows and float(rows[0][1][3]) < at:
                low = max(middle, int(rows[0][0].partition(b"-")[0]))
            else:
                high = middle - 1
        return low

    @property
    def changes(self) -> int:
        """See `EventStore.changes`."""
        return self._wakeups.changes

    async def wait(self, after: int, timeout: float, changes: int | None = None) -> bool:
        """See `EventStore.wait`."""
        self._wakeups.check_open()
        seen = self._wakeups.changes if changes is None else changes
        if changes is None or self._listener is None or self._listener.done():
            if await self.last() > after:
                return True
            if self._listener is None or self._listener.done():
                self._listener = asyncio.ensure_future(self._listen(after))
        elif self._woken > after:
            return True
        # Whoever appended since `changes` was read is heard of: the listener reads on from before that.
        await self._wakeups.wait(timeout, seen)
        return self._woken > after or (self._wakeups.changes == seen and await self.last() > after)

    async def _listen(self, after: int) -> None:
        log, wake = self._prefix + "log", self._prefix + "wake"
        seen: dict[str, str] = {log: f"{after}-0", wake: "0-0"}
        position, lost, pause, log_id = after, False, _SPACING[0], self._log_id
        while not self._closed:
            try:
                # One entry is news enough; whoever waits reads what it wants, whole documents need not come twice.
                news = await self._hear(
                    b"XREAD", b"BLOCK", _BLOCK_MS, b"COUNT", 1, b"STREAMS", log, wake, seen[log], seen[wake]
                )
                for stream, entries in news or ():
                    seen[stream.decode()] = entries[-1][0].decode()
                if news or len(self._wakeups):
                    last = await self.last()
                    lost = last < position or log_id != self._log_id
                    position, log_id = last, self._log_id
                    seen[log] = f"{last}-0"
            except EventStoreUnavailable as error:
                _LOG.warning("event store: %s; listening again in %.1f s", error, _PAUSE)
                await asyncio.sleep(_PAUSE)
                self._wakeups.wake()
                continue
            changed = any(stream.decode() == wake for stream, _ in news or ())
            if changed or lost or position > self._woken:  # else it was appended here, and everybody knows
                self._woken = position if lost else max(position, self._woken)
                self._wakeups.wake()
                pause = _SPACING[0]
            elif news:
                pause = min(2 * pause, _SPACING[1])
            if news:
                await asyncio.sleep(pause)

    async def join(self, group: str, pattern: str, after: int | None) -> None:
        """See `EventStore.join`."""
        check_group(group, pattern, after)
        keys = self._keys("groups", f"g:{group}", "last", "epoch")
        known = await self._run(_JOIN, keys, [self.skew, group, pattern, "" if after is None else after])
        if known.decode() != pattern:
            raise EventError(f"group {group!r} reads {known.decode()!r}; expected the same pattern, got {pattern!r}")

    async def claim(self, group: str, limit: int, lease: float, max_deliveries: int) -> list[Claimed]:
        """See `EventStore.claim`."""
        pattern = await self._call("HGET", f"{self._prefix}g:{group}", "pattern")
        keys = self._keys("log", "last", f"g:{group}", f"p:{group}", f"r:{group}", f"t:{group}")
        claimed: list[Claimed] = []
        more = 1
        while more and len(claimed) < limit:
            arguments = [
                self.skew,
                limit - len(claimed),
                lease,
                max_deliveries,
                _lua_pattern((pattern or b">").decode()),
                f"{self._prefix}k:{group}:",
            ]
            try:
                rows, hopeless, more = await self._run(_CLAIM, keys, arguments, group)
                claimed += [Claimed(_stored(row), row[1]) for row in rows]
                for row in hopeless:
                    await self._kill(group, _stored(row), row[1], f"lease expired in delivery {row[1]}")
            except EventStoreUnavailable:
                if not claimed:
                    raise
                break  # what was leased already is the caller's
        return claimed

    async def next_due(self, group: str) -> float | None:
        """See `EventStore.next_due`."""
        due = await self._run(_NEXT_DUE, self._keys(f"g:{group}", f"t:{group}"), [self.skew], group)
        return float(due) if due else None

    async def ack(self, group: str, offset: int, fence: int) -> bool:
        """See `EventStore.ack`."""
        return await self._settle(_ACK, group, offset, fence)

    async def nack(self, group: str, offset: int, fence: int, delay: float, max_deliveries: int) -> bool:
        """See `EventStore.nack`."""
        if fence >= max_deliveries:
            return await self.kill(group, offset, fence, f"not acknowledged in {fence} deliveries")
        return await self._settle(_NACK, group, offset, fence, delay)

    async def extend(self, group: str, offset: int, fence: int, lease: float) -> bool:
        """See `EventStore.extend`."""
        return await self._settle(_EXTEND, group, offset, fence, lease)

    async def kill(self, group: str, offset: int, fence: int, reason: str) -> bool:
        """See `EventStore.kill`."""
        found = await self.read(offset - 1, 1)
        if not found or found[0].offset != offset:
            return False
        return await self._kill(group, found[0], fence, reason)

    async def _kill(self, group: str, stored: Stored, fence: int, reason: str) -> bool:
        topic, letter = dead_letter(stored, group, fence, reason)
        keys = self._settling(group) + self._keys("log", "last") + [self._seen(letter)]
        prefix = f"{self._prefix}k:{group}:"
        arguments = [self.skew, stored.offset, fence, prefix, _REMEMBERED, topic, letter.encode(stored=True)]
        return bool(await self._run(_KILL, keys, arguments, group))

    async def _settle(self, script: Script, group: str, offset: int, fence: int, *more: float) -> bool:
        arguments = [self.skew, offset, fence, f"{self._prefix}k:{group}:", *more]
        return bool(await self._run(script, self._settling(group), arguments, group))

    def _settling(self, group: str) -> list[str]:
        return self._keys(f"g:{group}", f"p:{group}", f"r:{group}", f"t:{group}", "wake")

    async def groups(self) -> list[GroupInfo]:
        """See `EventStore.groups`: one call a group, each a moment of its own."""
        found = []
        last = await self.last()
        for name in sorted(member.decode() for member in await self._call("SMEMBERS", self._prefix + "groups")):
            fields = ("pattern", "cursor", "dead", "seen")
            pattern, cursor, dead, seen = await self._call(b"HMGET", f"{self._prefix}g:{name}", *fields)
            if pattern is None:
                continue
            states = await self._call("HVALS", f"{self._prefix}p:{name}")
            leased = sum(state.split(b" ", 2)[1] == b"1" for state in states)
            position = int(cursor)
            found.append(
                GroupInfo(
                    *(name, pattern.decode(), position, len(states) - leased, leased, last - position, int(dead)),
                    seen=float(seen or 0),
                )
            )
        return found

    async def leave(self, group: str) -> bool:
        """See `EventStore.leave`."""
        keys = self._keys("groups", f"g:{group}", f"p:{group}", f"r:{group}", f"t:{group}")
        there, epoch = await self._run(_LEAVE, keys, [group])
        cursor, match = b"0", f"{self._prefix}k:{group}:{epoch.decode()}:*"
        while there:
            cursor, found = await self._call("SCAN", cursor, "MATCH", match, "COUNT", 1000)
            if found:
                await self._call("UNLINK", *found)
            if int(cursor) == 0:
                break
        return bool(there)

    async def trim(self, before: float) -> int:
        """See `EventStore.trim`."""
        removed = 0
        self._tail.forget()
        while slice_ := int(await self._run(_TRIM, self._keys("log", "groups"), [before, self._prefix])):
            removed += slice_
        return removed

    async def scan(self, after: int, limit: int) -> list[Mark]:
        """See `RetainedStore.scan`."""
        rows = await self._run(_MARKS, self._keys("log"), [f"{max(after, 0) + 1}-0", limit])
        return [Mark(offset, topic.decode(), float(at), size) for offset, topic, at, size in rows]

    async def remove(self, offsets: Sequence[int]) -> int:
        """See `RetainedStore.remove`; a few hundred in one step."""
        removed = 0
        self._tail.forget()
        for start in range(0, len(offsets), 200):
            some = offsets[start : start + 200]
            removed += int(await self._run(_REMOVE, self._keys("log", "groups", "wake"), [self._prefix, *some]))
        return removed

    async def close(self) -> None:
        """See `EventStore.close`."""
        if self._closed:
            return
        self._closed = True
        self._wakeups.close()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._ear.close()
        await self._link.close()

    def _keys(self, *names: str) -> list[str]:
        return [self._prefix + name for name in names]

    def _seen(self, event: Event) -> str:
        digest = hashlib.blake2b(f"{event.source}\0{event.id}".encode(), digest_size=16).hexdigest()
        return f"{self._prefix}u:{digest}"

    async def _run(self, script: Script, keys: list[str], arguments: list[Any], group: str = "") -> Any:
        if self._checked is not self._link.address:
            await self._check()
        try:
            return await self._link.run(script, keys, arguments)
        except Refusal as error:
            raise self._refused(error, group) from error

    async def _call(self, *command: Argument) -> Any:
        if self._checked is not self._link.address:
            await self._check()
        try:
            return await self._link.command(*command)
        except Refusal as error:
            raise self._refused(error, "") from error

    async def _hear(self, *command: Argument) -> Any:
        try:
            return await self._ear.command(*command)
        except Refusal as error:
            raise self._refused(error, "") from error

    def _refused(self, error: Refusal, group: str) -> EventError:
        text = str(error)
        if "NOGROUP" in text:
            self._looked = -math.inf  # perhaps it went with the whole log: who asks where that ends is told which it is
            return UnknownGroup(f"expected a group that was joined, got {group!r}")
        if "READONLY" in text:
            self._link.leave()  # a replica since a failover; a new connection asks the name again
            self._ear.leave()
        return EventStoreUnavailable(f"redis: {text}")

    async def _check(self) -> None:
        """Look at the server's settings, once a server."""
        if self._closed:
            raise BusClosed("the event store is closed")
        settings: dict[str, str] = {}
        try:
            await self._link.command(b"GET", self._prefix + "last")  # in a cluster: to the node that has the events
            for name in ("maxmemory-policy", "appendonly", "appendfsync"):
                answer = await self._link.command(b"CONFIG", b"GET", name)
                settings.update({answer[0].decode(): answer[1].decode()} if answer else {})
        except Refusal as error:
            if str(error).split()[0] in _NOT_NOW:
                raise self._refused(error, "") from error
            settings = {"appendonly": "no"}  # no more is promised than is known
            _LOG.info("redis does not tell its configuration: maxmemory-policy has to be noeviction")
        policy = settings.get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            raise EventStoreUnavailable(
                f"redis would evict events: expected maxmemory-policy noeviction, got {policy}",
                hint="CONFIG SET maxmemory-policy noeviction",
            )
        if settings.get("appendonly") == "no":
            self._durability = "memory"
        else:
            self._durability = "fsync" if settings.get("appendfsync") == "always" else "process"
        self._checked = self._link.address

    def __repr__(self) -> str:
        return f"<RedisEventStore {self._prefix} [{'closed' if self._closed else 'open'}]>"


def _stored(row: list[Any]) -> Stored:
    return Stored(row[0], row[2].decode(), float(row[3]), Event.decode(row[4]))


def _lua_pattern(pattern: str) -> str:
    """Return a topic pattern as a Lua pattern.

    Example:
        >>> _lua_pattern("a-b.*.>")
        '^a%-b%.[%w_%-]+%.[%w_%-%.]+$'
    """
    words = {"*": r"[%w_%-]+", ">": r"[%w_%-%.]+"}
    parts = (words.get(word) or re.sub(r"([-$])", r"%\1", word) for word in pattern.split("."))
    return "^" + "%.".join(parts) + "$"
