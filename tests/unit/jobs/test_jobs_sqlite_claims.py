"""Several claims that one transaction of the SQLite store serves."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import apsw
import msgspec
import pytest

from fairway.jobs.job import Completed, Job, Lease, NewJob, Verdict
from fairway.jobs.stores import sqlite_rows
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.jobs.stores.sqlite_engine import Engine
from fairway.jobs.stores.sqlite_writer import Claim


async def _together(store: SqliteStore, claims: list[tuple[list[str], int, str]]) -> list[list[Lease]]:
    """Make claims that the writer finds all at once, because it was busy when they came."""
    go_on = threading.Event()
    busy = asyncio.create_task(store._write(lambda _engine: go_on.wait(5.0)))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(store.claim(queues, limit, 30.0, worker)) for queues, limit, worker in claims]
    await asyncio.sleep(0)
    before = store.statistics()["commits"]
    go_on.set()
    assert await busy
    found = await asyncio.gather(*waiting)
    assert store.statistics()["commits"] - before <= 2
    return found


async def _state(store: SqliteStore, job_id: int) -> Job:
    job = await store.get(job_id)
    assert job is not None
    return job


async def test_claims_of_one_transaction_share_what_is_waiting_and_the_file_says_whose_each_is(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    async with store:
        # Priorities make an order that is not that of the ids; another queue's jobs lie between; some are gone.
        ids: dict[str, list[int]] = {"a": [], "b": []}
        priorities = [1, 9, 3, 5, 5, 5, 5, 0, 5, 5, 5, 5, 5, 2, 5, 5]
        for n, priority in enumerate(priorities):
            meta = {"n": str(n)} if n % 3 == 0 else {}
            ids["a"] += (await store.enqueue([NewJob(kind="k", queue="a", priority=priority, meta=meta)])).ids
            if n % 5 == 4:
                ids["b"] += (await store.enqueue([NewJob(kind="k", queue="b")])).ids
        gone = ids["a"][9]
        await store.cancel(gone)
        order = sorted((n for n in range(16) if n != 9), key=lambda n: (priorities[n], n))
        wanted = [ids["a"][n] for n in order]

        first, second, third, fourth = await _together(
            store, [(["a"], 3, "w0"), (["a", "b"], 4, "w1"), (["b", "a"], 3, "w2"), (["a"], 1, "w3")]
        )
        assert [lease.id for lease in first] == wanted[:3]
        assert [lease.id for lease in second] == wanted[3:7]
        assert [lease.id for lease in third] == ids["b"]
        assert [lease.id for lease in fourth] == wanted[7:8]
        place = {job_id: n for n, job_id in enumerate(ids["a"])}
        for lease in (*first, *second, *fourth):
            n = place[lease.id]
            assert lease.meta == ({"n": str(n)} if n % 3 == 0 else {})
        (a, b) = await store.queues()
        assert (a.counts["available"], a.counts["running"]) == (7, 8)
        assert (b.counts["available"], b.counts["running"]) == (0, 3)
    async with store:
        for worker, leases in {"w0": first, "w1": second, "w2": third, "w3": fourth}.items():
            for lease in leases:
                job = await _state(store, lease.id)
                assert (job.state, job.worker, job.fence, job.attempt) == ("running", worker, 1, 1)
        for job_id in wanted[8:]:
            job = await _state(store, job_id)
            assert (job.state, job.fence, job.worker) == ("available", 0, None)
        assert (await _state(store, gone)).state == "cancelled"
        done = [Completed(lease.id, lease.fence) for lease in (*first, *second, *third, *fourth)]
        assert await store.settle(done) == [Verdict.OK] * 11
        (rest,) = await _together(store, [(["a", "b"], 100, "w4")])
        assert [lease.id for lease in rest] == wanted[8:]


async def test_ids_that_span_others_are_started_one_by_one(tmp_path: Path) -> None:
    # First and last of the claim are as far apart as its length, but what is between them is not what it took.
    store = SqliteStore(tmp_path / "jobs.db")
    async with store:
        ids = [(await store.enqueue([NewJob(kind="k", priority=p)])).ids[0] for p in (1, 5, 3, 5, 5, 5, 5, 5, 2)]
        leases = await store.claim(["default"], 3, 30.0, "w")
        assert [lease.id for lease in leases] == [ids[0], ids[8], ids[2]]
    async with store:
        states = [(await _state(store, job_id)).state for job_id in ids]
        assert [n for n, state in enumerate(states) if state == "running"] == [0, 2, 8]


async def test_a_claim_that_is_larger_than_what_was_read_ahead_gets_all_it_may(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    async with store:
        ids = (await store.enqueue([NewJob(kind="k") for _ in range(2_500)])).ids
        found = await _together(store, [(["default"], 600, "w0"), (["default"], 600, "w1"), (["default"], 1_000, "w2")])
        assert [lease.id for leases in found for lease in leases] == ids[:2_200]
        assert [len(leases) for leases in found] == [600, 600, 1_000]


async def test_claims_of_two_queues_by_turns_read_no_job_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, read = sqlite_rows.decode_leases, list[int]()

    def counted(column: str) -> list[Lease]:
        leases = decode(column)
        read.append(len(leases))
        return leases

    monkeypatch.setattr(sqlite_rows, "decode_leases", counted)
    store = SqliteStore(tmp_path / "jobs.db")
    async with store:
        ids = {queue: (await store.enqueue([NewJob(kind="k", queue=queue)] * 100)).ids for queue in ("a", "b")}
        found = await _together(store, [([queue], 2, f"{queue}{n}") for n in range(10) for queue in ("a", "b")])
        assert [lease.id for leases in found[::2] for lease in leases] == ids["a"][:20]
        assert [lease.id for leases in found[1::2] for lease in leases] == ids["b"][:20]
        assert read == [20, 20]
    async with store:
        for queue in ("a", "b"):
            for n, job_id in enumerate(ids[queue][:22]):
                job = await _state(store, job_id)
                assert (job.state, job.worker) == (("running", f"{queue}{n // 2}") if n < 20 else ("available", None))


async def test_what_a_failed_transaction_gave_a_claim_is_not_handed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was written of it, so that its job has gone to another since, under the very same fence."""
    store = SqliteStore(tmp_path / "jobs.db")
    async with store:
        (job_id,) = (await store.enqueue([NewJob(kind="k")])).ids
        writer = store._open_writer()
        engine, go_on, failed = writer.engine, threading.Event(), list[bool]()
        assert engine is not None
        loop, commit = asyncio.get_running_loop(), engine.commit
        second = Claim(["default"], 1, 30.0, "second", deadline=0.0, loop=loop)

        def full() -> None:
            if engine.running and not failed:
                failed.append(True)
                writer.submit(second)
                raise apsw.FullError("no space is left")
            commit()

        begun = threading.Event()

        def hold(_engine: Engine) -> bool:
            begun.set()
            return go_on.wait(5.0)

        monkeypatch.setattr(engine, "commit", full)
        busy = asyncio.create_task(store._write(hold))
        assert await asyncio.to_thread(begun.wait, 5.0)  # the claim comes too late for the transaction of this
        first = asyncio.create_task(store.claim(["default"], 1, 30.0, "first"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait((first,))
        go_on.set()
        assert await busy
        assert second.future is not None
        (lease,) = await second.future
        await store._write(lambda _engine: None)  # after all that was submitted before
        job = await _state(store, job_id)
        assert (job.state, job.worker, job.fence) == ("running", "second", lease.fence)
        assert failed
        assert await store.settle([Completed(job_id, lease.fence)]) == [Verdict.OK]


async def test_waiting_jobs_that_one_string_cannot_hold_are_claimed_in_parts(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    async with store:
        text = json.dumps("x" * 10_000).encode()
        ids = (await store.enqueue([NewJob(kind="k", queue="a", args=msgspec.Raw(text)) for _ in range(40)])).ids
    async with store:  # what is read from the file, not what is remembered of the enqueue

        def limit(engine: Engine) -> None:
            engine._db.limit(apsw.SQLITE_LIMIT_LENGTH, 100_000)

        await store._write(limit)
        claimed: list[int] = []
        rounds = 0
        while leases := await store.claim(["a"], 40, 30.0, "w"):
            claimed += [lease.id for lease in leases]
            rounds += 1
        assert claimed == ids
        assert 1 < rounds <= 20
