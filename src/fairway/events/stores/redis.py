"""Events on Redis or Valkey: one stream, any number of processes.

Every step is a script (`redis_scripts`), so that its outcome is one of the contract's whatever other processes do. One
connection waits for news (`XREAD BLOCK` of two seconds, never for ever) on behalf of every waiter in this process.

After FLUSHALL the log is empty and offsets start again at 1; members of a group join it again from the start. After a
failover events that were not replicated are gone, as with every use of Redis.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fairway.events.errors import BusClosed, EventError, EventStoreUnavailable, PayloadTooLarge, UnknownGroup
from fairway.events.event import Event
from fairway.events.store import Claimed, Durability, Features, GroupInfo, Stored, dead_letter
from fairway.events.stores import redis_scripts as scripts
from fairway.events.stores.wakeups import Wakeups
from fairway.events.topic import check_group, check_topic, matcher

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_EVENT = 1024 * 1024  # bytes of one event in JSON
_REMEMBERED = 86_400  # seconds that a (source, id) is known
_BLOCK_MS = 2000
_PAUSE = 0.5  # seconds between two tries of the listener while Redis is away
_LOG = logging.getLogger("fairway.events")


class RedisEventStore:
    """See `EventStore`; any number of processes.

    Args:
        client: A `redis.asyncio.Redis` that returns bytes and speaks RESP2, used by this store alone.
        namespace: Prefix of every key, in braces: one slot of a cluster.
        skew: Seconds added to Redis's clock; tests pass time with it.
    """

    def __init__(self, client: Redis, *, namespace: str = "fairway", skew: float = 0.0) -> None:
        self._redis = client
        self._prefix = f"{{{namespace}:events}}:"
        self.skew = skew
        self._durability: Durability = "process"
        self._checked = False
        self._closed = False
        self._wakeups = Wakeups()
        self._running = 0  # calls under way: closing the client under one would leak its connection
        self._idle = asyncio.Event()
        self._idle.set()
        self._listener: asyncio.Task[None] | None = None
        self._scripts: dict[str, Any] = {}

    @classmethod
    def open(cls, url: str) -> RedisEventStore:
        """Open ``redis://host:port/db``; nothing is connected before the first call."""
        from redis.asyncio import Redis

        try:
            client = Redis.from_url(
                re.sub(r"^valkey", "redis", url),
                socket_timeout=10.0,
                socket_connect_timeout=5.0,
                health_check_interval=30,
                socket_keepalive=True,
                protocol=2,
            )
        except ValueError as error:
            raise EventError(f"expected a URL such as redis://127.0.0.1:6379/0: {error}") from None
        return cls(client)

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
        offsets: list[int] = await self._run(scripts.APPEND, keys, arguments)
        self._wakeups.wake()
        return offsets

    async def read(self, after: int, limit: int, pattern: str | None = None) -> list[Stored]:
        """See `EventStore.read`."""
        matches = None if pattern is None else matcher(pattern)
        found: list[Stored] = []
        while len(found) < limit:
            wanted = limit if matches is None else max(limit, 512)
            start = f"{max(after, 0) + 1}-0"
            rows = await self._call("XRANGE", self._prefix + "log", start, "+", "COUNT", wanted)
            for name, fields in rows:
                after = int(name.partition(b"-")[0])
                topic = fields[b"t"].decode()
                if len(found) < limit and (matches is None or matches(topic)):
                    found.append(Stored(after, topic, float(fields[b"a"]), Event.decode(fields[b"d"])))
            if len(rows) < wanted:
                break
        return found

    async def last(self) -> int:
        """See `EventStore.last`."""
        return int(await self._call("GET", self._prefix + "last") or 0)

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
            if rows and float(rows[0][1][b"a"]) < at:
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
        if await self.last() > after:
            return True
        if self._listener is None or self._listener.done():
            self._listener = asyncio.ensure_future(self._listen(after))
        await self._wakeups.wait(timeout, seen)
        return await self.last() > after

    async def _listen(self, after: int) -> None:
        log, wake = self._prefix + "log", self._prefix + "wake"
        seen: dict[str, str] = {log: f"{after}-0", wake: "0-0"}
        while not self._closed:
            try:
                # One entry is news enough; whoever waits reads what it wants, whole documents need not come twice.
                news = await self._call(
                    "XREAD", "BLOCK", _BLOCK_MS, "COUNT", 1, "STREAMS", log, wake, seen[log], seen[wake]
                )
                for stream, entries in news or ():
                    seen[stream.decode()] = entries[-1][0].decode()
                if news or len(self._wakeups):
                    seen[log] = f"{await self.last()}-0"  # less than before where the log was lost
            except EventStoreUnavailable as error:
                _LOG.warning("event store: %s; listening again in %.1f s", error, _PAUSE)
                await asyncio.sleep(_PAUSE)
                self._wakeups.wake()
                continue
            if news:
                self._wakeups.wake()

    async def join(self, group: str, pattern: str, after: int | None) -> None:
        """See `EventStore.join`."""
        check_group(group, pattern, after)
        keys = self._keys("groups", f"g:{group}", "last", "epoch")
        known = await self._run(scripts.JOIN, keys, [group, pattern, "" if after is None else after])
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
                rows, hopeless, more = await self._run(scripts.CLAIM, keys, arguments, group)
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
        due = await self._run(scripts.NEXT_DUE, self._keys(f"g:{group}", f"t:{group}"), [self.skew], group)
        return float(due) if due else None

    async def ack(self, group: str, offset: int, fence: int) -> bool:
        """See `EventStore.ack`."""
        return await self._settle(scripts.ACK, group, offset, fence)

    async def nack(self, group: str, offset: int, fence: int, delay: float, max_deliveries: int) -> bool:
        """See `EventStore.nack`."""
        if fence >= max_deliveries:
            return await self.kill(group, offset, fence, f"not acknowledged in {fence} deliveries")
        return await self._settle(scripts.NACK, group, offset, fence, delay)

    async def extend(self, group: str, offset: int, fence: int, lease: float) -> bool:
        """See `EventStore.extend`."""
        return await self._settle(scripts.EXTEND, group, offset, fence, lease)

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
        arguments = [self.skew, stored.offset, fence, prefix, _REMEMBERED, topic, letter.encode()]
        return bool(await self._run(scripts.KILL, keys, arguments, group))

    async def _settle(self, script: str, group: str, offset: int, fence: int, *more: float) -> bool:
        arguments = [self.skew, offset, fence, f"{self._prefix}k:{group}:", *more]
        return bool(await self._run(script, self._settling(group), arguments, group))

    def _settling(self, group: str) -> list[str]:
        return self._keys(f"g:{group}", f"p:{group}", f"r:{group}", f"t:{group}", "wake")

    async def groups(self) -> list[GroupInfo]:
        """See `EventStore.groups`: one call a group, each a moment of its own."""
        found = []
        last = await self.last()
        for name in sorted(member.decode() for member in await self._call("SMEMBERS", self._prefix + "groups")):
            pattern, cursor, dead = await self._call("HMGET", f"{self._prefix}g:{name}", "pattern", "cursor", "dead")
            if pattern is None:
                continue
            states = await self._call("HVALS", f"{self._prefix}p:{name}")
            leased = sum(state.split(b" ", 2)[1] == b"1" for state in states)
            position = int(cursor)
            found.append(
                GroupInfo(name, pattern.decode(), position, len(states) - leased, leased, last - position, int(dead))
            )
        return found

    async def leave(self, group: str) -> bool:
        """See `EventStore.leave`."""
        keys = self._keys("groups", f"g:{group}", f"p:{group}", f"r:{group}", f"t:{group}")
        there, epoch = await self._run(scripts.LEAVE, keys, [group])
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
        while slice_ := int(await self._run(scripts.TRIM, self._keys("log", "groups"), [before, self._prefix])):
            removed += slice_
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
        await self._idle.wait()
        await self._redis.aclose()

    def _keys(self, *names: str) -> list[str]:
        return [self._prefix + name for name in names]

    def _seen(self, event: Event) -> str:
        digest = hashlib.blake2b(f"{event.source}\0{event.id}".encode(), digest_size=16).hexdigest()
        return f"{self._prefix}u:{digest}"

    async def _run(self, script: str, keys: list[str], arguments: list[Any], group: str = "") -> Any:
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._redis.register_script(script)
        return await self._guard(lambda: registered(keys=keys, args=arguments), group)

    async def _call(self, *command: Any) -> Any:
        execute: Any = self._redis.execute_command  # untyped there
        return await self._guard(lambda: execute(*command), "")

    async def _guard(self, work: Any, group: str) -> Any:
        from redis.exceptions import ReadOnlyError, RedisError, ResponseError

        if self._closed:
            raise BusClosed("the event store is closed")
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        self._running += 1
        self._idle.clear()
        try:
            if not self._checked:
                await self._check()
            answer = await work()
        except ResponseError as error:
            if "NOGROUP" in str(error):
                raise UnknownGroup(f"expected a group that was joined, got {group!r}") from None
            if isinstance(error, ReadOnlyError):
                # After a failover these connections lead to what is a replica now; new ones ask the name again.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise EventStoreUnavailable(f"redis: {error}") from error
        except (RedisError, OSError) as error:
            raise EventStoreUnavailable(f"redis: {error}") from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        if task is not None and task.cancelling() > cancels:
            # The client swallows a cancel that arrives in one turn of the loop with the answer.
            raise asyncio.CancelledError
        return answer

    async def _check(self) -> None:
        from redis.exceptions import ResponseError

        try:
            settings = {
                name: (await self._redis.config_get(name)).get(name)
                for name in ("maxmemory-policy", "appendonly", "appendfsync")
            }
        except ResponseError:
            _LOG.info("redis does not tell its configuration: maxmemory-policy has to be noeviction")
            settings = {}
        policy = settings.get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            raise EventStoreUnavailable(
                f"redis would evict events: expected maxmemory-policy noeviction, got {policy}",
                hint="CONFIG SET maxmemory-policy noeviction",
            )
        if settings.get("appendonly") == "no":
            self._durability = "memory"
        elif settings.get("appendfsync") == "always":
            self._durability = "fsync"
        self._checked = True

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
