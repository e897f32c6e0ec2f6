"""The HTTP store keeps the contract of event stores: the daemon's API spells it whole."""

from __future__ import annotations

import asyncio

import pytest

from fairway.api.app import Services, create_app
from fairway.api.server import serve
from fairway.concurrency import Chan, background, with_cancel
from fairway.events import Event, EventBus, EventHandlers
from fairway.events.errors import EventError, EventStoreUnavailable
from fairway.events.stores.http import HttpEventStore
from fairway.events.stores.memory import MemoryEventStore
from fairway.testing.event_stores import EventStoreConformance

pytestmark = pytest.mark.integration


@pytest.fixture
async def daemon(fake_clock):
    """A bus behind the API, with a token."""
    async with EventBus(MemoryEventStore(clock=fake_clock)) as bus:
        app = create_app(Services(events=bus, token="t" * 32))
        async with serve(app, host="127.0.0.1", port=0) as (host, port):
            yield f"http://{host}:{port}"


class TestHttpEventStore(EventStoreConformance):
    @pytest.fixture
    async def store(self, daemon):
        store = HttpEventStore(daemon, "t" * 32)
        yield store
        await store.close()


async def test_a_bus_in_another_process_handles_what_is_published_here(daemon) -> None:
    seen, handlers = Chan[int](10), EventHandlers()

    @handlers.on("made")
    async def made(ctx, event, data: int) -> None:
        await seen.send(data)

    async with EventBus(HttpEventStore(daemon, "t" * 32)) as bus, with_cancel(background()) as ctx:
        member = asyncio.ensure_future(bus.handle(ctx, "made", handlers, group="g", after=0))
        async with bus.subscribe("made") as live:
            await bus.publish(ctx, Event("made", 1))
            assert await seen.recv() == 1
            assert (await live.channel.recv()).event.data == 1
        ctx.cancel()
        await member


async def test_a_wrong_token_and_nobody_there_fail_loudly(daemon) -> None:
    wrong = HttpEventStore(daemon, "x" * 32)
    with pytest.raises(EventError, match=r"401.*token") as caught:
        await wrong.append([("a", Event("t"))])
    assert caught.value.code == "events.error"
    await wrong.close()
    nobody = HttpEventStore("http://127.0.0.1:1")
    with pytest.raises(EventStoreUnavailable):
        await nobody.last()
    await nobody.close()
