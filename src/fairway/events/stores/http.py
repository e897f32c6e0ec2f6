"""Events behind a Fairway daemon's HTTP API: what a hosted app uses, with ``FAIRWAY_URL`` and ``FAIRWAY_TOKEN``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from fairway.events import errors
from fairway.events.errors import BusClosed, DeliveryLost, EventError, EventStoreUnavailable
from fairway.events.event import Event
from fairway.events.store import Claimed, Durability, Features, GroupInfo, Stored

if TYPE_CHECKING:
    from aiohttp import ClientSession

_LONGEST_WAIT = 30.0
_TIMEOUT = 15.0
_ERRORS: dict[str, type[EventError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EventError)
}


class HttpEventStore:
    """See `EventStore`; any number of processes, one daemon.

    Args:
        url: ``http://host:port``.
        token: Bearer token; None takes ``FAIRWAY_TOKEN``.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url.rstrip("/")
        token = token if token is not None else os.environ.get("FAIRWAY_TOKEN")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._session: ClientSession | None = None
        self._durability: Durability = "process"
        self._changes = 0
        self._log_id = ""
        self._closed = False
        self._waiting: set[asyncio.Task[Any]] = set()

    @property
    def features(self) -> Features:
        """What the daemon's store guarantees, known after the first call."""
        return Features(name="http", durability=self._durability, shared=True, objects=False)

    @property
    def changes(self) -> int:
        """See `EventStore.changes`."""
        return self._changes

    async def append(self, records: Sequence[tuple[str, Event]]) -> list[int]:
        """See `EventStore.append`."""
        body = b",".join(b'{"topic":%s,"event":%s}' % (msgspec.json.encode(t), e.encode()) for t, e in records)
        answer = await self._call("POST", "/v1/events", b"[" + body + b"]")
        self._durability = answer["durability"]
        return list(answer["offsets"])

    async def read(self, after: int, limit: int, pattern: str | None = None) -> list[Stored]:
        """See `EventStore.read`."""
        found: list[Stored] = []
        while len(found) < limit:
            wanted = min(limit - len(found), 1000)
            rows = await self._get("/v1/events/log", after=after, limit=wanted, topic=pattern)
            found += [_stored(row) for row in rows]
            if not rows:  # fewer than wanted may mean that they are large
                break
            after = found[-1].offset
        return found

    async def last(self) -> int:
        """See `EventStore.last`."""
        return int((await self._position())["last"])

    @property
    def log_id(self) -> str:
        """See `EventStore.log_id`; that of the daemon's store."""
        return self._log_id

    async def offset_before(self, at: float) -> int:
        """See `EventStore.offset_before`."""
        return int((await self._position(before=max(0.0, at)))["before"])

    async def wait(self, after: int, timeout: float, changes: int | None = None) -> bool:
        """See `EventStore.wait`."""
        wait = min(timeout, _LONGEST_WAIT)
        waiting = asyncio.ensure_future(self._position(after=after, wait_s=wait, changes=changes))
        self._waiting.add(waiting)
        try:
            position = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if self._closed and waiting.cancelled():
                raise BusClosed("the event store is closed") from None
            waiting.cancel()
            raise
        finally:
            self._waiting.discard(waiting)
        return int(position["last"]) > after

    async def _position(self, **query: Any) -> Any:
        position = await self._get("/v1/events/position", **query)
        self._changes = position["changes"]
        self._durability = position["durability"]
        self._log_id = position.get("log_id", "")
        return position

    async def join(self, group: str, pattern: str, after: int | None) -> None:
        """See `EventStore.join`."""
        await self._post(group, "join", pattern=pattern, after=after)

    async def claim(self, group: str, limit: int, lease: float, max_deliveries: int) -> list[Claimed]:
        """See `EventStore.claim`."""
        limit = min(limit, 1000)
        answer = await self._post(group, "claim", limit=limit, lease_s=lease, max_deliveries=max_deliveries)
        return [Claimed(_stored(row), row["fence"]) for row in answer["events"]]

    async def next_due(self, group: str) -> float | None:
        """See `EventStore.next_due`."""
        due: float | None = (await self._get(f"/v1/events/groups/{quote(group, safe='')}"))["next_due_s"]
        return due

    async def ack(self, group: str, offset: int, fence: int) -> bool:
        """See `EventStore.ack`."""
        return await self._settle(group, "ack", offset=offset, fence=fence)

    async def nack(self, group: str, offset: int, fence: int, delay: float, max_deliveries: int) -> bool:
        """See `EventStore.nack`."""
        more = {"delay_s": max(0.0, delay), "max_deliveries": max_deliveries}
        return await self._settle(group, "nack", offset=offset, fence=fence, **more)

    async def extend(self, group: str, offset: int, fence: int, lease: float) -> bool:
        """See `EventStore.extend`."""
        return await self._settle(group, "extend", offset=offset, fence=fence, lease_s=lease)

    async def kill(self, group: str, offset: int, fence: int, reason: str) -> bool:
        """See `EventStore.kill`."""
        return await self._settle(group, "kill", offset=offset, fence=fence, reason=reason)

    async def groups(self) -> list[GroupInfo]:
        """See `EventStore.groups`."""
        return [GroupInfo(**group) for group in await self._get("/v1/events/groups")]

    async def leave(self, group: str) -> bool:
        """See `EventStore.leave`."""
        try:
            await self._call("DELETE", f"/v1/events/groups/{quote(group, safe='')}")
        except errors.UnknownGroup:
            return False
        return True

    async def trim(self, before: float) -> int:
        """See `EventStore.trim`; for administrators."""
        answer = await self._call("POST", "/v1/event-log:trim", msgspec.json.encode({"before": before}))
        return int(answer["removed"])

    async def close(self) -> None:
        """See `EventStore.close`."""
        self._closed = True
        for waiting in self._waiting:
            waiting.cancel()
        if self._waiting:
            await asyncio.wait(set(self._waiting))
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _settle(self, group: str, step: str, **body: Any) -> bool:
        try:
            await self._post(group, step, **body)
        except DeliveryLost:
            return False
        return True

    async def _get(self, path: str, **query: Any) -> Any:
        told = {name: value for name, value in query.items() if value is not None}
        return await self._call("GET", f"{path}?{urlencode(told)}" if told else path)

    async def _post(self, group: str, step: str, **body: Any) -> Any:
        path = f"/v1/events/groups/{quote(group, safe='')}:{step}"
        return await self._call("POST", path, msgspec.json.encode(body))

    async def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        import aiohttp
        from yarl import URL

        if self._closed:
            raise BusClosed("the event store is closed")
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT + _LONGEST_WAIT, connect=_TIMEOUT)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            url = URL(self._url + path, encoded=True)
            async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
                data = await answer.read()
                status = answer.status
        except RuntimeError as error:
            if self._closed:  # meanwhile
                raise BusClosed("the event store is closed") from error
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EventStoreUnavailable(f"{self._url}: {type(error).__name__}: {error}") from error
        if status >= 400:
            raise _problem(status, data, self._url)
        return msgspec.json.decode(data) if data else None

    def __repr__(self) -> str:
        return f"<HttpEventStore {self._url} [{'closed' if self._closed else 'open'}]>"


def _problem(status: int, data: bytes, url: str) -> EventError:
    try:
        problem = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    detail, code = problem.get("detail", f"{url} answered {status}"), problem.get("code", "")
    kind = _ERRORS.get(code)
    if kind is None and (status >= 500 or status == 429):
        kind = EventStoreUnavailable
    if kind is None:
        return EventError(f"{url} answered {status}: {detail}", hint=problem.get("hint"))
    if kind in (errors.InvalidEvent, errors.SlowSubscriber):
        return errors.InvalidEvent(detail, field=problem.get("field", ""), hint=problem.get("hint"))
    return kind(detail)


def _stored(row: dict[str, Any]) -> Stored:
    return Stored(row["offset"], row["topic"], row["at"], Event.decode(row["event"]))
