"""The Redis store keeps the contract of event stores, and comes back when Redis does."""

from __future__ import annotations

import asyncio

import pytest

from fairway.concurrency import Chan, background, with_cancel
from fairway.events import Event, EventBus, EventHandlers, GroupOptions, RedisStreamsEventPublisher, Subscription
from fairway.events.errors import EventError, EventStoreUnavailable
from fairway.events.stores.redis import RedisEventStore
from fairway.testing.event_stores import EventStoreConformance

pytestmark = pytest.mark.integration
CTX = background()


class TestRedisEventStore(EventStoreConformance):
    @pytest.fixture
    async def store(self, redis_server):
        redis_server.command("FLUSHALL")
        store = RedisEventStore.open(redis_server.url)
        yield store
        await store.close()

    @pytest.fixture
    def elapse(self, store):
        async def elapse(seconds: float) -> None:
            store.skew += seconds

        return elapse


async def test_what_one_process_publishes_another_receives(redis_server) -> None:
    redis_server.command("FLUSHALL")
    publisher = RedisStreamsEventPublisher(redis_server.url)
    async with EventBus(redis_server.url) as one, EventBus(redis_server.url) as two:
        async with one.subscribe("made") as first, two.subscribe("made") as second:
            await publisher.publish(CTX, Event("made", {"n": 1}))
            assert (await first.channel.recv()).event.data == {"n": 1}
            assert (await second.channel.recv()).event.data == {"n": 1}
    assert publisher.store.features.durability == "process"
    await publisher.close()


async def test_a_group_over_two_processes_handles_each_once_in_key_order(redis_server) -> None:
    redis_server.command("FLUSHALL")
    seen: Chan[tuple[str, int]] = Chan(200)
    handlers = EventHandlers()

    @handlers.on("made")
    async def made(ctx, event, data: int) -> None:
        await seen.send((event.partition_key, data))

    async with EventBus(redis_server.url) as one, EventBus(redis_server.url) as two, with_cancel(CTX) as ctx:
        options = GroupOptions(concurrency=4)
        members = [
            asyncio.ensure_future(bus.handle(ctx, "made", handlers, group="g", after=0, options=options))
            for bus in (one, two)
        ]
        await one.publish_many(CTX, [("made", Event("made", n, partition_key=f"k{n % 5}")) for n in range(100)])
        got = [await seen.recv() for _ in range(100)]
        ctx.cancel()
        await asyncio.gather(*members)
    for key in {key for key, _ in got}:
        numbers = [n for other, n in got if other == key]
        assert numbers == sorted(numbers)
    assert sorted(n for _, n in got) == list(range(100))


async def test_redis_gone_fails_loudly_and_the_bus_goes_on_by_itself_when_it_is_back(make_redis) -> None:
    redis_server = make_redis("always")  # else its end may take the first event along, and the third get its offset
    async with EventBus(redis_server.url) as bus, bus.subscribe("made") as made:
        await bus.publish(CTX, Event("made", 1))
        assert (await made.channel.recv()).event.data == 1
        redis_server.kill()
        with pytest.raises(EventStoreUnavailable):
            await bus.publish(CTX, Event("made", 2))
        redis_server.start()
        event = Event("made", 3)
        async with asyncio.timeout(20):
            while True:
                try:
                    await bus.publish(CTX, event)
                except EventStoreUnavailable:
                    continue
                break
            assert (await made.channel.recv()).event.data == 3


async def test_a_group_starts_again_though_the_new_log_has_outgrown_the_old_at_once(redis_server) -> None:
    redis_server.command("FLUSHALL")
    other, received = RedisEventStore.open(redis_server.url), []
    async with EventBus(redis_server.url) as bus, asyncio.timeout(10):
        async with bus.consume("made", group="g", after=0) as consumer:

            async def receive(count: int) -> None:
                for _ in range(count):
                    delivery = await consumer.channel.recv()
                    received.append(delivery.event.data)
                    await delivery.ack()
                    consumer.settle()

            await other.append([("made", Event("made", n)) for n in range(3)])
            await receive(3)
            while consumer._taken < 3:  # it has asked once more, and waits
                await asyncio.sleep(0.002)
            redis_server.command("FLUSHALL")
            await other.append([("made", Event("made", n)) for n in range(10, 15)])
            await receive(5)
    await other.close()
    assert received == [0, 1, 2, 10, 11, 12, 13, 14]


async def test_after_flushall_a_group_starts_again_and_subscribers_go_on(redis_server) -> None:
    redis_server.command("FLUSHALL")
    seen: Chan[int] = Chan(10)
    handlers = EventHandlers()

    @handlers.on("made")
    async def made(ctx, event, data: int) -> None:
        await seen.send(data)

    async with EventBus(redis_server.url) as bus, with_cancel(CTX) as ctx, bus.subscribe("made") as live:
        member = asyncio.ensure_future(bus.handle(ctx, "made", handlers, group="g", after=0))
        for n in range(3):
            await bus.publish(CTX, Event("made", n))
        assert [await seen.recv() for _ in range(3)] == [0, 1, 2]
        assert [(await live.channel.recv()).event.data for _ in range(3)] == [0, 1, 2]
        redis_server.command("FLUSHALL")
        await bus.publish(CTX, Event("made", 7))
        async with asyncio.timeout(20):
            assert await seen.recv() == 7
            assert (await live.channel.recv()).event.data == 7
        ctx.cancel()
        await member


async def publish_elsewhere(url: str, numbers: range) -> None:
    """Publish from a store of its own, as another process does."""
    other = RedisEventStore.open(url)
    await other.append([("made", Event("made", n)) for n in numbers])
    await other.close()


async def test_a_log_that_was_lost_and_has_grown_past_its_readers_is_read_from_its_first_event(redis_server) -> None:
    redis_server.command("FLUSHALL")
    seen: Chan[int] = Chan(100)
    handlers = EventHandlers()

    @handlers.on("made")
    async def made(ctx, event, data: int) -> None:
        await seen.send(data)

    async with EventBus(redis_server.url) as bus, with_cancel(CTX) as ctx, bus.subscribe("made") as live:
        member = asyncio.ensure_future(bus.handle(ctx, "made", handlers, group="g", after=0))
        for n in range(3):
            await bus.publish(CTX, Event("made", n))
        assert [await seen.recv() for _ in range(3)] == [0, 1, 2]
        assert [(await live.channel.recv()).event.data for _ in range(3)] == [0, 1, 2]
        redis_server.command("FLUSHALL")
        await publish_elsewhere(redis_server.url, range(10, 20))
        handled, heard = set(), set()
        async with asyncio.timeout(20):
            while len(handled) < 10 or len(heard) < 10:
                handled |= {await seen.recv()} if len(handled) < 10 else set()
                heard |= {(await live.channel.recv()).event.data} if len(heard) < 10 else set()
        assert handled == heard == set(range(10, 20))
        ctx.cancel()
        await member


async def test_a_redis_that_came_back_without_its_newest_events_has_another_log(redis_server) -> None:
    redis_server.command("FLUSHALL")
    await publish_elsewhere(redis_server.url, range(3))
    store = RedisEventStore.open(redis_server.url)
    assert await store.last() == 3
    known = store.log_id
    store._looked -= 10
    assert (await store.last(), store.log_id) == (3, known)
    redis_server.command("XDEL {fairway:events}:log 2-0 3-0")  # as if it had been restored to where it was before
    redis_server.command("XSETID {fairway:events}:log 1-0")
    redis_server.command("SET {fairway:events}:last 1")
    await publish_elsewhere(redis_server.url, range(10, 15))
    store._looked -= 10
    assert (await store.last(), store.log_id == known) == (6, False)
    other = RedisEventStore.open(redis_server.url)
    assert (await other.last(), other.log_id) == (6, store.log_id)  # one log for all who read it
    await store.close()
    await other.close()


async def test_what_a_store_has_appended_itself_need_not_be_asked_for(redis_server) -> None:
    redis_server.command("FLUSHALL")
    store = RedisEventStore.open(redis_server.url)
    assert store.recent(0, 10) == []
    await store.append([("a", Event("t", n, id=str(n))) for n in range(5)])
    assert store.recent(0, 10) == await store.read(0, 10)
    assert [one.offset for one in store.recent(3, 10)] == [4, 5]
    assert [one.offset for one in store.recent(1, 2)] == [2, 3]
    assert store.recent(5, 10) == []
    await publish_elsewhere(redis_server.url, range(1))
    await store.append([("a", Event("t", "other words", id="0")), ("a", Event("t", "new"))])
    assert store.recent(4, 10) == store.recent(5, 10) == []  # another process's is between
    assert [one.event.data for one in store.recent(6, 10)] == ["new"]
    await store.append([("a", Event("t", "x" * 20_000)), ("a", Event("t", "small"))])
    assert store.recent(7, 10) == []
    assert [one.event.data for one in store.recent(8, 10)] == ["small"]
    await store.remove([9])
    assert store.recent(8, 10) == []
    await store.append([("a", Event("t", n)) for n in range(1000)])
    assert len(store.recent(1009 - 256, 1000)) == 256
    assert store.recent(1009 - 257, 1000) == []
    await store.last()
    redis_server.command("FLUSHALL")
    await store.last()
    assert store.recent(1000, 10) == []
    await store.close()


async def test_all_see_one_order_whoever_publishes_how_fast(redis_server) -> None:
    redis_server.command("FLUSHALL")
    async with EventBus(redis_server.url) as one, EventBus(redis_server.url) as two:
        readers = [
            await bus.open_subscription("t", policy="block", buffer=64, after=None, since=None) for bus in (one, two)
        ]

        async def publish(bus: EventBus, name: str) -> None:
            for n in range(150):
                await bus.publish(CTX, Event("t", [name, n]))

        async def read(reader: Subscription) -> list[tuple[int, str]]:
            found = [await reader.channel.recv() for _ in range(600)]
            return [(stored.offset, str(stored.event.data)) for stored in found]

        publishing = [publish(bus, f"{bus is one} {n}") for bus in (one, two) for n in range(2)]
        async with asyncio.timeout(60):
            first, second, *_ = await asyncio.gather(*(read(reader) for reader in readers), *publishing)
        assert first == second
        assert [offset for offset, _ in first] == list(range(1, 601))
        for reader in readers:
            reader.close()


async def test_a_redis_that_evicts_is_refused(redis_server) -> None:
    redis_server.command("CONFIG SET maxmemory-policy allkeys-lru")
    store = RedisEventStore.open(redis_server.url)
    try:
        with pytest.raises(EventStoreUnavailable, match="noeviction"):
            await store.last()
    finally:
        redis_server.command("CONFIG SET maxmemory-policy noeviction")
        await store.close()


async def test_out_of_memory_refuses_the_append_and_keeps_the_rest(redis_server) -> None:
    redis_server.command("FLUSHALL")
    store = RedisEventStore.open(redis_server.url)
    await store.append([("a", Event("t", 1))])
    redis_server.command("CONFIG SET maxmemory 1")
    try:
        with pytest.raises(EventStoreUnavailable, match="maxmemory"):
            await store.append([("a", Event("t", 2))])
        assert len(await store.read(0, 10)) == 1
    finally:
        redis_server.command("CONFIG SET maxmemory 0")
        await store.close()


async def test_a_group_that_is_deleted_and_joined_again_is_not_held_up_by_its_old_partition_keys(redis_server) -> None:
    redis_server.command("FLUSHALL")
    store = RedisEventStore.open(redis_server.url)
    await store.append([("a", Event("t", n, partition_key="k")) for n in range(3)])
    await store.join("g", "a", 0)
    assert [item.stored.offset for item in await store.claim("g", 10, 30.0, 5)] == [1]
    # As where a claim of another process falls between the steps of the deletion: the keys' queues stay behind.
    await store._call("DEL", *store._keys("g:g", "p:g", "r:g", "t:g"))
    await store.join("g", "a", 0)
    for offset in (1, 2, 3):
        assert [item.stored.offset for item in await store.claim("g", 10, 30.0, 5)] == [offset]
        assert await store.ack("g", offset, 1)
    assert await store.leave("g")
    assert not await store.leave("g")
    await store.close()


async def test_an_event_removed_by_hand_neither_spins_nor_holds_up_its_partition(redis_server) -> None:
    redis_server.command("FLUSHALL")
    store = RedisEventStore.open(redis_server.url)
    await store.append([("a", Event("t", n, partition_key="k")) for n in range(2)])
    await store.join("g", "a", 0)
    await store.claim("g", 10, 30.0, 1)
    await store._call("XDEL", store._prefix + "log", "1-0")
    store.skew += 31.0
    assert [item.stored.offset for item in await store.claim("g", 10, 30.0, 1)] == [2]
    due = await store.next_due("g")
    assert due is not None
    assert due > 20.0
    await store.close()


async def test_scripts_that_redis_has_forgotten_are_sent_again(redis_server) -> None:
    redis_server.command("FLUSHALL")
    store = RedisEventStore.open(redis_server.url)
    await store.append([("a", Event("t", 1))])
    redis_server.command("SCRIPT FLUSH SYNC")
    assert await store.append([("a", Event("t", 2))]) == [2]
    await store.join("g", "a", 0)
    redis_server.command("SCRIPT FLUSH SYNC")
    assert len(await store.claim("g", 10, 30.0, 5)) == 2
    await store.close()


async def test_a_server_that_became_a_replica_is_left_and_asked_for_again(redis_server) -> None:
    redis_server.command("FLUSHALL")
    store = RedisEventStore.open(redis_server.url)
    await store.append([("a", Event("t", 1))])
    try:
        redis_server.command("REPLICAOF 127.0.0.1 1")
        with pytest.raises(EventStoreUnavailable, match=r"(?i)read.?only"):
            await store.append([("a", Event("t", 2))])
        connected = [store._link._wire]
        assert not any(connected)
    finally:
        redis_server.command("REPLICAOF NO ONE")
    assert await store.append([("a", Event("t", 3))]) == [2]
    await store.close()


async def test_news_of_another_process_wakes_a_waiter_without_its_documents(redis_server) -> None:
    redis_server.command("FLUSHALL")
    one, two = RedisEventStore.open(redis_server.url), RedisEventStore.open(redis_server.url)
    waiting = asyncio.ensure_future(one.wait(0, 20.0))
    while not len(one._wakeups):
        await asyncio.sleep(0)
    await two.append([("a", Event("t", n)) for n in range(500)])
    async with asyncio.timeout(5):
        assert await waiting
    assert await one.last() == 500
    await one.close()
    await two.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port/0", "redis://127.0.0.1:99999999/0"])
def test_a_url_that_is_none_is_an_error_of_events(url: str) -> None:
    with pytest.raises(EventError, match="redis://"):
        RedisEventStore.open(url)
