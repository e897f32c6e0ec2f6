"""What may go: by age, by size, by who still reads; decided on numbers, carried out on a store."""

from __future__ import annotations

import asyncio

import pytest

from fairway.concurrency import background, with_cancel
from fairway.events import Bound, Event, EventBus, Retention
from fairway.events.errors import EventError, EventStoreUnavailable
from fairway.events.retention import DAY, EXPIRED_TOPIC, Retainer, Tally
from fairway.events.store import Mark
from fairway.events.stores.memory import MemoryEventStore
from fairway.events.stores.sqlite import SqliteEventStore

CTX = background()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, fake_clock, tmp_path):
    made = (
        MemoryEventStore
        if request.param == "memory"
        else lambda clock: SqliteEventStore(tmp_path / "e.db", clock=clock)
    )
    store = made(clock=fake_clock)
    yield store
    await store.close()


async def fill(store, topic: str, count: int) -> list[int]:
    return await store.append([(topic, Event("t", "x" * 100)) for _ in range(count)])


async def left(store) -> list[str]:
    return [stored.topic for stored in await store.read(0, 1000)]


async def test_without_groups_events_go_after_a_week(store, fake_clock) -> None:
    retainer = Retainer(store, Retention(), fake_clock)
    await fill(store, "old", 3)
    await fake_clock.advance(6 * DAY)
    await fill(store, "new", 1)
    await retainer.look()
    assert await left(store) == ["old"] * 3 + ["new"]
    await fake_clock.advance(1.5 * DAY)
    await retainer.look()
    assert await left(store) == ["new"]
    assert retainer.statistics() == {"removed": 3, "expired_groups": 0}


async def test_an_abandoned_group_keeps_its_events_for_two_weeks_and_no_longer(store, fake_clock, caplog) -> None:
    retainer = Retainer(store, Retention(), fake_clock)
    await store.join("gone", "a.>", 0)
    await store.join("alive", ">", 0)
    await fill(store, "a.b", 5)
    for _ in range(2):
        await fake_clock.advance(6.9 * DAY)
        await store.claim("alive", 100, 100 * DAY, 3)
        await retainer.look()
    assert len(await left(store)) == 5
    await fake_clock.advance(0.3 * DAY)
    await retainer.look()
    assert [group.name for group in await store.groups()] == ["alive"]
    assert "group gone of a.> was deleted" in caplog.text
    [expiry] = await store.read(0, 10, EXPIRED_TOPIC)
    assert expiry.event.type == "fairway.group.expired"
    assert (expiry.event.data["group"], expiry.event.data["waiting"]) == ("gone", 5)
    assert retainer.statistics()["expired_groups"] == 1


async def test_groups_get_an_hour_after_a_start_to_come_back(store, fake_clock) -> None:
    await store.join("g", ">", 0)
    await fake_clock.advance(100 * DAY)
    retainer = Retainer(store, Retention(), fake_clock)
    await retainer.look()
    assert len(await store.groups()) == 1
    await fake_clock.advance(3601.0)
    await retainer.look()
    assert await store.groups() == []


async def test_groups_get_an_hour_after_the_clock_was_set_or_the_machine_slept(store, fake_clock) -> None:
    retainer = Retainer(store, Retention(), fake_clock)
    for name in ("alive", "gone"):
        await store.join(name, ">", 0)
    await fake_clock.advance(DAY)
    fake_clock.jump(20 * DAY)
    await retainer.look()
    assert len(await store.groups()) == 2
    await store.claim("alive", 1, 10.0, 3)
    await fake_clock.advance(3601.0)
    await retainer.look()
    assert [group.name for group in await store.groups()] == ["alive"]


async def test_a_clock_that_is_set_wrong_for_a_while_costs_no_events(store, fake_clock, caplog) -> None:
    bounds = {"few": Bound(max_events=3), ">": Bound(max_age=30 * DAY)}
    retainer = Retainer(store, Retention(topics=bounds), fake_clock)
    await fill(store, "a", 5)
    await fill(store, "few", 5)
    fake_clock.jump(1000 * DAY)
    await retainer.look()
    assert "the clock was set" in caplog.text
    assert await left(store) == ["a"] * 5 + ["few"] * 3  # sizes go by no clock
    fake_clock.jump(-1000 * DAY)
    for _ in range(3):
        await retainer.look()
        await fake_clock.advance(3601.0)
    assert len(await left(store)) == 8


async def test_ages_count_again_an_hour_after_the_clock_was_set(store, fake_clock) -> None:
    retainer = Retainer(store, Retention(), fake_clock)
    await fill(store, "a", 5)
    fake_clock.jump(40 * DAY)
    await retainer.look()
    assert len(await left(store)) == 5
    await fake_clock.advance(3601.0)
    await retainer.look()
    assert await left(store) == []


async def test_events_of_before_a_clock_was_set_back_stay_so_much_longer(store, fake_clock) -> None:
    retainer = Retainer(store, Retention(keep=DAY), fake_clock)
    await fill(store, "a", 5)
    fake_clock.jump(-10 * DAY)
    await retainer.look()
    await fake_clock.advance(2 * DAY)
    await fill(store, "b", 1)
    await retainer.look()
    assert len(await left(store)) == 6
    await fake_clock.advance(10 * DAY)
    await retainer.look()
    assert await left(store) == []


async def test_the_bound_of_a_topic_holds_whatever_a_group_needs(store, fake_clock) -> None:
    bounds = {"metrics.>": Bound(max_age=60.0), "few.*": Bound(max_events=3), "small": Bound(max_bytes=1000)}
    retainer = Retainer(store, Retention(topics=bounds), fake_clock)
    await store.join("g", ">", 0)
    for topic in ("metrics.cpu", "few.a", "few.b", "small", "free"):
        await fill(store, topic, 10)
    [first, *_] = claimed = await store.claim("g", 10, 1000.0, 3)
    assert len(claimed) == 10
    await fake_clock.advance(61.0)
    await fill(store, "metrics.cpu", 1)
    await retainer.look()
    kept = await left(store)
    assert {topic: kept.count(topic) for topic in kept} == {
        "few.a": 3,
        "few.b": 3,
        "free": 10,
        "metrics.cpu": 1,
        "small": kept.count("small"),
    }
    assert 1 <= kept.count("small") <= 5
    assert not await store.ack("g", first.stored.offset, 1)
    rest = await store.claim("g", 100, 1000.0, 3)
    assert [one.stored.topic for one in rest] == kept
    assert all(one.stored.event.data == "x" * 100 for one in rest)


def test_a_tally_takes_the_oldest_of_what_is_too_much() -> None:
    tally = Tally(Retention(topics={"a": Bound(max_events=2)}), now=100.0)
    marks = [Mark(offset, "a" if offset % 2 else "b", 50.0, 10) for offset in range(1, 9)]
    tally.add(marks)
    assert not tally.done(marks[0])
    assert list(tally.choose(marks)) == [1, 3]
    assert tally.done(marks[0])
    assert repr(tally) == "<Tally [2 topics, 0 too large]>"


def test_the_first_pattern_counts_and_system_topics_are_apart() -> None:
    retention = Retention.parse({"topics": {"a.*": {"max_events": 7}, "a.>": {"max_age": "never"}}})
    assert retention.bound("a.b") == Bound(max_events=7)
    assert retention.bound("a.b.c") == Bound()
    assert retention.bound("x") == Retention().bound("x") == Bound(max_age=30 * DAY)
    assert retention.bound("$dead.g") == Bound(max_age=30 * DAY)
    assert retention.bound("$groups.expired") is None


def test_what_a_file_says() -> None:
    told = {"keep": "12h", "groups": "never", "every": 5, "topics": {">": {"max_bytes": "64M", "max_age": "1.5d"}}}
    retention = Retention.parse(told)
    assert (retention.keep, retention.groups, retention.every) == (43_200.0, None, 5.0)
    assert retention.bound("x") == Bound(max_bytes=64 * 1024**2, max_age=1.5 * DAY)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (None, "retention"),
        ([], "retention"),
        ({"keeep": "1d"}, "keeep"),
        ({"keep": "soon"}, r"retention\.keep"),
        ({"keep": True}, r"retention\.keep"),
        ({"keep": "0s"}, r"retention\.keep"),
        ({"every": "never"}, r"retention\.every"),
        ({"every": -1}, r"retention\.every"),
        ({"topics": {"a..b": {}}}, r"a\.\.b"),
        ({"topics": {"a": {"max_events": "1K"}}}, "max_events"),
        ({"topics": {"a": {"max_bytes": 0}}}, "max_bytes"),
        ({"topics": {"a": 7}}, "topics"),
        ({"topics": {7: {}}}, "topics"),
    ],
)
def test_a_retention_of_another_form_is_an_error_that_names_the_field(values, field) -> None:
    with pytest.raises(EventError, match=field):
        Retention.parse(values)


async def test_the_bus_looks_by_itself_and_outlives_a_store_that_is_away(fake_clock, monkeypatch, caplog) -> None:
    store = MemoryEventStore(clock=fake_clock)
    calls: list[float] = []
    looked = asyncio.Event()

    async def trim(before: float) -> int:
        calls.append(before)
        if len(calls) == 1:
            raise EventStoreUnavailable("away")
        looked.set()
        return 0

    monkeypatch.setattr(store, "trim", trim)
    async with EventBus(store, retention=Retention(every=0.001)) as bus:
        async with asyncio.timeout(5):
            await looked.wait()
        assert {"removed": 0, "expired_groups": 0}.items() <= bus.statistics().items()
    assert "put off" in caplog.text
    async with EventBus(MemoryEventStore(clock=fake_clock), retention=None) as bus:
        assert bus._retainer is None


async def test_a_retainer_ends_with_its_context() -> None:
    retainer = Retainer(MemoryEventStore(), Retention())
    async with with_cancel(CTX) as ctx:
        running = asyncio.ensure_future(retainer.run(ctx))
        await asyncio.sleep(0)
        ctx.cancel()
        async with asyncio.timeout(5):
            await running
    assert repr(retainer) == "<Retainer [0 events removed, 0 groups deleted]>"


async def test_a_file_of_the_release_before_gets_what_it_lacks(tmp_path) -> None:
    store = SqliteEventStore(tmp_path / "old.db")
    await store.join("g", ">", 0)
    await store._writer.run(lambda: store._db.execute("ALTER TABLE consumer_group DROP COLUMN seen"))
    await store.close()
    store = SqliteEventStore(tmp_path / "old.db")
    assert (await store.groups())[0].seen > 1e9  # else every group would be taken for abandoned
    await store.close()
