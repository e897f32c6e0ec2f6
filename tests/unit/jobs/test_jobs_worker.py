"""The worker: endings, interruptions, drain, a store that goes away."""

import asyncio
import contextvars
import math
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from fairway.concurrency import background, with_cancel
from fairway.jobs import Discard, JobContext, JobHandle, Queue, Retry, Snooze, Tasks, WorkerConfig
from fairway.jobs.errors import InvalidJob, JobFailed, StoreUnavailable
from fairway.jobs.heartbeat import Heartbeat
from fairway.jobs.job import Job, Lease, NewJob, Outcome, Verdict
from fairway.jobs.stores.memory import MemoryStore
from fairway.jobs.tasks import Next
from fairway.jobs.worker import Worker

pytestmark = pytest.mark.timeout(20)


class Flaky(MemoryStore):
    """A store that fails as often as told."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    def _maybe_fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the disk is full")

    async def claim(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        self._maybe_fail()
        return await super().claim(queues, limit, lease_s, worker, wait_s)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        self._maybe_fail()
        return await super().settle(outcomes)


@asynccontextmanager
async def working(tasks: Tasks, store: MemoryStore | None = None, **config: object) -> AsyncIterator[Queue]:
    async with Queue(store or MemoryStore()) as queue:
        async with queue.worker(tasks, WorkerConfig(**config)):  # type: ignore[arg-type]
            yield queue


async def ended(handle: JobHandle[object]) -> Job:
    job = await handle._store.wait(handle.id, 10.0)
    assert job.final, job
    return job


async def test_results_come_back_as_the_type_they_had() -> None:
    tasks = Tasks()

    @tasks.task
    async def pair(n: int) -> tuple[int, str]:
        return n, str(n)

    async with working(tasks) as queue:
        assert await queue.call(pair, 3) == (3, "3")


async def test_every_ending_has_its_state() -> None:
    tasks = Tasks()
    seen: list[int] = []

    @tasks.task(max_attempts=1)
    async def fails() -> None:
        raise ValueError("bad")

    @tasks.task
    async def hopeless() -> None:
        raise Discard("never")

    @tasks.task(max_attempts=2)
    async def again(ctx: JobContext) -> None:
        seen.append(ctx.attempt)
        raise Retry(0.0, "once more")

    @tasks.task(max_attempts=1)
    async def later(ctx: JobContext) -> int:
        if ctx.fence < 3:
            raise Snooze(0.0)
        return ctx.attempt

    @tasks.task(max_attempts=1)
    async def unwritable() -> object:
        return object()

    async with working(tasks) as queue:
        job = await ended(await queue.enqueue(fails))
        assert job.state == "discarded"
        assert (job.error or "").startswith("ValueError: bad\nTraceback")
        assert (await ended(await queue.enqueue(hopeless))).error == "never"
        assert (await ended(await queue.enqueue(again))).error == "once more"
        assert seen == [1, 2]
        assert await queue.call(later) == 1
        assert "unsupported" in ((await ended(await queue.enqueue(unwritable))).error or "")
        with pytest.raises(JobFailed, match="never"):
            await queue.call(hopeless)


async def test_a_kind_that_nobody_knows_fails_and_is_tried_again() -> None:
    known, unknown = Tasks(), Tasks()

    @unknown.task
    async def mystery() -> None: ...

    async with working(known) as queue:
        handle = await queue.enqueue(mystery)
        async with asyncio.timeout(5):
            while (job := await handle.job()).state != "retryable":
                await asyncio.sleep(0)
        assert "no task is named 'mystery'" in (job.error or "")


async def test_timeouts_and_cancellation_reach_the_handler() -> None:
    tasks = Tasks()
    started, hurt = asyncio.Event(), []

    @tasks.task(timeout_s=0.02, max_attempts=1)
    async def slow() -> None:
        await asyncio.sleep(60)

    @tasks.task
    async def patient() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            hurt.append("cancelled")
            raise

    async with working(tasks, concurrency=1, lease_s=1.0, heartbeat_s=0.02) as queue:
        job = await ended(await queue.enqueue(slow))
        assert (job.state, job.error) == ("discarded", "ran out of time: 0.02 s")
        handle = await queue.enqueue(patient)
        await started.wait()
        waiting = await queue.enqueue(patient)
        await waiting.cancel()
        await handle.cancel()
        assert (await ended(handle)).state == "cancelled"
        assert (await ended(waiting)).state == "cancelled"
        assert hurt == ["cancelled"], "the one that waited here was never begun"
        job = await ended(await queue.enqueue(slow))
        assert job.state == "discarded", "the runner lives on after interruptions"


@pytest.mark.parametrize("how", ["future", "itself", "itself at the end", "exit", "thread's exit"])
async def test_a_handler_that_ends_badly_ends_no_runner(how: str) -> None:
    tasks = Tasks()

    def leave() -> None:
        sys.exit(3)

    async def bad() -> None:
        current = asyncio.current_task()
        assert current is not None
        if how == "future":
            waited_for = asyncio.get_running_loop().create_future()
            waited_for.cancel()
            await waited_for
        elif how == "exit":
            sys.exit(3)
        else:
            current.cancel()
            if how == "itself":
                await asyncio.sleep(0)

    @tasks.task
    async def good() -> str:
        await asyncio.sleep(0)
        return "done"

    task = tasks.task(max_attempts=1)(leave if how == "thread's exit" else bad)
    async with working(tasks, concurrency=1) as queue:
        job = await ended(await queue.enqueue(task))
        assert await queue.call(good) == "done"
    assert job.state == ("completed" if how == "itself at the end" else "discarded")
    if job.state == "discarded":
        assert job.error is not None
        assert ("SystemExit: 3" if "exit" in how else "was cancelled") in job.error


async def test_context_variables_do_not_reach_the_next_job() -> None:
    tasks, seen = Tasks(), []
    tenant: contextvars.ContextVar[int | None] = contextvars.ContextVar("tenant", default=None)

    @tasks.task
    async def bind(n: int) -> None:
        seen.append(tenant.get())
        tenant.set(n)
        if n % 2:
            await asyncio.sleep(0)

    token = tenant.set(-1)
    try:
        async with working(tasks, concurrency=1) as queue:
            for handle in [await queue.enqueue(bind, n) for n in range(4)]:
                await ended(handle)
    finally:
        tenant.reset(token)
    assert seen == [-1] * 4


async def test_threads_hear_of_the_end_and_keep_their_slot() -> None:
    tasks = Tasks()
    inside = threading.Event()

    @tasks.task(timeout_s=0.05, max_attempts=1)
    def blocking(ctx: JobContext) -> str:
        ctx.run(ctx.progress(0.5, "half"))
        inside.set()
        assert ctx.stopped.wait(5.0)
        return "too late"

    @tasks.task
    def quick(n: int) -> int:
        return n + 1

    async with working(tasks, concurrency=1) as queue:
        handle = await queue.enqueue(blocking)
        assert (await ended(handle)).error == "ran out of time: 0.05 s"
        assert inside.is_set()
        assert await queue.call(quick, 1) == 2


async def test_a_blocked_loop_keeps_its_leases() -> None:
    store = MemoryStore()
    async with store:
        await store.enqueue([NewJob(kind="k")])
        (lease,) = await store.claim(["default"], 1, 0.2, "w")
        heartbeat = Heartbeat(store, {lease.id: lease.fence}, lease_s=0.2, interval_s=0.05, report=lambda told: None)
        heartbeat.start()
        blocked = asyncio.get_running_loop().time()
        threading.Event().wait(0.5)
        assert asyncio.get_running_loop().time() - blocked > 0.4
        await store.maintain()
        job = await store.get(lease.id)
        assert job is not None
        assert (job.state, job.fence) == ("running", 1)
        assert heartbeat.beats >= 5
        await asyncio.to_thread(heartbeat.stop)


async def test_the_heartbeat_lingers_and_then_sleeps_until_there_is_something_again() -> None:
    store = MemoryStore()
    async with store:
        await store.enqueue([NewJob(kind="k")])
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        held: dict[int, int] = {}
        heartbeat = Heartbeat(store, held, lease_s=30.0, interval_s=0.01, report=lambda told: None)
        heartbeat.start()
        assert heartbeat.idle
        async with asyncio.timeout(5):
            for beats in (1, 2):
                held[lease.id] = lease.fence
                heartbeat.wake()
                while heartbeat.beats < beats:
                    await asyncio.sleep(0)
                held.clear()
                while not heartbeat.idle:
                    await asyncio.sleep(0)
                seen = heartbeat.beats
        assert heartbeat.beats == seen
        await asyncio.to_thread(heartbeat.stop)


async def test_the_heartbeat_outlives_a_store_with_a_bug() -> None:
    class Garbled(MemoryStore):
        """Answers the first renewal with what nobody expects."""

        asked = 0

        def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
            self.asked += 1
            if self.asked == 1:
                raise ValueError("an answer that is no JSON")
            return super().renew(leases, lease_s)

    async with Garbled() as store:
        await store.enqueue([NewJob(kind="k")])
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        held = {lease.id: lease.fence}
        heartbeat = Heartbeat(store, held, lease_s=30.0, interval_s=0.01, report=lambda told: None)
        heartbeat.start()
        async with asyncio.timeout(5):
            while not heartbeat.beats:
                await asyncio.sleep(0)
        assert heartbeat.failures == 1
        await asyncio.to_thread(heartbeat.stop)


async def test_a_handler_that_ignores_its_cancellation_is_left_behind() -> None:
    tasks, gate, begun = Tasks(), asyncio.Event(), asyncio.Event()

    @tasks.task
    async def stubborn() -> None:
        begun.set()
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()

    async with Queue(MemoryStore()) as queue:
        handle = await queue.enqueue(stubborn)
        ctx = with_cancel(background())
        running = asyncio.create_task(Worker(queue.store, tasks, WorkerConfig(grace_s=0.0)).run(ctx))
        await begun.wait()
        ctx.cancel()
        await running
        job = await queue.store.get(handle.id)
        assert job is not None
        assert job.state == "available"
        gate.set()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*left, return_exceptions=True)


async def test_drain_hands_back_and_finishes() -> None:
    tasks = Tasks()
    gate = asyncio.Event()

    @tasks.task
    async def wait_for_gate() -> str:
        await gate.wait()
        return "done"

    @tasks.task
    async def endless() -> None:
        await asyncio.sleep(600)

    async with Queue(MemoryStore()) as queue:
        ctx = with_cancel(background())
        worker = queue.worker(tasks, WorkerConfig(concurrency=2, grace_s=0.1, prefetch=0))
        running = asyncio.create_task(worker.run(ctx))
        first = await queue.enqueue(wait_for_gate)
        second = await queue.enqueue(endless)
        third = await queue.enqueue(wait_for_gate)
        async with asyncio.timeout(5):
            while worker.statistics().running < 2:
                await asyncio.sleep(0)
        ctx.cancel()
        await asyncio.sleep(0)
        gate.set()
        await running
        assert (await first.job()).state == "completed"
        assert ((await second.job()).state, (await second.job()).attempt) == ("available", 0)
        assert ((await third.job()).state, (await third.job()).attempt) == ("available", 0)
        assert worker.statistics().held == 0


async def test_middleware_wraps_from_the_outside_in() -> None:
    tasks = Tasks()
    seen: list[str] = []

    @tasks.use
    async def outer(ctx: JobContext, call_next: Next) -> object:
        seen.append(f"outer {ctx.kind}")
        result = await call_next()
        seen.append("outer end")
        return result

    @tasks.use
    async def inner(_ctx: JobContext, call_next: Next) -> object:
        seen.append("inner")
        return (await call_next()) + 1

    @tasks.task
    async def one() -> int:
        return 1

    async with working(tasks) as queue:
        assert await queue.call(one) == 2
    assert seen == ["outer one", "inner", "outer end"]


async def test_a_store_that_fails_is_waited_for() -> None:
    tasks = Tasks()

    @tasks.task
    async def one() -> int:
        return 1

    store = Flaky()
    async with working(tasks, store) as queue:
        store.failures = 2
        assert await queue.call(one) == 1


async def test_once_skips_what_was_done() -> None:
    tasks = Tasks()
    charged: list[int] = []

    @tasks.task
    async def charge(ctx: JobContext, order: int, fail: bool = False) -> bool:
        first = await ctx.once(f"order-{order}")
        if first:
            charged.append(order)
        if fail and ctx.attempt == 1:
            raise Retry(0.0)
        return first

    async with working(tasks) as queue:
        assert await queue.call(charge, 1)
        assert not await queue.call(charge, 1)
        assert await queue.call(charge, 2, fail=True)
    assert charged == [1, 2, 2]


async def test_batches_and_chains_through_the_queue() -> None:
    tasks = Tasks()
    summary: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @tasks.task
    async def part(n: int) -> int:
        return n

    @tasks.task
    async def whole(ctx: JobContext) -> None:
        summary.set_result(ctx.previous)

    @tasks.task
    async def add(ctx: JobContext, n: int) -> int:
        return int(ctx.previous or 0) + n

    async with working(tasks) as queue:
        handles = await queue.enqueue_many([part.job(n) for n in range(5)], callback=whole.job())
        assert [await handle.result() for handle in handles] == [0, 1, 2, 3, 4]
        async with asyncio.timeout(5):
            told = await summary
        assert isinstance(told, dict)
        assert (told["total"], told["failed"]) == (5, 0)
        chain = add.using(then=(add.job(2), add.job(3)))
        handle = await queue.enqueue(chain, 1)
        await handle.result()
        assert [await queue.handle(handle.id + link).result() for link in (1, 2)] == [3, 6]


@pytest.mark.parametrize(
    "config",
    [
        *({"concurrency": 0}, {"queues": {}}, {"queues": {"a": 0}}, {"prefetch": -1}),
        *({"lease_s": 0.0}, {"lease_s": math.nan}, {"heartbeat_s": math.nan}, {"grace_s": math.inf}),
    ],
)
def test_bad_configurations_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(InvalidJob):
        Worker(MemoryStore(), Tasks(), WorkerConfig(**config))  # type: ignore[arg-type]


def test_weights_decide_who_is_asked_first() -> None:
    worker = Worker(MemoryStore(), Tasks(), WorkerConfig(queues={"often": 9, "seldom": 1}))
    first = [worker._order()[0] for _ in range(2_000)]
    assert 1_650 < first.count("often") < 1_950
    assert set(worker._order()) == {"often", "seldom"}
