"""Consumer groups over HTTP, so that a consumer in any language needs nothing but HTTP: join, claim, settle by fence.

It is the contract of `fairway.events.store` spelled as endpoints; `fairway.events.stores.http` is its Python client.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api.operation import Query, operation, query_int, read, reply
from fairway.api.problem import RequestError
from fairway.concurrency import background
from fairway.events.errors import DeliveryLost, UnknownGroup
from fairway.events.event import Event, check_depth
from fairway.events.store import Stored
from fairway.events.topic import SYSTEM_GROUPS, check_topic

if TYPE_CHECKING:
    from fairway.events.bus import EventBus

MAX_WAIT_S = 60.0
MAX_CLAIM = 1000
_LONGEST_LEASE = 86_400.0
_LARGEST = 2**63 - 1


class StoredView(msgspec.Struct, frozen=True, kw_only=True):
    """An event in the log; ``event`` is CloudEvents, ``at`` seconds since the epoch."""

    offset: int
    topic: str
    at: float
    event: Any


class ClaimedView(StoredView, frozen=True, kw_only=True):
    """An event leased to the caller: `fence` settles it."""

    fence: int


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What was claimed; empty where nothing came. ``next_due_s``: seconds until a lease or delay of the group ends."""

    events: list[ClaimedView]
    next_due_s: float | None = None


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The newest offset, the number that moves with groups, what is durable; ``before`` where a time was asked for.

    ``log_id``: which log it is; another one than before means that it was lost and begun again, with new offsets.
    """

    last: int
    log_id: str
    changes: int
    durability: str
    before: int | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One CloudEvent and its topic."""

    topic: str
    event: dict[str, Any]


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """Offsets in the order of the records."""

    offsets: list[int]
    durability: str


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topics of a group; a new group reads from above ``after``, null for now on."""

    pattern: str
    after: int | None = None


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``limit`` events for ``lease_s`` seconds, waited for up to ``wait_s`` (60 at most)."""

    limit: int = 1
    lease_s: float = 30.0
    max_deliveries: int = 5
    wait_s: float = 0.0


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One claimed event; ``delay_s`` and ``max_deliveries`` for nack, ``lease_s`` for extend, ``reason`` for kill."""

    offset: int
    fence: int
    delay_s: float = 0.0
    max_deliveries: int = 5
    lease_s: float = 30.0
    reason: str = ""


class TrimRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Remove what was appended before this time, in seconds since the epoch."""

    before: float


class Trimmed(msgspec.Struct, frozen=True, kw_only=True):
    """How many events were removed."""

    removed: int


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds until a lease or delay of the group ends; null for none."""

    next_due_s: float | None


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group: see `fairway.events.store.GroupInfo`."""

    name: str
    pattern: str
    cursor: int
    waiting: int
    leased: int
    lag: int
    dead: int
    seen: float = 0.0


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters were published again."""

    replayed: int


def routes(bus: EventBus) -> list[BaseRoute]:
    """Return the routes of consumer groups and of the log."""
    handlers = _Handlers(bus)
    group = "/v1/events/groups/{group}"
    return [
        Route("/v1/events", handlers.append, methods=["POST"]),
        Route("/v1/events/log", handlers.log, methods=["GET"]),
        Route("/v1/events/position", handlers.position, methods=["GET"]),
        Route("/v1/events/groups", handlers.groups, methods=["GET"]),
        Route(group + ":join", handlers.join, methods=["POST"]),
        Route(group + ":claim", handlers.claim, methods=["POST"]),
        Route(group + ":ack", handlers.ack, methods=["POST"]),
        Route(group + ":nack", handlers.nack, methods=["POST"]),
        Route(group + ":extend", handlers.extend, methods=["POST"]),
        Route(group + ":kill", handlers.kill, methods=["POST"]),
        Route(group + ":replay", handlers.replay, methods=["POST"]),
        Route(group, handlers.leave, methods=["DELETE"]),
        Route(group, handlers.group, methods=["GET"]),
        Route("/v1/event-log:trim", handlers.trim, methods=["POST"]),
    ]


class _Handlers:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._store = bus.store

    @operation(
        "Publish to several topics, all or none",
        tag="events",
        body=list[Record],
        response=Appended,
        status=201,
        errors=(413, 415, 422, 503),
    )
    async def append(self, request: Request) -> Response:
        records = await read(request, list[Record])
        check_depth(await request.body(), around=2)
        pairs = [(record.topic, Event.decode(record.event)) for record in records]
        offsets = await self._bus.publish_many(background(), pairs)
        return reply(Appended(offsets=offsets, durability=self._store.features.durability), 201)

    @operation(
        "Read the log",
        tag="events",
        response=list[StoredView],
        query=(
            Query("after", int, "Offsets above this one."),
            Query("limit", int, "At most so many, 1 to 1000; default 100."),
            Query("topic", str, "Topic or pattern; absent is all, system topics too."),
        ),
        errors=(422, 503),
    )
    async def log(self, request: Request) -> Response:
        limit = query_int(request, "limit", 100, low=1, high=MAX_CLAIM)
        after = query_int(request, "after", 0, high=10**12 - 1)
        stored = await self._store.read(after, limit, request.query_params.get("topic"))
        return reply([_stored(one) for one in stored])

    @operation(
        "The newest offset, waited for",
        tag="events",
        response=Position,
        query=(
            Query("after", int, "Wait until an offset above this one exists."),
            Query("wait_s", float, "Wait at most so long, 0 to 60."),
            Query("changes", int, "Wait no longer once `changes` is another number than this."),
            Query("before", float, "Also tell the newest offset before this time, in seconds since the epoch."),
        ),
        errors=(422, 503),
    )
    async def position(self, request: Request) -> Response:
        wait = _seconds(request, "wait_s", MAX_WAIT_S)
        if wait:
            after = query_int(request, "after", 0, high=10**12 - 1)
            changes = request.query_params.get("changes")
            seen = None if changes is None else query_int(request, "changes", 0, high=10**12 - 1)
            await self._store.wait(after, wait, seen)
        before = None
        if "before" in request.query_params:
            before = await self._store.offset_before(_seconds(request, "before", 1e12))
        last = await self._store.last()
        durability = self._store.features.durability
        return reply(
            Position(
                last=last,
                log_id=self._store.log_id,
                changes=self._store.changes,
                durability=durability,
                before=before,
            )
        )

    @operation("List the consumer groups", tag="events", response=list[GroupView], errors=(503,))
    async def groups(self, request: Request) -> Response:
        return reply([GroupView(**group._asdict()) for group in await self._store.groups()])

    @operation("When a group's next lease or delay ends", tag="events", response=Due, errors=(404, 503))
    async def group(self, request: Request) -> Response:
        return reply(Due(next_due_s=await self._store.next_due(request.path_params["group"])))

    @operation("Join a group, creating it", tag="events", body=JoinRequest, status=204, errors=(403, 415, 422, 503))
    async def join(self, request: Request) -> Response:
        asked = await read(request, JoinRequest)
        if asked.after is not None:
            _within("after", asked.after, 0, _LARGEST)
        await self._store.join(_group(request), asked.pattern, asked.after)
        return reply(None)

    @operation(
        "Claim events of a group", tag="events", body=ClaimRequest, response=Claims, errors=(403, 404, 415, 422, 503)
    )
    async def claim(self, request: Request) -> Response:
        asked = await read(request, ClaimRequest)
        _within("limit", asked.limit, 1, MAX_CLAIM)
        _within("lease_s", asked.lease_s, 0.001, _LONGEST_LEASE)
        _within("max_deliveries", asked.max_deliveries, 1, 1_000_000)
        _within("wait_s", asked.wait_s, 0, MAX_WAIT_S)
        group = _group(request)
        until = time.monotonic() + asked.wait_s
        while True:
            changes, last = self._store.changes, await self._store.last()
            if await request.is_disconnected():
                return reply(Claims(events=[]))  # nobody would settle what is claimed now
            claimed = await self._store.claim(group, asked.limit, asked.lease_s, asked.max_deliveries)
            due = await self._store.next_due(group)
            left = until - time.monotonic()
            if claimed or left <= 0:
                break
            await self._store.wait(last, left if due is None else min(left, due), changes)
        events = [ClaimedView(**msgspec.structs.asdict(_stored(one.stored)), fence=one.fence) for one in claimed]
        return reply(Claims(events=events, next_due_s=due))

    @operation(
        "Acknowledge an event", tag="events", body=SettleRequest, status=204, errors=(403, 404, 409, 415, 422, 503)
    )
    async def ack(self, request: Request) -> Response:
        asked, group = await _settling(request), _group(request)
        return _settled(await self._store.ack(group, asked.offset, asked.fence), group, asked)

    @operation(
        "Give an event back", tag="events", body=SettleRequest, status=204, errors=(403, 404, 409, 415, 422, 503)
    )
    async def nack(self, request: Request) -> Response:
        asked, group = await _settling(request), _group(request)
        _within("delay_s", asked.delay_s, 0, _LONGEST_LEASE)
        done = await self._store.nack(group, asked.offset, asked.fence, asked.delay_s, asked.max_deliveries)
        return _settled(done, group, asked)

    @operation(
        "Keep an event longer", tag="events", body=SettleRequest, status=204, errors=(403, 404, 409, 415, 422, 503)
    )
    async def extend(self, request: Request) -> Response:
        asked, group = await _settling(request), _group(request)
        _within("lease_s", asked.lease_s, 0.001, _LONGEST_LEASE)
        return _settled(await self._store.extend(group, asked.offset, asked.fence, asked.lease_s), group, asked)

    @operation(
        "Dead-letter an event", tag="events", body=SettleRequest, status=204, errors=(403, 404, 409, 415, 422, 503)
    )
    async def kill(self, request: Request) -> Response:
        asked, group = await _settling(request), _group(request)
        return _settled(await self._store.kill(group, asked.offset, asked.fence, asked.reason), group, asked)

    @operation("Publish a group's dead letters again", tag="events", response=Replayed, errors=(404, 422, 503))
    async def replay(self, request: Request) -> Response:
        return reply(Replayed(replayed=await self._bus.replay_dead(background(), request.path_params["group"])))

    @operation("Delete a consumer group", tag="events", status=204, errors=(403, 404, 422, 503))
    async def leave(self, request: Request) -> Response:
        group = _group(request)
        if not await self._store.leave(check_topic(group)):
            raise UnknownGroup(f"expected a consumer group, got {group!r}")
        return reply(None)

    @operation("Remove old events", tag="events", body=TrimRequest, response=Trimmed, errors=(415, 422, 503))
    async def trim(self, request: Request) -> Response:
        return reply(Trimmed(removed=await self._store.trim((await read(request, TrimRequest)).before)))


def _group(request: Request) -> str:
    """Return the group of the path; the platform's own are for the platform alone, whoever asks."""
    name: str = request.path_params["group"]
    if name.startswith(SYSTEM_GROUPS):
        raise RequestError(
            f"Groups that begin with {SYSTEM_GROUPS} are the platform's own, got {name[:80]!r}.", code="auth.forbidden"
        )
    return name


async def _settling(request: Request) -> SettleRequest:
    asked = await read(request, SettleRequest)
    _within("offset", asked.offset, 0, _LARGEST)
    _within("fence", asked.fence, 0, _LARGEST)
    _within("max_deliveries", asked.max_deliveries, 1, _LARGEST)
    return asked


def _stored(stored: Stored) -> StoredView:
    event = msgspec.Raw(stored.event.encode(stored=True))
    return StoredView(offset=stored.offset, topic=stored.topic, at=stored.at, event=event)


def _settled(done: bool, group: str, asked: SettleRequest) -> Response:
    if not done:
        raise DeliveryLost(
            f"group {group!r} does not hold offset {asked.offset} under fence {asked.fence}: "
            "it was settled, or its lease ran out"
        )
    return reply(None)


def _within(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        got = str(value)[:40]  # an integer of any length may come
        raise RequestError(f"Expected {field} from {low:g} to {high:g}, got {got}.", field=f"$.{field}")


def _seconds(request: Request, name: str, most: float) -> float:
    text = request.query_params.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= most:
        raise RequestError(f"Expected {name} from 0 to {most:g} seconds, got {text[:80]!r}.", field=name)
    return value
