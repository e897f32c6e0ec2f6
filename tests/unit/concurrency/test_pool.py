"""`WorkerPool`: tasks, threads and processes behind one channel."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from typing import Any

import pytest

from fairway.concurrency import (
    Canceled,
    Chan,
    DeadlineExceeded,
    RemoteFailure,
    SendOnClosed,
    WorkerDied,
    WorkerPool,
    WrongArgument,
    background,
    with_cancel,
    with_timeout,
)
from fairway.concurrency.timing import now
from fairway.testing.loop import elapse, virtual_time


async def slow_square(x: int) -> int:
    await elapse(10 - x)
    return x * x


@virtual_time
async def test_results_as_completed_and_in_order() -> None:
    async with WorkerPool(slow_square, 4) as pool:
        assert [r.unwrap() async for r in pool.run(range(4))] == [9, 4, 1, 0]
    async with WorkerPool(slow_square, 4, ordered=True) as pool:
        assert [r.unwrap() async for r in pool.run(range(10))] == [x * x for x in range(10)]
    assert repr(pool) == "<WorkerPool 0/4 busy>"


@virtual_time
async def test_never_more_at_once_than_workers() -> None:
    active = [0, 0]

    async def work(_: int) -> None:
        active[0] += 1
        active[1] = max(active)
        await elapse(1)
        active[0] -= 1

    start = now()
    async with WorkerPool(work, 3) as pool:
        for i in range(9):
            await pool.publish(i)
    assert active == [0, 3]
    assert now() - start == pytest.approx(3)
    assert pool.statistics().succeeded == 9


@virtual_time
async def test_failures_and_timeouts_are_values() -> None:
    async def work(x: float) -> float:
        if x == 2:
            raise ValueError("two")
        await elapse(x)
        return x

    async with WorkerPool(work, 2, timeout=5, ordered=True) as pool:
        results = [r async for r in pool.run([1, 2, 100, 3])]
    assert [r.value for r in results] == [1, None, None, 3]
    assert [type(r.error) for r in results] == [type(None), ValueError, DeadlineExceeded, type(None)]
    assert str(results[2].error) == "expected the item to take at most 5 s"
    with pytest.raises(ValueError, match="two"):
        results[1].unwrap()
    assert (pool.statistics().succeeded, pool.statistics().failed) == (2, 2)


@virtual_time
async def test_the_functions_own_timeout_is_its_own_failure() -> None:
    async def work(_: int) -> None:
        raise TimeoutError("mine")

    async with WorkerPool(work, timeout=5) as pool:
        (result,) = [r async for r in pool.run([1])]
    assert str(result.error) == "mine"


@virtual_time
async def test_a_function_that_cancels_itself_ends_its_item_only() -> None:
    async def work(x: int) -> int:
        if x == 0:
            raise asyncio.CancelledError
        return x

    async with WorkerPool(work, 1) as pool:
        results = [r async for r in pool.run([0, 1])]
    assert isinstance(results[0].error, Canceled)
    assert results[1].value == 1


@virtual_time
async def test_the_guides_form(caplog: pytest.LogCaptureFixture) -> None:
    """start, publish, dispatch, stop; what fails without results goes to the log."""
    handled: list[str] = []

    async def handle(event: str) -> None:
        if event == "bad":
            raise ValueError("cannot")
        handled.append(event)

    pool = WorkerPool(handle, 2, buffer=10).start()
    assert pool.start() is pool
    await pool.publish("a")
    assert pool.try_publish("bad")
    events = Chan[str](2)
    await events.send_many(["b", "c"])
    events.close()
    with caplog.at_level(logging.ERROR):
        await pool.dispatch(events)
        await pool.dispatch(["d"])
        await pool.stop()
    await pool.stop()
    assert sorted(handled) == ["a", "b", "c", "d"]
    assert "handle failed: ValueError: cannot" in caplog.text
    with pytest.raises(SendOnClosed):
        await pool.publish("late")


@virtual_time
async def test_publish_gives_back_pressure_and_ends_with_the_context() -> None:
    ctx = with_timeout(background(), 5)
    gate = Chan[None]()

    async def work(_: int) -> None:
        await gate.recv_ok()

    async with WorkerPool(work, 1, ctx=ctx, buffer=1) as pool:
        await pool.publish(1)
        await asyncio.sleep(0)
        await pool.publish(2)
        assert not pool.try_publish(3)
        assert repr(pool) == "<WorkerPool 1/1 busy [1 queued]>"
        with pytest.raises(DeadlineExceeded):
            await pool.publish(3)
        with pytest.raises(DeadlineExceeded):
            await pool.publish(4)
        assert not pool.try_publish(5)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("ordered", [False, True])
def test_the_end_of_the_context_ends_the_results(ordered: bool) -> None:
    @virtual_time
    async def run() -> None:
        ctx = with_timeout(background(), 15)
        async with WorkerPool(slow_square, 1, ctx=ctx, ordered=ordered) as pool:
            assert [r.value async for r in pool.run(range(5))] == [0]
        assert isinstance(pool.ctx.err(), DeadlineExceeded)
        assert len(asyncio.all_tasks()) == 1

    run()


@virtual_time
async def test_leaving_with_results_unread_gives_up_the_rest() -> None:
    async with WorkerPool(slow_square, 2) as pool:
        async for result in pool.run(range(10)):
            assert result.value == 1
            break
    assert len(asyncio.all_tasks()) == 1
    assert pool.statistics().busy == 0


@virtual_time
async def test_a_failing_block_cancels_the_pool() -> None:
    ended: list[str] = []

    async def work(_: int) -> None:
        try:
            await elapse(1000)
        finally:
            ended.append("cancelled")

    with pytest.raises(KeyError):
        async with WorkerPool(work, 1) as pool:
            await pool.publish(1)
            await elapse(1)
            raise KeyError("block")
    assert ended == ["cancelled"]
    assert isinstance(pool.ctx.cause(), KeyError)


@virtual_time
async def test_a_failing_source_is_raised_at_the_end() -> None:
    def source() -> Any:
        yield 1
        raise ValueError("source")

    async def work(x: int) -> int:
        return x

    with pytest.raises(ValueError, match="source"):
        async with WorkerPool(work) as pool:
            async for _ in pool.run(source()):
                pass


@virtual_time
async def test_results_asked_for_after_the_end_are_closed() -> None:
    async with WorkerPool(slow_square) as pool:
        pass
    assert await pool.results.recv_ok() == (None, False)


def test_arguments() -> None:
    for make in (
        lambda: WorkerPool(print, 0),
        lambda: WorkerPool(print, "4"),  # type: ignore[call-overload]
        lambda: WorkerPool(print, timeout=0),
        lambda: WorkerPool(5),  # type: ignore[call-overload]
        lambda: WorkerPool(print, mode="fiber"),  # type: ignore[call-overload]
        lambda: WorkerPool(slow_square, mode="thread"),
        lambda: WorkerPool(print, buffer=-1),
    ):
        with pytest.raises(WrongArgument, match="expected"):
            make()


# -- threads ---------------------------------------------------------------------------------------------------


async def test_plain_functions_run_in_threads() -> None:
    names: set[str] = set()

    def work(x: int) -> int:
        names.add(threading.current_thread().name)
        if x == 3:
            raise ValueError("three")
        return x + 1

    async with WorkerPool(work, 2, ordered=True) as pool:
        results = [r async for r in pool.run(range(5))]
    assert [r.value for r in results] == [1, 2, 3, None, 5]
    assert all(name.startswith("WorkerPool") for name in names)
    assert len(names) <= 2


async def test_a_thread_that_is_late_is_reported_at_once_and_keeps_its_worker() -> None:
    gate = threading.Event()
    started: list[str] = []

    def work(item: str) -> None:
        started.append(item)
        if item == "stuck":
            gate.wait()

    async with WorkerPool(work, 1, timeout=0.01) as pool:
        results = pool.run(["stuck", "next"])
        first = await results.recv()
        assert isinstance(first.error, DeadlineExceeded)
        await asyncio.sleep(0)
        assert started == ["stuck"]
        gate.set()
        assert (await results.recv()).ok
    assert started == ["stuck", "next"]


async def test_cancel_of_a_pool_with_busy_threads() -> None:
    gate, begun = threading.Event(), threading.Event()

    def work(_: int) -> None:
        begun.set()
        gate.wait()

    ctx = with_cancel(background())
    async with WorkerPool(work, 1, ctx=ctx) as pool:
        await pool.publish(1)
        await asyncio.to_thread(begun.wait)
        ctx.cancel()
        gate.set()
    assert pool.statistics().busy == 0


# -- processes: their functions come from the standard library, because a process has to import them -------------


async def test_plain_functions_run_in_processes() -> None:
    async with WorkerPool(math.factorial, 2, mode="process", ordered=True) as pool:
        results = [r async for r in pool.run([5, -1, 7])]
    assert [r.value for r in results] == [120, None, 5040]
    assert isinstance(results[1].error, ValueError)
    assert "In the worker process" in results[1].error.__notes__[0]


async def test_a_process_that_is_late_is_killed_and_replaced() -> None:
    start = time.monotonic()
    async with WorkerPool(time.sleep, 1, mode="process", timeout=0.2) as pool:
        results = [r async for r in pool.run([0, 600, 0])]
    assert [type(r.error) for r in results] == [type(None), DeadlineExceeded, type(None)]
    assert time.monotonic() - start < 60


async def test_a_process_that_dies_fails_its_item_only_and_odd_values_are_reported() -> None:
    async with WorkerPool(os._exit, 1, mode="process") as pool:
        (dead,) = [r async for r in pool.run([3])]
    assert isinstance(dead.error, WorkerDied)
    assert "exit code 3" in str(dead.error)
    async with WorkerPool(threading.Lock, 1, mode="process") as odd:  # type: ignore[arg-type]
        (unpicklable,) = [r async for r in odd.run([lambda: None])]
    assert isinstance(unpicklable.error, RemoteFailure)
    async with WorkerPool(open, 1, mode="process") as files:
        (opened,) = [r async for r in files.run([os.devnull])]
    assert isinstance(opened.error, RemoteFailure)
    assert "can be pickled" in str(opened.error)
