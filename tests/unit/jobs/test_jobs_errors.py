"""What handlers raise, where it cannot be stored as it is: it ends its own job, and no worker waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.jobs import Discard, JobContext, JobHandle, Queue, Tasks
from fairway.jobs.errors import InvalidJob, ResultGone, ResultInvalid
from fairway.jobs.job import Job
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.memory import MemoryStore
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.testing import FakeClock

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


async def test_a_result_that_is_gone_or_of_another_type_is_said(fake_clock: FakeClock) -> None:
    tasks = Tasks()

    @tasks.task(result_ttl_s=5.0)
    async def number() -> int:
        return 7

    @tasks.task(result_ttl_s=5.0)
    async def nothing() -> None: ...

    @tasks.task
    async def annotated_otherwise() -> int:
        return "seven"  # type: ignore[return-value]  # what is tested

    store = MemoryStore(StoreOptions(clock=fake_clock))
    async with Queue(store) as queue, queue.worker(tasks):
        handles = [await queue.enqueue(number), await queue.enqueue(nothing)]
        assert [await handle.result() for handle in handles] == [7, None]
        await fake_clock.advance(5.1)
        for handle in handles:
            with pytest.raises(ResultGone, match="no longer kept"):
                await handle.result()
        with pytest.raises(ResultInvalid, match="Expected `int`, got `str`"):
            await queue.call(annotated_otherwise)
