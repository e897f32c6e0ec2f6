"""The SQLite store's thread: one bad operation fails alone, nothing ends it, a cancelled caller loses no wake-up."""

from __future__ import annotations

import asyncio

import pytest

from fairway.events import Event
from fairway.events.errors import EventStoreUnavailable
from fairway.events.stores.sqlite import SqliteEventStore


@pytest.fixture
async def store(tmp_path):
    store = SqliteEventStore(tmp_path / "e.db")
    yield store
    await store.close()


async def test_a_number_that_sqlite_cannot_hold_fails_alone_and_the_store_goes_on(store) -> None:
    await store.join("g", ">", None)
    good = asyncio.ensure_future(store.append([("a", Event("t", 1))]))
    bad = asyncio.ensure_future(store.ack("g", 10**30, 1))
    other = asyncio.ensure_future(store.append([("a", Event("t", 2))]))
    async with asyncio.timeout(5):
        with pytest.raises(EventStoreUnavailable):
            await bad
        assert sorted(await good + await other) == [1, 2]
        assert await store.append([("a", Event("t", 3))]) == [3]


async def test_a_value_that_the_schema_refuses_fails_alone(store) -> None:
    await store.join("g", ">", 0)
    await store.append([("a", Event("t", 1))])
    [claimed] = await store.claim("g", 1, 30.0, 5)
    bad = asyncio.ensure_future(store.extend("g", claimed.stored.offset, 1, float("nan")))
    good = asyncio.ensure_future(store.append([("a", Event("t", 2))]))
    with pytest.raises(EventStoreUnavailable):
        await bad
    assert await good == [2]


async def test_what_a_cancelled_publisher_has_stored_wakes_the_waiters(store) -> None:
    waiting = asyncio.ensure_future(store.wait(0, 30.0))
    changes = store.changes
    publishing = asyncio.ensure_future(store.append([("a", Event("t", 1))]))
    await asyncio.sleep(0)
    publishing.cancel()
    async with asyncio.timeout(5):
        assert await waiting
    assert store.changes > changes


async def test_a_backlog_of_one_partition_key_costs_a_claim_nothing(store) -> None:
    for start in range(0, 5_000, 1000):
        await store.append([("a", Event("t", n, partition_key="k")) for n in range(start, start + 1000)])
    await store.join("g", ">", 0)
    assert len(await store.claim("g", 10, 30.0, 5)) == 1
    while (await store.groups())[0].lag:
        await store.claim("g", 10, 30.0, 5)
    thousands = [0]  # of steps of SQLite's virtual machine

    def count() -> bool:
        thousands[0] += 1
        return False

    store._db.set_progress_handler(count, 1000)
    for offset in range(1, 11):
        assert await store.claim("g", 10, 30.0, 5) == []
        assert await store.ack("g", offset, 1)
        assert [item.stored.offset for item in await store.claim("g", 10, 30.0, 5)] == [offset + 1]
    assert thousands[0] < 30


async def test_one_read_returns_no_more_than_a_bound_of_bytes_and_the_rest_follows(store) -> None:
    for number in range(40):
        await store.append([("a", Event("t", f"{number}" + "x" * 1_000_000))])
    for pattern in (None, "a"):
        after, seen, reads = 0, 0, 0
        while batch := await store.read(after, 1000, pattern):
            after, seen, reads = batch[-1].offset, seen + len(batch), reads + 1
        assert (seen, reads) == (40, 3)


async def test_pending_rows_of_the_release_before_keep_their_order(tmp_path) -> None:
    store = SqliteEventStore(tmp_path / "old.db")
    await store.append([("a", Event("t", n, partition_key="k")) for n in range(3)])
    await store.join("g", ">", 0)
    assert len(await store.claim("g", 10, 30.0, 5)) == 1
    await store._writer.run(lambda: store._db.execute("UPDATE pending SET leased = 0 WHERE leased = 2"))
    for offset in (1, 2, 3):
        assert await store.claim("g", 10, 30.0, 5) == [] if offset == 1 else True
        assert await store.ack("g", offset, 1)
        assert [item.stored.offset for item in await store.claim("g", 10, 30.0, 5)] == [offset + 1] * (offset < 3)
    await store.close()
