"""The SQLite store keeps the contract of event stores, over a restart and on a full disk too."""

import stat

import pytest

from fairway.concurrency import background
from fairway.events import Event, EventBus, event, open_event_store
from fairway.events.errors import EventError, EventStoreUnavailable, PayloadTooLarge
from fairway.events.stores.sqlite import SqliteEventStore
from fairway.testing.event_stores import EventStoreConformance


class TestSqliteEventStore(EventStoreConformance):
    @pytest.fixture
    async def store(self, fake_clock, tmp_path):
        store = SqliteEventStore(tmp_path / "events.db", clock=fake_clock)
        yield store
        await store.close()


async def test_log_groups_and_leases_survive_a_restart(tmp_path, fake_clock) -> None:
    store = SqliteEventStore(tmp_path / "e.db", clock=fake_clock)
    await store.append([("a", Event("t", n)) for n in range(3)])
    await store.join("g", ">", 0)
    await store.claim("g", 2, 30.0, 3)
    await store.ack("g", 1, 1)
    await store.close()
    again = SqliteEventStore(tmp_path / "e.db", clock=fake_clock)
    assert [item.stored.offset for item in await again.claim("g", 5, 30.0, 3)] == [3]
    assert await again.ack("g", 2, 1)
    await again.close()
    assert stat.S_IMODE((tmp_path / "e.db").stat().st_mode) == 0o600


async def test_a_full_disk_fails_the_append_loudly_and_the_store_goes_on_when_there_is_room(tmp_path) -> None:
    store = SqliteEventStore(tmp_path / "e.db")
    await store.append([("a", Event("t", 1))])
    pages = store._db.execute("PRAGMA page_count").get
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(EventStoreUnavailable, match="full"):
        await store.append([("a", Event("t", "x" * 100_000))])
    assert len(await store.read(0, 10)) == 1
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert await store.append([("a", Event("t", "x" * 100_000))]) == [2]
    await store.close()


async def test_one_event_over_the_limit_is_refused_and_names_it(tmp_path) -> None:
    store = SqliteEventStore(tmp_path / "e.db")
    with pytest.raises(PayloadTooLarge, match="event 't'"):
        await store.append([("a", Event("t", "x" * 2**20))])
    assert await store.last() == 0
    await store.close()


async def test_the_file_is_opened_as_it_is_meant_to_be(tmp_path) -> None:
    store = SqliteEventStore(tmp_path / "e.db")
    told = {name: store._db.pragma(name) for name in ("journal_mode", "synchronous", "temp_store")}
    assert told == {"journal_mode": "wal", "synchronous": 2, "temp_store": 2}  # FULL, in memory
    await store.close()


async def test_urls(tmp_path) -> None:
    store = open_event_store(f"sqlite:///{tmp_path}/e.db")
    assert repr(store) == "<SqliteEventStore e.db [open]>"
    await store.close()
    with pytest.raises(EventStoreUnavailable, match="cannot open"):
        open_event_store(f"sqlite:///{tmp_path}/none/e.db")
    with pytest.raises(EventError, match="no path"):
        open_event_store("sqlite://")
    with pytest.raises(EventError, match="memory://"):
        open_event_store("kafka://x")


async def test_a_bus_over_a_file_replays_after_a_restart(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/e.db"
    async with EventBus(url) as bus:
        await bus.publish_many(background(), [("t", Event("made", n)) for n in range(3)])
    async with EventBus(url) as bus, bus.subscribe("t", after=1) as late:
        assert [(await late.channel.recv()).event.data for _ in range(2)] == [1, 2]


async def test_an_event_of_before_the_bound_of_its_depth_becomes_a_dead_letter(tmp_path, monkeypatch) -> None:
    """Such a one stays with its group for ever otherwise, and the group with it."""
    data: list[object] = []
    for _ in range(600):
        data = [data]
    store = SqliteEventStore(tmp_path / "e.db")
    with monkeypatch.context() as before:
        before.setattr(event, "MAX_DEPTH", 1_000)
        (offset,) = await store.append([("a", Event("t", data))])
    await store.join("g", "a", 0)
    (claimed,) = await store.claim("g", 1, 30.0, 3)
    assert await store.kill("g", offset, claimed.fence, "nobody can read it")
    assert await store.claim("g", 1, 30.0, 3) == []
    (letter,) = await store.read(offset, 1)
    assert (letter.event.extensions["deadoffset"], letter.event.data) == (str(offset), data)
    await store.close()


async def test_a_file_is_one_log_however_often_it_is_opened_and_another_file_another(tmp_path) -> None:
    found = []
    for path in (tmp_path / "a.db", tmp_path / "a.db", tmp_path / "b.db"):
        store = SqliteEventStore(path)
        await store.last()
        found.append(store.log_id)
        await store.close()
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_file_that_is_gone_or_another_takes_no_events(tmp_path, replaced) -> None:
    store = SqliteEventStore(tmp_path / "e.db")
    await store.append([("a", Event("t", 1))])
    (tmp_path / "e.db").rename(tmp_path / "old.db")
    if replaced:
        (tmp_path / "e.db").touch()
    with pytest.raises(EventStoreUnavailable, match="moved, replaced or removed"):
        await store.append([("a", Event("t", 2))])
    assert len(await store.read(0, 10)) == 1
    (tmp_path / "old.db").rename(tmp_path / "e.db")
    assert await store.append([("a", Event("t", 2))]) == [2]
    await store.close()
