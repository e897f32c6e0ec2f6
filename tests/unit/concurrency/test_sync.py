"""Ports of Go's ``sync`` tests (waitgroup_test.go, once_test.go, oncefunc_test.go); the docstrings name the test."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from typing import Any

import pytest

from fairway.concurrency import (
    Chan,
    Deadlock,
    NegativeWaitGroup,
    Once,
    SingleFlight,
    WaitGroup,
    WrongArgument,
    once_func,
    once_value,
)
from fairway.concurrency.flight import Flight
from fairway.testing.loop import elapse, virtual_time


async def fail(message: str) -> None:
    raise ValueError(message)


# -- WaitGroup -----------------------------------------------------------------------------------------------


@virtual_time
async def test_wait_group_over_two_groups_and_again() -> None:
    """Port of TestWaitGroup: 16 tasks, two groups, reuse after wait."""
    wg1, wg2 = WaitGroup(), WaitGroup()
    n = 16
    for _ in range(8):
        wg1.add(n)
        wg2.add(n)
        exited = Chan[bool](n)

        async def meet(exited: Chan[bool] = exited) -> None:
            wg1.done()
            await wg2.wait()
            await exited.send(True)

        workers = WaitGroup()
        for _ in range(n):
            workers.go(meet)
        await wg1.wait()
        for _ in range(n):
            assert exited.try_recv() is None, "WaitGroup released too soon"
            wg2.done()
        await workers.wait()
        assert len(exited) == n


def test_wait_group_misuse() -> None:
    """Port of TestWaitGroupMisuse: a negative counter."""
    wg = WaitGroup()
    wg.add(1)
    wg.done()
    with pytest.raises(NegativeWaitGroup, match=r"negative wait group counter: 0 -1 = -1"):
        wg.done()
    with pytest.raises(NegativeWaitGroup):
        wg.add(-2)
    assert wg.statistics().count == 0
    with pytest.raises(WrongArgument):
        wg.add("1")  # type: ignore[arg-type]


@virtual_time
async def test_wait_group_race() -> None:
    """Port of TestWaitGroupRace: two who count down at once, a thousand times."""
    for _ in range(1000):
        wg = WaitGroup()
        n = [0]

        async def up(n: list[int] = n, wg: WaitGroup = wg) -> None:
            n[0] += 1
            wg.done()

        wg.add(1)
        first = asyncio.create_task(up())
        wg.add(1)
        second = asyncio.create_task(up())
        await wg.wait()
        assert n == [2]
        await asyncio.gather(first, second)


@virtual_time
async def test_wait_group_go() -> None:
    """Port of TestWaitGroupGo."""
    wg = WaitGroup()
    seen: list[int] = []
    wg.go(seen.append, 1)

    async def later() -> None:
        await elapse(1)
        seen.append(2)

    wg.go(later)
    assert wg.statistics().count == 2
    await wg.wait()
    assert seen == [1, 2]
    assert repr(wg) == "<WaitGroup 0>"


@virtual_time
async def test_a_failure_in_go_is_not_lost() -> None:
    """Port of TestIssue76126: wait does not return as if nothing had happened, however late it is called."""
    wg = WaitGroup()
    wg.go(fail, "one")
    with pytest.raises(ValueError, match="one"):
        await wg.wait()
    with pytest.raises(ValueError, match="one"):
        await wg.wait()
    assert repr(wg) == "<WaitGroup 0 [1 failed]>"
    wg.go(asyncio.sleep, 0)  # reuse forgets what was seen
    await wg.wait()


@virtual_time
async def test_several_failures_are_a_group_and_cancel_no_sibling() -> None:
    wg = WaitGroup()
    done = []

    async def sibling() -> None:
        await elapse(1)
        done.append(1)

    wg.go(fail, "one")
    wg.go(sibling)
    wg.go(fail, "two")
    await asyncio.sleep(0)
    with pytest.raises(ExceptionGroup) as caught:
        await wg.wait()
    assert [str(exc) for exc in caught.value.exceptions] == ["one", "two"]
    assert done == [1]


@virtual_time
async def test_failures_before_and_after_a_zero_are_both_raised() -> None:
    wg = WaitGroup()
    wg.go(fail, "one")
    await elapse(1)
    assert wg.statistics().count == 0
    wg.go(fail, "two")
    with pytest.raises(ExceptionGroup):
        await wg.wait()


@virtual_time
async def test_a_failure_that_nobody_waits_for_goes_to_the_loop() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    wg = WaitGroup()
    wg.go(fail, "unseen")
    await elapse(1)
    del wg
    gc.collect()
    assert [str(context["exception"]) for context in told] == ["unseen"]


@virtual_time
async def test_a_cancelled_waiter_leaves_and_a_task_cancelled_before_its_first_step_is_counted() -> None:
    wg = WaitGroup()
    wg.add(1)
    waiter = asyncio.create_task(wg.wait())
    await asyncio.sleep(0)
    assert wg.statistics().waiters == 1
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert wg.statistics().waiters == 0
    wg.go(elapse, 5)
    task = next(task for task in asyncio.all_tasks() if "WaitGroup.go" in task.get_name())
    task.cancel()
    wg.done()
    await wg.wait()


async def test_done_from_threads_wakes_the_loop() -> None:
    wg = WaitGroup()
    wg.add(8)
    threads = [threading.Thread(target=wg.done) for _ in range(8)]
    for thread in threads:
        thread.start()
    await wg.wait()
    for thread in threads:
        thread.join()


# -- Once ----------------------------------------------------------------------------------------------------


@virtual_time
async def test_once() -> None:
    """Port of TestOnce: ten tasks, one run, and nobody goes on before it has ended."""
    once = Once()
    counter = []

    async def run() -> None:
        await elapse(1)
        counter.append(1)

    async def do() -> None:
        await once.do(run)
        assert counter == [1]

    assert repr(once) == "<Once new>"
    wg = WaitGroup()
    for _ in range(10):
        wg.go(do)
    await elapse(0.5)
    assert repr(once) == "<Once running>"
    await wg.wait()
    assert (repr(once), once.finished) == ("<Once done>", True)


@virtual_time
async def test_once_counts_as_done_after_a_failure() -> None:
    """Port of TestOncePanic."""
    for first in (lambda: fail("failed"), lambda: (_ for _ in ()).throw(ValueError("failed"))):
        once = Once()

        def plain(first: Any = first) -> Any:
            result = first()
            return result if asyncio.iscoroutine(result) else next(result)

        with pytest.raises(ValueError, match="failed"):
            await once.do(plain)
        await once.do(lambda: pytest.fail("Once.do called twice"))


@virtual_time
async def test_once_gives_the_failure_to_one_and_lets_the_others_pass() -> None:
    once = Once()

    async def run() -> None:
        await elapse(1)
        raise ValueError("failed")

    outcomes = await asyncio.gather(*(once.do(run) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, type(None), type(None)]


@virtual_time
async def test_a_cancelled_first_caller_does_not_break_the_others() -> None:
    once = Once()
    runs = []

    async def run() -> None:
        runs.append("start")
        await elapse(1)
        runs.append("end")

    first = asyncio.create_task(once.do(run))
    await asyncio.sleep(0)
    second = asyncio.create_task(once.do(run))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert runs == ["start", "end"]
    assert first.cancelled()


@virtual_time
async def test_the_failure_after_a_cancelled_first_caller_goes_to_the_next() -> None:
    once = Once()

    async def run() -> None:
        await elapse(1)
        raise ValueError("failed")

    first = asyncio.create_task(once.do(run))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(ValueError, match="failed"):
        await once.do(run)
    await once.do(run)


@virtual_time
async def test_once_inside_its_own_function_is_a_deadlock() -> None:
    once = Once()

    async def run() -> None:
        await once.do(run)

    with pytest.raises(Deadlock, match="waits for itself"):
        await once.do(run)


def test_once_over_threads() -> None:
    once = Once()
    count = []
    gate = threading.Barrier(4)

    def run() -> None:
        gate.wait()
        asyncio.run(once.do(lambda: count.append(1)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [1]


# -- once_func, once_value -------------------------------------------------------------------------------------


@virtual_time
async def test_once_func() -> None:
    """Port of TestOnceFunc."""
    calls = []
    f = once_func(lambda: calls.append(1))
    for _ in range(10):
        assert await f() is None
    assert calls == [1]


@virtual_time
async def test_once_value_concurrently() -> None:
    """Port of TestOnceValue, with callers at once."""
    calls = []

    async def compute() -> int:
        calls.append(1)
        await elapse(1)
        return len(calls)

    f = once_value(compute)
    assert await asyncio.gather(*(f() for _ in range(10))) == [1] * 10
    assert await f() == 1
    assert once_value(lambda: 7).__name__ == "<lambda>"
    assert await once_value(lambda: 7)() == 7


@virtual_time
async def test_once_func_and_value_raise_the_same_error_again() -> None:
    """Port of TestOnceFuncPanic and TestOnceValuePanic."""
    calls = []

    async def run() -> None:
        calls.append(1)
        raise ValueError("x")

    for f in (once_func(run), once_value(run)):
        calls.clear()
        errors = [(await asyncio.gather(f(), return_exceptions=True))[0] for _ in range(2)]
        assert isinstance(errors[0], ValueError)
        assert errors[0] is errors[1]
        assert calls == [1]


@virtual_time
async def test_once_func_traceback_does_not_grow() -> None:
    """Port of TestOnceFuncPanicTraceback: the traceback names the function that failed."""
    f = once_func(lambda: fail("x"))
    depths = set()
    for _ in range(3):
        with pytest.raises(ValueError, match="x") as caught:
            await f()
        assert caught.traceback[-1].name == "fail"
        depths.add(len(caught.traceback))
    assert len(depths) == 1


@virtual_time
async def test_once_func_lets_go_of_its_function() -> None:
    """Port of TestOnceXGC."""

    class Held:
        pass

    held = Held()
    alive = [held]
    import weakref

    ref = weakref.ref(held)
    f = once_value(lambda held=held: 1)  # type: ignore[misc]  # a default that holds it
    del held
    alive.clear()
    assert await f() == 1
    f.__dict__.pop("__wrapped__", None)
    f.__dict__.pop("__defaults__", None)
    gc.collect()
    assert ref() is None


class Bye(BaseException):
    """What is no `Exception`, as the outcome of a test is."""


async def leave() -> None:
    raise Bye


async def test_what_is_no_exception_is_not_lost_either() -> None:
    """TestIssue76126: a failure in `go` comes out of `wait`, of whatever kind it is."""
    wg = WaitGroup()
    wg.go(leave)
    with pytest.raises(Bye):
        await wg.wait()
    wg.go(leave)
    wg.go(fail, "both")
    with pytest.raises(BaseExceptionGroup) as caught:
        await wg.wait()
    assert [type(exc) for exc in caught.value.exceptions] == [Bye, ValueError]


async def test_once_counts_as_done_after_whatever_was_raised() -> None:
    """TestOncePanic, with what is no `Exception`."""
    once = Once()
    with pytest.raises(Bye):
        await once.do(leave)
    await once.do(leave)


def test_a_run_that_the_last_one_forsakes_on_another_loop_is_cancelled_at_once() -> None:
    flight, began, cancelled = Flight[None](abandon=True), threading.Event(), threading.Event()

    async def run() -> None:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    async def first_loop() -> None:
        flight.start(run)
        assert flight._task is not None
        await asyncio.wait((flight._task,), timeout=10)

    async def second_loop() -> None:
        waiter = asyncio.ensure_future(flight.join())
        while not flight.waiting:
            await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait((waiter,))

    thread = threading.Thread(target=asyncio.run, args=(first_loop(),))
    thread.start()
    assert began.wait(10)
    asyncio.run(second_loop())
    assert cancelled.wait(5)
    thread.join()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("kind", ["Once", "once_func", "SingleFlight"])
async def test_a_call_from_inside_is_found_in_an_eager_task_too(kind: str) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # since 3.12
    once, flights = Once(), SingleFlight()

    async def from_inside() -> None:
        await (once.do(from_inside) if kind == "Once" else flights.do("key", from_inside))

    @once_func
    async def itself() -> None:
        await itself()

    async with asyncio.timeout(5):
        with pytest.raises(Deadlock):
            await (itself() if kind == "once_func" else from_inside())
