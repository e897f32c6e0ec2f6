"""What handlers raise, where it cannot be stored as it is: it ends its own job, and no worker waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.jobs import Discard, JobContext, JobHandle, Queue, Tasks
from fairway.jobs.errors import InvalidJob
from fairway.jobs.job import Job
from fairway.jobs.stores.memory import MemoryStore
from fairway.jobs.stores.sqlite import SqliteStore

pytestmark = pytest.mark.timeout(20)


async def ended(handle: JobHandle[object]) -> Job:
    job = await handle._store.wait(handle.id, 10.0)
    assert job.final, job
    return job


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_error_that_no_store_can_take_as_it_is_ends_its_own_job_only(kind: str, tmp_path: Path) -> None:
    tasks = Tasks()

    @tasks.task(max_attempts=1)
    async def surrogate() -> None:
        raise ValueError("no file \udcff")

    @tasks.task(max_attempts=1)
    async def discarded() -> None:
        raise Discard("no file \udcff")

    @tasks.task(max_attempts=1)
    async def speechless() -> None:
        raise Speechless

    @tasks.task(max_attempts=1)
    async def noted(ctx: JobContext) -> str:
        await ctx.progress(0.5, "at \udcff")
        with pytest.raises(InvalidJob, match="surrogates"):
            await ctx.once("\udcff")
        return (await ctx._store.wait(ctx.id, 0.0)).note or ""

    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "jobs.db")
    async with Queue(store) as queue, queue.worker(tasks):
        job = await ended(await queue.enqueue(surrogate))
        assert (job.error or "").startswith("ValueError: no file \\udcff\nTraceback")
        assert (await ended(await queue.enqueue(discarded))).error == "no file \\udcff"
        job = await ended(await queue.enqueue(speechless))
        assert (job.error or "").startswith("Speechless: (its text could not be made: RuntimeError)\nTraceback")
        assert await queue.call(noted) == "at \\udcff"
