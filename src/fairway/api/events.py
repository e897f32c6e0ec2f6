"""Events over HTTP: publish as CloudEvents, subscribe as server-sent events that resume where they broke off."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api import event_groups
from fairway.api.operation import Query, operation, query_flag, query_int, query_values, reply
from fairway.api.problem import RequestError
from fairway.api.sse import ServerSentEvent, stream
from fairway.concurrency import background
from fairway.events.errors import SlowSubscriber
from fairway.events.event import Event, check_depth
from fairway.events.store import Stored
from fairway.events.topic import check_topic, matcher

if TYPE_CHECKING:
    from fairway.events.bus import EventBus

MAX_BATCH = 1000
_BATCH = 256
_PATIENCE = 15.0  # seconds that publishers wait for a client that asked for `block` and reads nothing
_ESCAPED = re.compile(r"\\(.)")
_POLICIES = ("block", "drop_oldest", "drop_newest", "disconnect")


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events, in the order they came in.

    Attributes:
        ids: Their ids; an event without one was given one.
        offsets: Where each lies in the log; a known (source, id) answers its first offset.
        durability: What they survive by now: memory, process, fsync, replicated.
    """

    ids: list[str]
    offsets: list[int]
    durability: str


def routes(bus: EventBus) -> list[BaseRoute]:
    """Return the routes of an event bus."""
    handlers = _Handlers(bus)
    return [
        Route("/v1/events", handlers.subscribe, methods=["GET"]),
        *event_groups.routes(bus),
        Route("/v1/events/{topic}", handlers.publish, methods=["POST"]),
    ]


class _Handlers:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    @operation(
        "Publish one event, or a batch, as CloudEvents",
        tag="events",
        body=dict[str, Any] | list[dict[str, Any]],
        response=Published,
        status=201,
        errors=(413, 415, 422, 503),
    )
    async def publish(self, request: Request) -> Response:
        topic = check_topic(request.path_params["topic"])
        events = _events(request, await request.body(), topic)
        offsets = await self._bus.publish_many(background(), [(topic, event) for event in events])
        durability = self._bus.store.features.durability
        return reply(Published(ids=[event.id for event in events], offsets=offsets, durability=durability), 201)

    @operation(
        "Subscribe to topics",
        tag="events",
        response=dict[str, Any],
        media_type="text/event-stream",
        query=(
            Query("topic", str, "Topic or pattern: `orders.*`, `orders.>`; absent is `>`, everything."),
            Query("after", int, "Replay what lies above this offset; the header Last-Event-ID counts before it."),
            Query("since", float, "Replay from this time on, in seconds since the epoch; negative is that long ago."),
            Query(
                "policy", str, "For a slow client: disconnect (default), drop_oldest, drop_newest, block (for 15 s)."
            ),
            Query("follow", bool, "Go on with events as they come (default); false ends at the newest one of now."),
            Query("buffer", int, "Events that may wait unread, 1 to 10000; default 1000."),
        ),
        errors=(422, 503),
    )
    async def subscribe(self, request: Request) -> Response:
        patterns = query_values(request, "topic") or [">"]
        if len(patterns) > 1:
            raise RequestError(
                f"Expected one topic or pattern, got {len(patterns)}.",
                field="topic",
                hint="Subscribe to a pattern such as orders.>, or open a stream for each.",
            )
        pattern = patterns[0]
        matcher(pattern)
        policy = request.query_params.get("policy", "disconnect")
        if policy not in _POLICIES:
            raise RequestError(f"Expected policy {', '.join(_POLICIES)}, got {policy[:80]!r}.", field="policy")
        after, since = _after(request), _since(request)
        if request.query_params.get("follow") is not None and not query_flag(request, "follow"):
            start = await self._bus.store.offset_before(since) if since is not None else after or 0
            return stream(self._history(pattern, start, await self._bus.store.last()))
        subscription = await self._bus.open_subscription(
            pattern,
            policy=policy,  # type: ignore[arg-type]  # one of the literals, checked above
            buffer=query_int(request, "buffer", 1000, low=1, high=10_000),
            after=after,
            since=since,
            patience=_PATIENCE,
        )

        async def events() -> AsyncIterator[ServerSentEvent]:
            try:
                async for stored in subscription:
                    yield _message(stored)
            except SlowSubscriber as error:
                data = {"code": error.code, "detail": error.message, "offset": error.offset}
                yield ServerSentEvent(data=data, event="fairway.disconnected", id=str(error.offset))

        return stream(events(), on_end=subscription.close)

    async def _history(self, pattern: str, after: int, end: int) -> AsyncIterator[ServerSentEvent]:
        while after < end and (batch := await self._bus.store.read(after, _BATCH, pattern)):
            for stored in batch:
                after = stored.offset
                if after <= end:
                    yield _message(stored)


def _message(stored: Stored) -> ServerSentEvent:
    data = {"topic": stored.topic, "offset": stored.offset, "event": msgspec.Raw(stored.event.encode(stored=True))}
    return ServerSentEvent(data=data, event=stored.event.type, id=str(stored.offset))


def _events(request: Request, body: bytes, topic: str) -> list[Event]:
    """Read structured, batched or binary CloudEvents; an event without a type gets the topic's name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "ce-type" in request.headers and not kind.startswith("application/cloudevents"):
        return [_binary(request, kind, body)]
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            f"Expected Content-Type application/cloudevents+json or application/json, got {kind[:80] or 'none'!r}.",
            code="request.unsupported",
        )
    document = _json(body)
    check_depth(body, around=isinstance(document, list))
    documents = document if isinstance(document, list) else [document]
    if not 1 <= len(documents) <= MAX_BATCH:
        raise RequestError(f"Expected 1 to {MAX_BATCH} events, got {len(documents)}.", field="$")
    events = []
    for number, one in enumerate(documents):
        if not isinstance(one, dict):
            raise RequestError(
                f"Expected event {number} to be an object, got {type(one).__name__}.", field=f"$[{number}]"
            )
        events.append(Event.decode({"type": topic, **one}))
    return events


def _binary(request: Request, kind: str, body: bytes) -> Event:
    """Read an event whose attributes are headers and whose data is the body, of any media type.

    Source: CloudEvents 1.0, HTTP Protocol Binding, 3.1.
    """
    document: dict[str, Any] = {
        name[3:]: _header(value) for name, value in request.headers.items() if name.startswith("ce-")
    }
    document.pop("data_base64", None)
    document["datacontenttype"] = request.headers.get("content-type") or None
    document["data"] = None
    if kind == "application/json" or kind.endswith("+json"):
        document["data"] = _json(body)
        check_depth(body)
    elif kind:
        document["data"] = _text(kind, body)
    elif body:
        raise RequestError("Expected the data's media type in Content-Type, got none.", code="request.unsupported")
    return Event.decode(document)


def _header(value: str) -> str:
    """Return an attribute's value: without quotes around it, %XX read as UTF-8."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    return unquote(value)


def _text(kind: str, body: bytes) -> str | bytes:
    """Return the body as text where its media type says that it is some and it is UTF-8, else as it is."""
    if kind.startswith("text/") or kind == "application/xml" or kind.endswith("+xml"):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body
    return body


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(f"The body is not JSON: {error}.", code="request.json") from None


def _after(request: Request) -> int | None:
    last = request.headers.get("last-event-id") or request.query_params.get("after")
    if last is None:
        return None
    if not last.isascii() or not last.isdigit() or len(last) > 18:
        raise RequestError(f"Expected an offset such as 42, got {last[:80]!r}.", field="after")
    return int(last)


def _since(request: Request) -> float | None:
    text = request.query_params.get("since")
    if text is None or "last-event-id" in request.headers or "after" in request.query_params:
        return None
    try:
        since = float(text)
    except ValueError:
        since = float("nan")
    if not abs(since) < 1e12:
        raise RequestError(f"Expected since to be seconds since the epoch, got {text[:80]!r}.", field="since")
    return since if since >= 0 else time.time() + since
