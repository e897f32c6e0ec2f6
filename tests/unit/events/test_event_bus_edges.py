"""The bus where it is easy to lose, repeat or hang: closing, cancelling, lagging, a log that was lost."""

from __future__ import annotations

import asyncio

import pytest

from fairway.concurrency import Chan, background, with_cancel
from fairway.events import Event, EventBus, EventHandlers, GroupOptions
from fairway.events import subscription as subscription_module
from fairway.events.errors import EventError, EventStoreUnavailable, InvalidEvent, InvalidTopic
from fairway.events.stores.memory import MemoryEventStore
from fairway.events.stores.sqlite import SqliteEventStore

CTX = background()


async def publish(bus: EventBus, *numbers: int, topic: str = "t") -> None:
    for number in numbers:
        await bus.publish(CTX, Event("made", number), topic=topic)


async def test_a_subscriber_from_now_on_sees_nothing_that_was_published_before() -> None:
    async with EventBus() as bus:
        await publish(bus, 1)
        async with bus.subscribe("t") as late:
            await publish(bus, 2)
            assert (await late.channel.recv()).event.data == 2


async def test_a_blocked_subscription_that_closes_right_after_reading_fails_nothing() -> None:
    async with EventBus() as bus:
        async with bus.subscribe("t", buffer=1) as slow:
            publishing = asyncio.ensure_future(publish(bus, 1, 2, 3))
            while slow.has_room:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (await slow.channel.recv()).event.data == 1
            slow.close()
        await publishing


async def test_what_waits_for_a_blocked_subscriber_is_bounded_and_nothing_is_lost(monkeypatch) -> None:
    monkeypatch.setattr(subscription_module, "MAX_OVERFLOW", 10)
    store = MemoryEventStore()
    async with EventBus(store) as bus, bus.subscribe("t", buffer=2) as slow:
        await store.append([("t", Event("made", n)) for n in range(300)])  # as another process would
        while slow.has_room:
            await asyncio.sleep(0)
        late = asyncio.ensure_future(publish(bus, *range(300, 310)))
        seen = []
        while len(seen) < 310:
            assert len(slow._overflow) <= 10
            seen.append((await slow.channel.recv()).event.data)
        assert seen == list(range(310))
        await late
        await publish(bus, 310)
        assert (await slow.channel.recv()).event.data == 310


class Losing(MemoryEventStore):
    def lose(self) -> None:
        self._log.clear()
        self._seen.clear()
        self._last = 0

    async def wait(self, after: int, timeout: float, changes: int | None = None) -> bool:
        return await super().wait(after, min(timeout, 0.01), changes)


async def test_after_the_log_was_lost_subscribers_that_had_replayed_see_the_new_one() -> None:
    store = Losing()
    async with EventBus(store) as bus:
        await publish(bus, 1, 2, 3)
        async with bus.subscribe("t", after=0) as replayed, bus.subscribe("t") as live:
            assert [(await replayed.channel.recv()).event.data for _ in range(3)] == [1, 2, 3]
            while bus.statistics()["live"] < 2:
                await asyncio.sleep(0)
            store.lose()
            async with asyncio.timeout(5):
                while bus.statistics()["cursor"]:
                    await asyncio.sleep(0)
                await publish(bus, 4)
                assert (await replayed.channel.recv()).event.data == 4
                assert (await live.channel.recv()).event.data == 4


class Poisoned(MemoryEventStore):
    poison = 0

    async def read(self, after, limit, pattern=None):
        if self.poison:
            self.poison -= 1
            raise InvalidEvent("poison", field="data")
        return await super().read(after, limit, pattern)


async def test_an_error_while_reading_the_log_does_not_silence_the_bus(caplog) -> None:
    store = Poisoned()
    async with EventBus(store) as bus, bus.subscribe("t") as one:
        store.poison = 1
        await store.append([("t", Event("made", 1))])
        async with asyncio.timeout(5):
            assert (await one.channel.recv()).event.data == 1
    assert "reading the log above offset 0 failed" in caplog.text


async def test_a_replay_that_fails_ends_its_subscription() -> None:
    store = Poisoned()
    bus = EventBus(store)
    async with bus:
        await publish(bus, 1)
        while not bus.statistics()["cursor"]:
            await asyncio.sleep(0)
        for _ in range(10):  # until the task that reads the log waits for news
            await asyncio.sleep(0)
        store.poison = 1
        async with bus.subscribe("t", after=0) as replayed:
            assert [item async for item in replayed] == []
        with pytest.raises((InvalidEvent, ExceptionGroup)):
            await bus.close()


async def test_closing_waits_for_the_handler_in_hand_and_its_acknowledgement(tmp_path) -> None:
    handlers, started, go_on = EventHandlers(), Chan[None](1), Chan[None]()

    @handlers.on("made")
    async def made(ctx, event) -> None:
        await started.send(None)
        await ctx.done().recv_ok()  # a handler is told that the bus closes
        await go_on.recv()

    bus = EventBus(SqliteEventStore(tmp_path / "e.db"))
    async with bus:
        handling = asyncio.ensure_future(bus.handle(CTX, "t", handlers, group="g", after=0))
        await publish(bus, 1)
        await started.recv()
        closing = asyncio.ensure_future(bus.close())
        await go_on.send(None)
        await closing
        await handling
    again = SqliteEventStore(tmp_path / "e.db")
    [info] = await again.groups()
    assert (info.leased, info.waiting, info.lag) == (0, 0, 0)
    await again.close()


class SlowClaim(MemoryEventStore):
    def __init__(self) -> None:
        super().__init__()
        self.claimed, self.answer = asyncio.Event(), asyncio.Event()

    async def claim(self, group, limit, lease, max_deliveries):
        found = await super().claim(group, limit, lease, max_deliveries)
        if found:
            self.claimed.set()
            await self.answer.wait()
        return found


async def test_what_a_claim_leased_is_given_back_where_the_member_ends_meanwhile() -> None:
    store = SlowClaim()
    async with EventBus(store) as bus:
        await publish(bus, 1)
        async with bus.consume("t", group="g", after=0, options=GroupOptions(max_deliveries=1)):
            await store.claimed.wait()
            asyncio.get_running_loop().call_soon(store.answer.set)
        [info] = await store.groups()
        assert (info.leased, info.waiting, info.dead) == (0, 1, 0)


class Forgetful(MemoryEventStore):
    fail = 2

    async def join(self, group, pattern, after):
        if self.fail and group in self._gone:
            self.fail -= 1
            raise EventStoreUnavailable("away")
        await super().join(group, pattern, after)

    _gone: tuple[str, ...] = ()


async def test_a_member_whose_group_is_gone_joins_again_though_the_store_is_away_at_first(monkeypatch) -> None:
    monkeypatch.setattr("fairway.events.consumer._STORE_BACKOFF", (0.001, 0.01))
    store = Forgetful()
    async with EventBus(store) as bus, bus.consume("t", group="g") as consumer:
        store._gone = ("g",)
        await store.leave("g")
        store._wakeups.wake()
        await publish(bus, 1)
        async with asyncio.timeout(5):
            delivery = await consumer.channel.recv()
        assert delivery.event.data == 1
        assert await delivery.ack()
        consumer.settle()


async def test_dead_letters_of_a_dead_letter_group_are_replayed_to_where_they_were_and_only_once() -> None:
    async with EventBus() as bus:
        await bus.store.join("g", "t", 0)
        await bus.store.join("h", "$dead.g", 0)
        await publish(bus, 1)
        [claimed] = await bus.store.claim("g", 1, 30.0, 5)
        assert await bus.store.kill("g", claimed.stored.offset, 1, "why")
        [letter] = await bus.store.claim("h", 1, 30.0, 5)
        assert await bus.store.kill("h", letter.stored.offset, 1, "why")
        assert await bus.replay_dead(CTX, "h") == 1
        assert await bus.replay_dead(CTX, "h") == 0
        assert len(await bus.store.read(0, 10, "$dead.g")) == 2


@pytest.mark.parametrize(
    ("group", "pattern", "after"),
    [("$g", "t", None), ("g" * 201, "t", None), ("g", "$dead.g", None), ("g", "$dead.*", None), ("g", "t", -1)],
)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_group_that_could_not_work_is_refused(group, pattern, after, kind, tmp_path) -> None:
    store = MemoryEventStore() if kind == "memory" else SqliteEventStore(tmp_path / "e.db")
    with pytest.raises(EventError):
        await store.join(group, pattern, after)
    assert await store.groups() == []
    await store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_group_that_starts_beyond_the_log_starts_at_its_end(kind, tmp_path) -> None:
    store = MemoryEventStore() if kind == "memory" else SqliteEventStore(tmp_path / "e.db")
    await store.join("g", "t", 10**15)
    await store.append([("t", Event("made", 1))])
    assert len(await store.claim("g", 1, 30.0, 5)) == 1
    await store.close()


@pytest.mark.parametrize("arguments", [{"after": -1}, {"since": float("nan")}, {"buffer": 10**9}], ids=str)
async def test_a_subscription_that_could_not_work_is_refused(arguments) -> None:
    async with EventBus() as bus:
        with pytest.raises(EventError):
            await bus.open_subscription(
                "t", **{"policy": "block", "buffer": 1, "after": None, "since": None, **arguments}
            )


async def test_publishing_nothing_and_a_topic_that_is_no_text() -> None:
    async with EventBus() as bus:
        assert await bus.publish_many(CTX, []) == []
        with pytest.raises(InvalidTopic):
            await bus.publish(CTX, Event(5))  # type: ignore[arg-type]  # what a hostile caller does


@pytest.mark.parametrize(
    "fields",
    [{"lease": float("nan")}, {"lease": float("inf")}, {"backoff": float("nan")}, {"max_backoff": -1.0}],
    ids=str,
)
def test_times_that_are_no_times(fields) -> None:
    with pytest.raises(EventError):
        GroupOptions(**fields)


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
async def test_a_delay_that_is_no_time(delay) -> None:
    async with EventBus() as bus, with_cancel(CTX):
        await publish(bus, 1)
        async with bus.consume("t", group="g", after=0) as consumer:
            delivery = await consumer.channel.recv()
            with pytest.raises(EventError, match="delay"):
                await delivery.nack(delay)
            with pytest.raises(EventError, match="lease"):
                await delivery.extend(delay)
            assert await delivery.ack()
            consumer.settle()


async def test_a_member_whose_group_is_deleted_goes_on_with_what_comes_and_repeats_nothing() -> None:
    seen: Chan[int] = Chan(10)
    handlers = EventHandlers()

    @handlers.on("made")
    async def made(ctx, event, data: int) -> None:
        await seen.send(data)

    async with EventBus() as bus, with_cancel(CTX) as ctx:
        member = asyncio.ensure_future(bus.handle(ctx, "t", handlers, group="g", after=0))
        await publish(bus, 1, 2)
        assert [await seen.recv(), await seen.recv()] == [1, 2]
        assert await bus.store.leave("g")
        bus.store._wakeups.wake()  # as anything that moves a group: a member looks every 30 s by itself
        async with asyncio.timeout(5):
            while not await bus.store.groups():
                await asyncio.sleep(0)
            await publish(bus, 3)
            assert await seen.recv() == 3
        ctx.cancel()
        await member
    assert len(seen) == 0


async def test_a_blocking_subscriber_without_end_of_patience_is_cut_off_only_where_it_reads_nothing() -> None:
    async with EventBus() as bus:
        slow = await bus.open_subscription("t", policy="block", buffer=1, after=None, since=None, patience=0.02)
        async with asyncio.timeout(5):
            await publish(bus, 1, 2, 3)  # returns: nobody waits for who does not read
        assert slow.closed
        assert [item.event.data async for item in slow.channel] == [1]
        assert slow.error is not None
        assert "read nothing for 0.02 s" in str(slow.error)
        assert slow.error.offset == 1
        async with bus.subscribe("t", policy="block", buffer=1, after=slow.error.offset) as again:
            assert (await again.channel.recv()).event.data == 2
