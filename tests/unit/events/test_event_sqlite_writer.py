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


async def test_appends_of_one_moment_are_one_statement_and_a_duplicate_among_them_is_stored_once(store) -> None:
    events = [Event("t", "é\x00\u2028" if n == 3 else b"\xff" if n == 4 else n, id=f"i{n % 7}") for n in range(9)]
    blocked = asyncio.ensure_future(store.last())  # the thread is busy meanwhile, or not: the outcome is the same
    answers = await asyncio.gather(*(store.append([("a", event)]) for event in events))
    await blocked
    assert [offset for [offset] in answers] == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert [item.event for item in await store.read(0, 100)] == events[:7]
    more = await asyncio.gather(
        *(
            store.append([("a", Event("t", n, id=f"i{n}")), ("b", event)])
            for n in (6, 7, 8)
            for event in (Event("u", n, id=f"u{n}"),)
        )
    )
    assert more == [[7, 8], [9, 10], [11, 12]]
    assert await store.last() == 12


async def test_of_what_goes_together_one_that_fails_fails_alone(store) -> None:
    calls: list[list[int]] = []

    def work(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        return [60 // number for number in numbers]

    writer = store._writer
    release = asyncio.get_running_loop().create_future()
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(asyncio.shield(release), 5), loop).result()

    holding = asyncio.ensure_future(writer.run(hold, writes=False))
    await entered.wait()  # what follows waits in the queue, and goes together
    running = [asyncio.ensure_future(writer.run_together(work, number)) for number in (1, 0, 2)]
    for _ in range(3):
        await asyncio.sleep(0)
    release.set_result(None)
    results = await asyncio.gather(*running, return_exceptions=True)
    await holding
    assert results[0] == 60
    assert isinstance(results[1], EventStoreUnavailable)
    assert results[2] == 30
    assert calls[0] == [1, 0, 2]
