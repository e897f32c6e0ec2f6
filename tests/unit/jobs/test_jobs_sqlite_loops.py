"""One SQLite store called from two event loops: each hears of its own operations, also of those in one transaction."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

from fairway.jobs.job import Completed, Enqueued, Job, Lease, NewJob
from fairway.jobs.stores.sqlite import SqliteStore


async def test_operations_of_two_loops_in_one_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open()
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        first = (await store.enqueue([NewJob(kind="first")])).ids[0]
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        go_on = threading.Event()
        busy = asyncio.create_task(store._write(lambda _engine: go_on.wait(5.0)))
        await asyncio.sleep(0)
        before = store.statistics()["commits"]

        async def elsewhere() -> tuple[int, Job, list[Lease], Enqueued]:
            waiting = asyncio.create_task(store.wait(first, 5.0))
            claim = asyncio.create_task(store.claim(["default"], 1, 30.0, "other", 5.0))
            enqueued = asyncio.create_task(store.enqueue([NewJob(kind="there")]))
            await asyncio.sleep(0)
            submitted.set()
            job = await waiting
            return threading.get_ident(), job, await claim, await enqueued

        submitted = threading.Event()
        there: Future[tuple[int, Job, list[Lease], Enqueued]] = asyncio.run_coroutine_threadsafe(elsewhere(), other)
        await asyncio.to_thread(submitted.wait, 5.0)
        # Another loop waits for this job; nobody there has an operation in the transaction that ends it.
        here = [
            asyncio.create_task(store.enqueue([NewJob(kind="here", priority=9)])),
            asyncio.create_task(store.settle([Completed(lease.id, lease.fence)])),
        ]
        await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(5.0):
            assert await busy
            await asyncio.gather(*here)
            ident, job, leases, enqueued = await asyncio.wrap_future(there)
        assert ident == thread.ident
        assert (job.id, job.state) == (first, "completed")
        assert [found.id for found in leases] == enqueued.ids
        assert store.statistics()["commits"] - before <= 3
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()
        await store.close()
