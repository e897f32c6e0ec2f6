"""The pile between fetcher, runners and settler; and what handlers see of it."""

import asyncio
from collections import Counter

import pytest

from fairway.concurrency import Closed
from fairway.jobs import JobHandle, Queue, Tasks, WorkerConfig
from fairway.jobs.job import Verdict
from fairway.jobs.pile import Pile
from fairway.jobs.stores.memory import MemoryStore

pytestmark = pytest.mark.timeout(20)


async def _turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_a_ring_wakes_as_many_takers_as_it_says() -> None:
    pile: Pile[int] = Pile(3)
    woken: list[int] = []

    async def taker(n: int) -> None:
        await pile.wait()
        woken.append(n)

    tasks = [asyncio.create_task(taker(n)) for n in range(3)]
    await _turns()
    assert pile.parked == 3
    pile.ring()
    pile.ring()
    assert pile.parked == 1
    await _turns()
    assert woken == [0, 1]
    pile.ring(100)
    await asyncio.gather(*tasks)
    assert pile.parked == 0
    pile.ring()  # for nobody: no taker that comes later is woken by it
    late = asyncio.create_task(taker(9))
    await _turns()
    assert not late.done()
    pile.close()
    with pytest.raises(Closed):
        await late


async def test_a_cancelled_taker_is_not_rung_for() -> None:
    pile: Pile[int] = Pile(2)
    first, second = asyncio.create_task(pile.wait()), asyncio.create_task(pile.wait())
    await _turns()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert pile.parked == 1
    pile.ring()
    await second
    assert pile.parked == 0


async def test_handlers_that_suspend_run_side_by_side_and_those_that_do_not_share_a_runner() -> None:
    tasks, store = Tasks(), MemoryStore()
    inside = 0
    all_in = asyncio.Event()
    runners: Counter[asyncio.Task[object] | None] = Counter()

    @tasks.task
    async def meet() -> None:
        nonlocal inside
        inside += 1
        if inside == 20:
            all_in.set()
        await all_in.wait()

    @tasks.task
    async def short(n: int) -> int:
        runners[asyncio.current_task()] += 1
        return n

    async with Queue(store) as queue:
        # There before the worker: one claim takes them all.
        handles: list[JobHandle[object]] = await queue.enqueue_many([meet.job() for _ in range(20)])
        async with queue.worker(tasks, WorkerConfig(concurrency=20)):
            for handle in handles:
                await handle.result(5.0)
        mixed = [short.job(n) if n % 2 else meet.job() for n in range(100)]
        inside = -30
        all_in.clear()
        handles = await queue.enqueue_many(mixed)
        async with queue.worker(tasks, WorkerConfig(concurrency=64)):
            for handle in handles:
                await handle.result(5.0)
        assert runners.total() == 50
        assert None not in runners
        runners.clear()
        handles = await queue.enqueue_many([short.job(n) for n in range(50)])
        async with queue.worker(tasks, WorkerConfig(concurrency=20)):
            assert [await handle.result(5.0) for handle in handles] == list(range(50))
        assert len(runners) < 5, "short jobs of one batch were spread over the runners"


async def test_a_timeout_of_the_handlers_own_works_before_it_ever_suspends() -> None:
    tasks = Tasks()

    @tasks.task(max_attempts=1)
    async def impatient() -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            assert task.cancelling() == 0
            return "gave up"
        return "never"

    async with Queue(MemoryStore()) as queue, queue.worker(tasks, WorkerConfig(concurrency=1)):
        assert await queue.call(impatient) == "gave up"
        assert await queue.call(impatient) == "gave up"


async def test_a_job_that_is_cancelled_before_its_turn_is_not_begun_and_costs_no_runner() -> None:
    tasks, store = Tasks(), MemoryStore()
    gate, started = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @tasks.task
    async def hold() -> None:
        started.set()
        await gate.wait()

    @tasks.task
    async def short(n: int) -> int:
        ran.append(n)
        return n

    async with Queue(store) as queue:
        config = WorkerConfig(concurrency=1, lease_s=1.0, prefetch=8)
        holder = await queue.enqueue(hold)
        async with queue.worker(tasks, config) as worker:
            await started.wait()
            # As the heartbeat reports it: the job is held, waits for the runner, and was cancelled meanwhile.
            (handle,) = await queue.enqueue_many([short.job(1)])
            (lease,) = await store.claim(["default"], 1, 30.0, worker.name)
            worker._held[lease.id] = lease.fence
            worker._waiting.items.append(lease)
            await handle.cancel()
            worker._stop_attempts([(lease.id, lease.fence, Verdict.CANCEL)])
            gate.set()
            await holder.result()
            job = await store.wait(handle.id, 5.0)
            assert job.state == "cancelled"
            assert ran == []
            assert await queue.call(short, 2) == 2
