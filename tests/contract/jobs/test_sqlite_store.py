"""The SQLite store keeps the contract, on a clock that tests move and on the machine's own."""

import asyncio
from pathlib import Path

import pytest
from msgspec import Raw

from fairway.jobs.job import Completed, NewJob, Verdict, raw
from fairway.jobs.machine import MAX_DEPTH
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.jobs.stores.sqlite_schema import WAL_SIZE
from fairway.testing import FakeClock
from fairway.testing.stores import StoreConformance, StoreHarness


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def harness(self, fake_clock: FakeClock, tmp_path: Path) -> StoreHarness:
        return StoreHarness(lambda options: SqliteStore(tmp_path / "jobs.db", options), clock=fake_clock)


class TestSqliteStoreOnTheSystemClock(StoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> StoreHarness:
        return StoreHarness(lambda options: SqliteStore(tmp_path / "jobs.db", options))


async def test_counts_of_plain_inserts_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqliteStore(path) as store:
        ids = [(await store.enqueue([NewJob(kind="plain")])).ids[0] for _ in range(5)]
        await store.cancel(ids[0])  # writes the meta row, which the inserts after it do not
        ids += [(await store.enqueue([NewJob(kind="plain")])).ids[0] for _ in range(3)]
    async with SqliteStore(path) as store:
        (status,) = await store.queues()
        assert status.counts["available"] == 7
        assert status.counts["cancelled"] == 1
        assert (await store.enqueue([NewJob(kind="plain")])).ids[0] > max(ids)
        assert [lease.id for lease in await store.claim(["default"], 3, 30.0, "w")] == ids[1:4]


async def test_a_waiting_claim_gets_new_jobs_by_priority_and_the_file_has_them_running(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = SqliteStore(path)
    async with store:
        waiting = asyncio.create_task(store.claim(["default"], 2, 30.0, "w", 10.0))
        while store.statistics()["waiting_claims"] == 0:
            await asyncio.sleep(0)
        jobs = [NewJob(kind="plain", priority=priority, meta={"p": str(priority)}) for priority in (7, 3, 5)]
        ids = (await store.enqueue(jobs)).ids
        leases = await waiting
        assert [(lease.id, lease.fence, lease.attempt, lease.meta) for lease in leases] == [
            (ids[1], 1, 1, {"p": "3"}),
            (ids[2], 1, 1, {"p": "5"}),
        ]
        (status,) = await store.queues()
        assert (status.counts["available"], status.counts["running"]) == (1, 2)
    async with store:
        found = await store.get(ids[1])
        assert found is not None
        assert (found.state, found.fence, found.attempt, found.worker) == ("running", 1, 1, "w")
        assert await store.settle([Completed(lease.id, lease.fence) for lease in leases]) == [Verdict.OK, Verdict.OK]
        (rest,) = await store.claim(["default"], 2, 30.0, "w")
        assert rest.id == ids[0]


async def test_the_log_is_folded_into_the_file_before_it_grows(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "jobs.db") as store:
        log = tmp_path / "jobs.db-wal"
        args = raw("x" * 3_000)
        for _ in range(60):
            await asyncio.gather(*(store.enqueue([NewJob(kind="plain", args=args)]) for _ in range(100)))
        assert (tmp_path / "jobs.db").stat().st_size > 4 * WAL_SIZE, "far more than the log holds was written"
        # Twice the bound while operations wait, and the transaction that passes it.
        assert log.stat().st_size < 3 * WAL_SIZE


async def test_the_deepest_arguments_and_results_that_are_taken_can_be_read_out_of_the_file(tmp_path: Path) -> None:
    deepest = Raw(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    path = tmp_path / "jobs.db"
    async with SqliteStore(path) as store:
        link = NewJob(kind="second", args=deepest)
        await store.enqueue([NewJob(kind="first", args=deepest, then=(link,))])
    async with SqliteStore(path) as store:
        (first,) = await store.claim(["default"], 10, 30.0, "w")
        assert first.args == deepest
        assert await store.settle([Completed(first.id, first.fence, deepest)]) == [Verdict.OK]
        (second,) = await store.claim(["default"], 10, 30.0, "w")
        assert (second.args, second.previous) == (deepest, deepest)
        deeper = Raw(b"[" + bytes(deepest) + b"]")
        assert await store.settle([Completed(second.id, second.fence, deeper)]) == [Verdict.OK]
        failed = await store.get(second.id)
        assert failed is not None
        assert failed.error == "the result is nested deeper than 500 levels"


async def test_an_outcome_of_any_integers_is_lost_and_costs_nobody_anything(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "jobs.db") as store:
        ids = (10**30, -(10**30), 2**63, -1, 0, 2**53)
        outcomes = [Completed(number, fence) for number in ids for fence in (1, 10**30)]
        assert await store.settle(outcomes) == [Verdict.LOST] * len(outcomes)
        assert store.renew([(number, number) for number in ids], 30.0) == [Verdict.LOST] * len(ids)
