"""The bus: order, replay, the four policies, groups with handlers."""

from __future__ import annotations

import asyncio

import pytest

from fairway.concurrency import Chan, background, with_cancel, with_timeout
from fairway.events import Event, EventBus, EventHandlers, GroupOptions
from fairway.events.errors import BusClosed, EventError, InvalidTopic, SlowSubscriber
from fairway.events.stores.memory import MemoryEventStore

CTX = background()


async def publish(bus: EventBus, *numbers: int, topic: str = "t") -> None:
    for number in numbers:
        await bus.publish(CTX, Event("made", number), topic=topic)


async def take(channel, count: int) -> list[object]:
    return [(await channel.recv()).event.data for _ in range(count)]


async def test_every_subscriber_sees_every_matching_event_in_one_order() -> None:
    async with EventBus() as bus, bus.subscribe("t") as one, bus.subscribe(">") as two, bus.subscribe("u") as three:
        await publish(bus, 1, 2, 3)
        await publish(bus, 4, topic="u")
        assert await take(one.channel, 3) == [1, 2, 3]
        assert await take(two.channel, 4) == [1, 2, 3, 4]
        assert await take(three.channel, 1) == [4]


async def test_the_topic_is_the_type_unless_one_is_given() -> None:
    async with EventBus() as bus, bus.subscribe("made") as made:
        await bus.publish(CTX, Event("made", 1))
        assert (await made.channel.recv()).topic == "made"


async def test_replay_from_an_offset_joins_the_live_feed_without_gap_or_repeat() -> None:
    async with EventBus() as bus:
        await publish(bus, *range(1500))
        async with bus.subscribe("t", after=10, buffer=2000) as late:
            for number in range(1500, 1600):
                await publish(bus, number)
                await asyncio.sleep(0)
            assert await take(late.channel, 1590) == list(range(10, 1600))


async def test_replay_from_a_time_and_from_an_offset_that_does_not_exist_yet(fake_clock) -> None:
    async with EventBus(MemoryEventStore(clock=fake_clock)) as bus:
        await publish(bus, 1)
        await fake_clock.advance(100)
        await publish(bus, 2)
        async with bus.subscribe("t", since=fake_clock.time() - 50) as recent, bus.subscribe("t", after=10**6) as lost:
            await publish(bus, 3)
            assert await take(recent.channel, 2) == [2, 3]
            assert await take(lost.channel, 1) == [3]


async def test_policy_block_makes_the_publisher_wait_and_loses_nothing() -> None:
    async with EventBus() as bus, bus.subscribe("t", policy="block", buffer=2) as slow:
        publishing = asyncio.ensure_future(publish(bus, 1, 2, 3, 4, 5))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not publishing.done()
        assert await bus.store.last() == 3  # two buffered, one in the hands of the publisher that waits
        assert await take(slow.channel, 5) == [1, 2, 3, 4, 5]
        await publishing
        assert slow.dropped == 0


async def test_a_blocked_publisher_is_freed_when_the_subscriber_leaves_and_when_its_context_ends() -> None:
    async with EventBus() as bus:
        async with bus.subscribe("t", policy="block", buffer=1):
            publishing = asyncio.ensure_future(publish(bus, 1, 2))
            for _ in range(50):
                await asyncio.sleep(0)
            assert not publishing.done()
        await publishing
        async with bus.subscribe("t", policy="block", buffer=1), with_cancel(CTX) as ctx:
            await bus.publish(ctx, Event("made"), topic="t")
            waiting = asyncio.ensure_future(bus.publish(ctx, Event("made"), topic="t"))
            for _ in range(50):
                await asyncio.sleep(0)
            ctx.cancel()
            with pytest.raises(type(ctx.err())):
                await waiting


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [4, 5]), ("drop_newest", [1, 2])])
async def test_policies_that_drop(policy, kept) -> None:
    async with EventBus() as bus, bus.subscribe("t", policy=policy, buffer=2) as slow, bus.subscribe("t") as fast:
        await publish(bus, 1, 2, 3, 4, 5)
        assert await take(fast.channel, 5) == [1, 2, 3, 4, 5]
        assert await take(slow.channel, 2) == kept
        assert slow.dropped == 3


async def test_policy_disconnect_says_where_to_resume() -> None:
    async with EventBus() as bus, bus.subscribe("t", policy="disconnect", buffer=2) as slow:
        await publish(bus, 1, 2, 3)
        while not slow.closed:
            await asyncio.sleep(0)
        assert await take(slow.channel, 2) == [1, 2]
        with pytest.raises(SlowSubscriber) as caught:
            await anext(aiter(slow))
        async with bus.subscribe("t", after=caught.value.offset) as again:
            assert await take(again.channel, 1) == [3]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"pattern": "a b"}, InvalidTopic), ({"policy": "x"}, EventError), ({"buffer": 0}, EventError)],
)
async def test_a_bad_subscription_is_refused(arguments, error) -> None:
    async with EventBus() as bus:
        with pytest.raises(error):
            async with bus.subscribe(**{"pattern": "t", **arguments}):
                raise AssertionError("not reached")


async def test_a_closed_bus_says_so_and_ends_its_subscribers() -> None:
    bus = EventBus()
    with pytest.raises(BusClosed):
        await bus.publish(CTX, Event("made"))
    async with bus, bus.subscribe("t") as one:
        await bus.close()
        assert [stored async for stored in one] == []
    with pytest.raises(EventError, match="once"):
        await bus.__aenter__()
    assert repr(bus) == "<EventBus memory [closed, 0 subscriptions]>"


async def test_a_context_that_has_ended_publishes_nothing() -> None:
    async with EventBus() as bus, with_timeout(CTX, 0.0) as ctx:
        with pytest.raises(TimeoutError):
            await bus.publish(ctx, Event("made"))
        assert await bus.store.last() == 0


async def test_a_group_handles_each_event_once_and_finishes_what_it_has_in_hand() -> None:
    async with EventBus() as bus, with_cancel(CTX) as ctx:
        handlers, seen, go_on = EventHandlers(), Chan[int](100), Chan[None]()

        @handlers.on("made")
        async def made(ctx, event, data: int) -> None:
            await seen.send(data)
            if data == 9:
                await go_on.recv()

        members = [
            asyncio.ensure_future(bus.handle(ctx, "t", handlers, group="g", after=0, options=GroupOptions()))
            for _ in range(2)
        ]
        await publish(bus, *range(10))
        assert sorted([await seen.recv() for _ in range(10)]) == list(range(10))
        ctx.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not all(member.done() for member in members)
        await go_on.send(None)
        await asyncio.gather(*members)
        [group] = await bus.store.groups()
        assert (group.leased, group.waiting, group.lag, group.dead) == (0, 0, 0, 0)


async def test_a_handler_that_fails_is_called_again_and_the_hopeless_is_dead_lettered() -> None:
    async with EventBus() as bus, with_cancel(CTX) as ctx:
        handlers, attempts = EventHandlers(), Chan[int](10)

        @handlers.on("made")
        async def made(ctx, event, data: int) -> None:
            await attempts.send(data)
            raise ValueError("broken")

        options = GroupOptions(max_deliveries=3, backoff=0.0)
        member = asyncio.ensure_future(bus.handle(ctx, "t", handlers, group="g", options=options))
        async with bus.subscribe("$dead.g") as dead:
            while not await bus.store.groups():
                await asyncio.sleep(0)
            await publish(bus, 1)
            assert [await attempts.recv() for _ in range(3)] == [1, 1, 1]
            first = (await dead.channel.recv()).event
            assert (first.data, first.extensions["deaddeliveries"]) == (1, "3")
            await bus.publish(CTX, Event("mode", 1), topic="t")
            reason = (await dead.channel.recv()).event.extensions["deadreason"]
            assert "no handler for type 'mode'; did you mean 'made'?" in reason
            await bus.publish(CTX, Event("made", "one", id="e7"), topic="t")
            reason = (await dead.channel.recv()).event.extensions["deadreason"]
            assert "event e7 of type 'made': Expected `int`, got `str`" in reason
        ctx.cancel()
        await member


async def test_deliveries_are_settled_by_hand() -> None:
    async with EventBus() as bus:
        await publish(bus, 1, 2)
        async with bus.consume("t", group="g", after=0, options=GroupOptions(concurrency=2)) as consumer:
            first = await consumer.channel.recv()
            second = await consumer.channel.recv()
            assert repr(first) == "<Delivery t@1 to g, attempt 1>"
            assert await first.nack()
            consumer.settle()
            again = await consumer.channel.recv()
            assert (again.event.data, again.attempt) == (1, 2)
            assert not await first.ack()
            assert await again.ack()
            assert await second.kill("why")
            consumer.settle()
            consumer.settle()


@pytest.mark.parametrize(
    "fields", [{"lease": 0}, {"max_deliveries": 0}, {"backoff": -1}, {"concurrency": 0}], ids=lambda f: next(iter(f))
)
def test_bad_group_options(fields) -> None:
    with pytest.raises(EventError):
        GroupOptions(**fields)
