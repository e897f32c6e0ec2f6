"""CloudEvents in and out, the handlers' registry and the channel publisher."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import pytest

from fairway.concurrency import Chan, background, with_cancel, with_timeout
from fairway.events import ChannelEventPublisher, Event, EventHandlers, EventPublisher
from fairway.events.errors import BusClosed, EventError, InvalidEvent, InvalidEventData, UnknownEventType
from fairway.events.publishers.store import RedisStreamsEventPublisher, StoreEventPublisher

CTX = background()
WHEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_an_event_is_cloudevents_on_the_wire_and_comes_back() -> None:
    event = Event("t", {"a": 1}, WHEN, "i", "s", "sub", "key", {"ext": "x"})
    assert msgspec.json.decode(event.encode()) == {
        "specversion": "1.0",
        "id": "i",
        "source": "s",
        "type": "t",
        "time": "2026-01-31T12:00:00Z",
        "datacontenttype": "application/json",
        "subject": "sub",
        "partitionkey": "key",
        "ext": "x",
        "data": {"a": 1},
    }
    assert Event.decode(event.encode()) == event


def test_what_is_left_out_gets_a_default() -> None:
    event = Event.decode(b'{"type": "t"}')
    assert (event.source, event.data, len(event.id)) == ("fairway", None, 32)
    assert event.time.tzinfo is not None
    assert Event.decode(b'{"type": "t", "data_base64": "aGk="}').data == b"hi"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"{}", "type"),
        (b'{"type": ""}', "type"),
        (b'{"type": 5}', "type"),
        (b'{"type": "a\\nb"}', "type"),
        (b'{"type": "t", "specversion": "0.3"}', "specversion"),
        (b'{"type": "t", "id": ""}', "id"),
        (b'{"type": "t", "id": 5}', "id"),
        (b'{"type": "t", "time": "yesterday"}', "time"),
        (b'{"type": "t", "time": "2026-01-31T12:00:00"}', "time"),
        (b'{"type": "t", "data_base64": "?"}', "data_base64"),
        (b'{"type": "t", "Upper": "x"}', "Upper"),
        (b'{"type": "t", "datacontenttype": "xml"}', "datacontenttype"),
        (b'{"type": "t", "datacontenttype": 5}', "datacontenttype"),
        (b'{"type": "t", "datacontenttype": "a/b;\\n"}', "datacontenttype"),
        (b'{"type": "' + b"t" * 2000 + b'"}', "type"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_bad_document_names_the_field(document: bytes, field: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        Event.decode(document)
    assert caught.value.field == field


def test_data_that_json_cannot_carry_names_the_event() -> None:
    with pytest.raises(InvalidEvent, match="event 't'") as caught:
        Event("t", object()).encode()
    assert caught.value.field == "data"


@dataclass
class Site:
    id: int


async def test_handlers_get_typed_data() -> None:
    handlers, seen = EventHandlers(), []

    @handlers.on("site_created", "site_updated")
    async def typed(ctx, event, data: Site) -> None:
        seen.append((event.type, data))

    @handlers.on("bare")
    async def bare(ctx, event) -> None:
        seen.append((event.type, None))

    site = Site(1)
    await handlers.handle(CTX, Event("site_created", {"id": 1}))
    await handlers.handle(CTX, Event("site_updated", site))
    await handlers.handle(CTX, Event("bare"))
    assert seen == [("site_created", site), ("site_updated", site), ("bare", None)]
    assert seen[1][1] is site
    with pytest.raises(InvalidEventData, match="Expected `int`, got `str`"):
        await handlers.handle(CTX, Event("site_created", {"id": "x"}))
    with pytest.raises(UnknownEventType, match="did you mean 'site_created'"):
        await handlers.handle(CTX, Event("site_create"))
    assert repr(handlers) == "<EventHandlers [bare, site_created, site_updated]>"


def test_a_handler_of_the_wrong_shape_and_a_second_one_are_refused() -> None:
    handlers = EventHandlers()

    async def good(ctx, event) -> None: ...

    handlers.on("a")(good)
    with pytest.raises(EventError, match="second"):
        handlers.on("a")(good)
    with pytest.raises(EventError, match="at least one"):
        handlers.on()
    with pytest.raises(EventError, match="async def"):
        handlers.on("b")(lambda ctx, event: None)

    async def short(ctx) -> None: ...

    with pytest.raises(EventError, match="async def"):
        handlers.on("b")(short)


async def test_the_channel_publisher_of_the_guide() -> None:
    publisher, handlers, done = ChannelEventPublisher(2), EventHandlers(), Chan[int](10)
    assert isinstance(publisher, EventPublisher)

    @handlers.on("n")
    async def number(ctx, event, data: int) -> None:
        if data == 2:
            raise ValueError("two")
        await done.send(data)

    failures: list[tuple[object, str]] = []
    publisher._on_error = lambda event, error: failures.append((event.data, str(error)))
    async with with_cancel(CTX) as ctx:
        publisher.start_workers(ctx, 3, handlers)
        for n in range(5):
            await publisher.publish(ctx, Event("n", n))
        assert sorted([await done.recv() for _ in range(4)]) == [0, 1, 3, 4]
        publisher.close()
        await publisher.wait()
    assert failures == [(2, "two")]
    assert publisher.statistics() == {"buffered": 0, "buffer_size": 2, "handled": 4, "failed": 1}
    with pytest.raises(BusClosed):
        await publisher.publish(CTX, Event("n", 1))


async def test_a_full_channel_makes_the_publisher_wait_until_its_context_ends() -> None:
    publisher = ChannelEventPublisher(1)
    await publisher.publish(CTX, Event("n"))
    async with with_timeout(CTX, 0.0) as ctx:
        with pytest.raises(TimeoutError):
            await publisher.publish(ctx, Event("n"))
    async with with_cancel(CTX) as ctx:
        waiting = asyncio.ensure_future(publisher.publish(ctx, Event("n")))
        await asyncio.sleep(0)
        ctx.cancel()
        with pytest.raises(type(ctx.err())):
            await waiting
    assert publisher.statistics()["buffered"] == 1


async def test_workers_stop_when_their_context_ends() -> None:
    publisher = ChannelEventPublisher(1)
    async with with_cancel(CTX) as ctx:
        publisher.start_workers(ctx, 2, EventHandlers())
        ctx.cancel()
        await publisher.wait()


async def test_the_store_publisher_appends_under_the_type_or_a_fixed_topic() -> None:
    publisher = StoreEventPublisher("memory://")
    await publisher.publish(CTX, Event("made", 1))
    fixed = StoreEventPublisher(publisher.store, topic="fixed")
    await fixed.publish(CTX, Event("made", 2))
    assert [stored.topic for stored in await publisher.store.read(0, 9)] == ["made", "fixed"]
    await publisher.close()


def test_the_redis_publisher_wants_a_redis_url_and_does_not_print_a_password() -> None:
    with pytest.raises(EventError, match="redis://") as caught:
        RedisStreamsEventPublisher("http://user:secret@host/0")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (b'{"type":"t","data":{"a":1}}', None),
        (b'{"type":"t","datacontenttype":"application/json","data":{"a":1}}', None),
        (b'{"type":"t","datacontenttype":"application/vnd.api+json","data":{"a":1}}', "application/vnd.api+json"),
        (b'{"type":"t","datacontenttype":"application/xml","data":"<a/>"}', "application/xml"),
        (b'{"type":"t","datacontenttype":"application/json","data_base64":"e30="}', "application/json"),
        (b'{"type":"t","data_base64":"e30="}', None),
    ],
)
def test_the_media_type_of_the_data_stays(document: bytes, kind: str | None) -> None:
    event = Event.decode(document)
    assert event.content_type == kind
    assert Event.decode(event.encode()) == event
    told = msgspec.json.decode(document).get("datacontenttype")
    assert told is None or msgspec.json.decode(event.encode())["datacontenttype"] == told


def test_binary_data_is_binary_again_on_the_other_side() -> None:
    document = Event("t", b"\x00\xff", id="1").encode()
    assert b'"data_base64":"AP8="' in document
    assert b"datacontenttype" not in document
    assert Event.decode(document).data == b"\x00\xff"
    assert Event.decode(Event.decode(document).encode()).data == b"\x00\xff"


@pytest.mark.parametrize(
    "fields",
    [{"time": "now"}, {"extensions": {"ext": 5}}, {"extensions": {"ext": "x" * 1025}}],
    ids=["time", "extension-kind", "extension-length"],
)
def test_attributes_of_the_wrong_kind_are_refused_by_name(fields) -> None:
    with pytest.raises(InvalidEvent) as caught:
        Event("t", **fields).encode()
    assert caught.value.field in ("time", "ext")


async def test_a_publisher_that_waits_for_room_when_the_channel_closes_is_told_so() -> None:
    publisher = ChannelEventPublisher(1)
    await publisher.publish(background(), Event("t", 1))
    waiting = asyncio.ensure_future(publisher.publish(background(), Event("t", 2)))
    for _ in range(5):
        await asyncio.sleep(0)
    publisher.close()
    with pytest.raises(BusClosed, match="meanwhile"):
        await waiting


def nested(levels: int) -> list[object]:
    found: list[object] = []
    for _ in range(levels - 1):
        found = [found]
    return found


async def test_one_event_nested_too_deep_for_its_readers_is_refused_and_holds_nobody_up() -> None:
    deepest = Event("t", {"in": nested(488), "text": "]" * 2_000, "list": [[]] * 600})
    assert Event.decode(deepest.encode()).data == deepest.data
    for data in ({"in": nested(489)}, nested(900)):
        with pytest.raises(InvalidEvent, match="at most 490 levels") as caught:
            Event("t", data).encode()
        assert caught.value.field == "data"
