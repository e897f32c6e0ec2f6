"""A store that cannot write: enqueues fail loudly, nothing acknowledged is lost, workers recover by themselves."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.jobs import Queue, Tasks, WorkerConfig
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import JobFilter, NewJob, raw
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.jobs.stores.sqlite_schema import WAL_SIZE
from fairway.testing import FakeClock

pytestmark = pytest.mark.integration


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """No file of this process grows beyond `largest` bytes: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("where", ["within the log", "while the log is folded into the file"])
async def test_a_full_disk_is_told_and_survived(tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()

    @tasks.task
    async def echo(text: str) -> int:
        return len(text)

    async with Queue(SqliteStore(tmp_path / "jobs.db")) as queue:
        acked = [(await queue.enqueue(echo, "x" * 2_000)).id for _ in range(50)]
        # A store with more and more to do folds its log at twice its usual length at the latest: three times as much
        # room is more than that for the log, and soon too little for the file.
        with full_disk(WAL_SIZE // 8 if where == "within the log" else 3 * WAL_SIZE):
            with pytest.raises(StoreUnavailable, match="cannot write"):
                for _ in range(4_000):
                    acked.append((await queue.enqueue(echo, "x" * 20_000)).id)
            async with queue.worker(tasks, WorkerConfig(concurrency=4)) as worker:
                with pytest.raises(StoreUnavailable):
                    for _ in range(4_000):  # what was in the log may have made room in it
                        acked.append((await queue.enqueue(echo, "x" * 20_000)).id)
                resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
                last = await queue.enqueue(echo, "after")
                assert await last.result(60.0) == 5  # behind all the others
                async with asyncio.timeout(60):
                    for job_id in acked:
                        assert (await queue.store.wait(job_id, 60.0)).state == "completed"
                assert worker.statistics().lost == 0
        assert ("cannot be folded" in caplog.text) == (where != "within the log")
        jobs = [job.id for job in await queue.store.find(JobFilter(limit=1000))]
        assert sorted([*acked, last.id])[-1000:] == sorted(jobs), "what was refused was not stored"


async def test_clock_jumps_expire_nothing_and_delay_nothing_relative(tmp_path: Path, fake_clock: FakeClock) -> None:
    async with SqliteStore(tmp_path / "jobs.db", StoreOptions(clock=fake_clock)) as store:
        running, later = (await store.enqueue([NewJob(kind="k"), NewJob(kind="k", delay_s=3600.0)])).ids
        await store.claim(["default"], 1, 30.0, "w")
        fake_clock.jump(7_200.0)
        await store.maintain()
        job = await store.get(running)
        assert job is not None
        assert job.state == "running", "a lease follows the monotonic clock"
        due = await store.get(later)
        assert due is not None
        assert due.state == "available", "a due time follows the wall clock"
        fake_clock.jump(-7_200.0)
        await fake_clock.advance(31.0)
        await store.maintain()
        job = await store.get(running)
        assert job is not None
        assert (job.state, job.attempt) == ("available", 1), "the lease ran out by the monotonic clock"


async def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "jobs.db") as store:
        await store.enqueue([NewJob(kind="k", args=raw(1))])
        with pytest.raises(StoreUnavailable, match="another process"):
            await SqliteStore(tmp_path / "jobs.db").open()
    assert (tmp_path / "jobs.db").stat().st_mode & 0o777 == 0o600
