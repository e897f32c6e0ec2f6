"""Ports of ``golang.org/x/sync`` tests: errgroup, semaphore, singleflight; the docstrings name the test."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fairway.concurrency import (
    Canceled,
    Chan,
    DeadlineExceeded,
    Deadlock,
    ErrGroup,
    ReleaseWithoutAcquire,
    SingleFlight,
    WaitGroup,
    WeightedSemaphore,
    WrongArgument,
    background,
    select,
    with_cancel,
    with_timeout,
    with_value,
)
from fairway.testing.loop import virtual_time

ERR1, ERR2 = ValueError("errgroup_test: 1"), ValueError("errgroup_test: 2")


async def end(error: Exception | None) -> None:
    if error is not None:
        raise error


# -- ErrGroup ------------------------------------------------------------------------------------------------


@virtual_time
async def test_just_errors() -> None:
    """Port of ExampleGroup_justErrors."""
    fetched = []

    async def fetch(url: str) -> None:
        await asyncio.sleep(0)
        fetched.append(url)

    async with ErrGroup() as g:
        for url in ("a", "b", "c"):
            await g.go(fetch, url)
    assert fetched == ["a", "b", "c"]


@virtual_time
async def test_parallel() -> None:
    """Port of ExampleGroup_parallel: results by position, an error instead of results."""

    async def search(kind: str, into: list[str], at: int) -> None:
        await asyncio.sleep(3 - at)
        into[at] = f"{kind} result"

    results = [""] * 3
    async with ErrGroup(background()) as g:
        for i, kind in enumerate(("web", "image", "video")):
            await g.go(search, kind, results, i)
    assert results == ["web result", "image result", "video result"]


@pytest.mark.parametrize("errors", [[], [None], [ERR1], [ERR1, None], [ERR1, None, ERR2]])
def test_zero_group(errors: list[Exception | None]) -> None:
    """Port of TestZeroGroup: outside a block, the first error stays."""

    @virtual_time
    async def run() -> None:
        g = ErrGroup()
        first = None
        for error in errors:
            await g.go(end, error)
            first = first or error
            if first is None:
                await g.wait()
            else:
                with pytest.raises(ValueError) as caught:
                    await g.wait()
                assert caught.value is first

    run()


@pytest.mark.parametrize(
    ("errors", "want"), [([], None), ([None], None), ([ERR1], ERR1), ([ERR1, None], ERR1), ([ERR1, None, ERR2], ERR1)]
)
def test_with_context(errors: list[Exception | None], want: Exception | None) -> None:
    """Port of TestWithContext: first error only; wait ends the context even on success."""

    @virtual_time
    async def run() -> None:
        caught: Exception | None = None
        g = ErrGroup(background())
        try:
            async with g:
                for error in errors:
                    await g.go(end, error)
        except ValueError as exc:
            caught = exc
        assert caught is want
        assert isinstance(g.ctx.err(), Canceled)
        assert g.ctx.done().try_recv() == (None, False)

    run()


@virtual_time
async def test_try_go() -> None:
    """Port of TestTryGo."""
    g = ErrGroup()
    n = 42
    g.set_limit(n)
    ch = Chan[int]()

    async def send() -> None:
        await ch.send(1)

    for i in range(n):
        assert g.try_go(send), i
    assert not g.try_go(send)

    async def receive() -> None:
        for _ in range(n):
            await ch.recv()

    wg = WaitGroup()
    wg.go(receive)
    await g.wait()
    await wg.wait()

    g2 = ErrGroup(limit=1)
    gate = Chan[None]()
    assert g2.try_go(gate.recv_ok)
    assert not g2.try_go(gate.recv_ok)
    gate.close()
    await g2.wait()

    unlimited = ErrGroup(limit=-1)
    assert all(unlimited.try_go(asyncio.sleep, 0) for _ in range(100))
    await unlimited.wait()
    nothing = ErrGroup(limit=0)
    assert not nothing.try_go(asyncio.sleep, 0)
    await nothing.wait()


@virtual_time
async def test_go_limit() -> None:
    """Port of TestGoLimit: never more than the limit at once."""
    active = [0]
    most = [0]

    async def work() -> None:
        active[0] += 1
        most[0] = max(most[0], active[0])
        await asyncio.sleep(1)
        active[0] -= 1

    async with ErrGroup(limit=10) as g:
        for _ in range(100):
            await g.go(work)
    assert most == [10]


@virtual_time
async def test_limit_zero_blocks_all() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), ErrGroup(limit=0) as g:
            await g.go(asyncio.sleep, 0)
    assert g.statistics().waiting == 0


@virtual_time
async def test_set_limit_while_active_is_refused() -> None:
    """Port of the panic of SetLimit."""
    async with ErrGroup() as g:
        await g.go(asyncio.sleep, 1)
        with pytest.raises(WrongArgument, match="1 active"):
            g.set_limit(3)
    with pytest.raises(WrongArgument):
        ErrGroup(limit="3")  # type: ignore[arg-type]


@pytest.mark.parametrize("errors", [[], [None], [ERR1], [ERR1, None], [ERR1, None, ERR2]])
def test_cancel_cause(errors: list[Exception | None]) -> None:
    """Port of TestCancelCause."""

    @virtual_time
    async def run() -> None:
        g = ErrGroup(background())
        for error in errors:
            g.try_go(end, error)
        if errors and errors[0] is not None:
            with pytest.raises(ValueError, match="1"):
                await g.wait()
            assert g.ctx.cause() is ERR1
        else:
            await g.wait()
            assert g.ctx.cause() is g.ctx.err()

    run()


@virtual_time
async def test_a_failure_ends_the_context_first_then_cancels_siblings_and_block() -> None:
    seen: list[object] = []

    async def polite(g: ErrGroup) -> None:
        await g.ctx.done().recv_ok()
        seen.append(g.ctx.cause())

    async def deaf() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            seen.append("cancelled")

    with pytest.raises(ValueError) as caught:  # noqa: PT012  # a block inside a block
        async with ErrGroup(background()) as g:
            await g.go(polite, g)
            await g.go(deaf)
            await asyncio.sleep(0)
            await g.go(end, ERR1)
            await asyncio.sleep(1000)
    assert caught.value is ERR1
    assert seen == [ERR1, "cancelled"]
    assert g.errors == (ERR1,)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_a_failing_block_ends_its_tasks_and_keeps_its_own_error() -> None:
    ended = []

    async def deaf() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(1)

    with pytest.raises(KeyError, match="mine"):  # noqa: PT012  # a block inside a block
        async with ErrGroup() as g:
            await g.go(deaf)
            await asyncio.sleep(0)
            raise KeyError("mine")
    assert ended == [1]
    assert isinstance(g.ctx.cause(), KeyError)


@virtual_time
async def test_the_end_of_the_parent_ends_the_group() -> None:
    parent = with_timeout(background(), 1)
    with pytest.raises(DeadlineExceeded):  # a block inside a block
        async with ErrGroup(parent) as g:
            await g.go(asyncio.sleep, 1000)
    assert g.ctx.err() is parent.err()


@virtual_time
async def test_a_cancelled_block_waits_for_its_tasks() -> None:
    ended = []

    async def careful() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            ended.append(1)

    async def run() -> None:
        async with ErrGroup() as g:
            await g.go(careful)

    task = asyncio.create_task(run())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


@virtual_time
async def test_a_slot_that_is_granted_to_a_cancelled_caller_goes_to_the_next() -> None:
    g = ErrGroup(limit=1)
    started = []
    gate = Chan[None]()

    async def note(name: str) -> None:
        started.append(name)

    await g.go(gate.recv_ok)
    first = asyncio.create_task(g.go(note, "first"))
    second = asyncio.create_task(g.go(note, "second"))
    await asyncio.sleep(0)
    assert repr(g) == "<ErrGroup 1/1 [2 waiting]>"
    gate.close()
    await asyncio.sleep(0)
    first.cancel()
    await second
    await g.wait()
    assert started in (["second"], ["first", "second"])
    assert g.statistics().active == 0


# -- WeightedSemaphore ---------------------------------------------------------------------------------------


@virtual_time
async def test_weighted() -> None:
    """Port of TestWeighted: the hammer."""
    n = 4
    sem = WeightedSemaphore(n)
    rng = random.Random(1)
    held = [0]

    async def hammer(weight: int) -> None:
        for _ in range(200):
            await sem.acquire(background(), weight)
            held[0] += weight
            assert held[0] <= n
            await asyncio.sleep(rng.random() / 1000)
            held[0] -= weight
            sem.release(weight)

    async with ErrGroup() as g:
        for weight in range(n):
            await g.go(hammer, weight)
    assert sem.statistics().held == 0


def test_weighted_panic() -> None:
    """Port of TestWeightedPanic."""
    with pytest.raises(ReleaseWithoutAcquire, match="at most the 0 units held, got: 1"):
        WeightedSemaphore(1).release(1)
    for bad in (-1, "2", True):
        with pytest.raises(WrongArgument):
            WeightedSemaphore(bad)  # type: ignore[arg-type]


@virtual_time
async def test_weighted_try_acquire() -> None:
    """Port of TestWeightedTryAcquire."""
    sem = WeightedSemaphore(2)
    await sem.acquire(background(), 1)
    tries = [sem.try_acquire(1), sem.try_acquire(1)]
    sem.release(2)
    tries.append(sem.try_acquire(1))
    await sem.acquire(background(), 1)
    tries.append(sem.try_acquire(1))
    assert tries == [True, False, True, False]
    assert repr(sem) == "<WeightedSemaphore 2/2>"


@virtual_time
async def test_weighted_acquire() -> None:
    """Port of TestWeightedAcquire."""
    sem = WeightedSemaphore(2)

    async def attempt(n: int) -> bool:
        with with_timeout(background(), 0.01) as ctx:
            try:
                await sem.acquire(ctx, n)
            except DeadlineExceeded:
                return False
        return True

    await sem.acquire(background(), 1)
    tries = [await attempt(1), await attempt(1)]
    sem.release(2)
    tries.append(await attempt(1))
    await sem.acquire(background(), 1)
    tries.append(await attempt(1))
    assert tries == [True, False, True, False]
    assert sem.statistics().waiters == 0


@virtual_time
async def test_too_large_a_request_blocks_nobody_and_fails_with_its_context() -> None:
    """Port of TestWeightedDoesntBlockIfTooBig."""
    sem = WeightedSemaphore(2)
    ctx = with_cancel(background())
    big = asyncio.create_task(sem.acquire(ctx, 3))
    await asyncio.sleep(0)

    async def small(g: ErrGroup) -> None:
        await sem.acquire(g.ctx, 1)
        await asyncio.sleep(0.001)
        sem.release(1)

    async with ErrGroup() as g:
        for _ in range(6):
            await g.go(small, g)
    assert not big.done()
    ctx.cancel()
    with pytest.raises(Canceled):
        await big


@virtual_time
async def test_large_acquire_does_not_starve() -> None:
    """Port of TestLargeAcquireDoesntStarve."""
    n = 4
    sem = WeightedSemaphore(n)
    running = [True]

    async def churn() -> None:
        while running[0]:
            await asyncio.sleep(0.001)
            sem.release(1)
            await sem.acquire(background(), 1)
        sem.release(1)

    async with ErrGroup() as g:
        for _ in range(n):
            await sem.acquire(background(), 1)
            await g.go(churn)
        await sem.acquire(background(), n)
        running[0] = False
        sem.release(n)


@virtual_time
async def test_a_cancelled_large_request_lets_small_ones_pass() -> None:
    """Port of TestAllocCancelDoesntStarve, by its context and by its task."""
    for by_task in (False, True):
        sem = WeightedSemaphore(10)
        await sem.acquire(background(), 1)
        ctx = with_cancel(background())
        big = asyncio.create_task(sem.acquire(ctx, 10))
        await asyncio.sleep(0)
        assert not sem.try_acquire(1), "the queue is first come, first served"
        small = asyncio.create_task(sem.acquire(background(), 1))
        await asyncio.sleep(0)
        if by_task:
            big.cancel()
        else:
            ctx.cancel()
        await small
        assert sem.statistics().held == 2
        await asyncio.gather(big, return_exceptions=True)


@virtual_time
async def test_weighted_acquire_canceled() -> None:
    """Port of TestWeightedAcquireCanceled: an end before the grant is an end; no unit is lost."""
    sem = WeightedSemaphore(2)
    ctx = with_cancel(background())
    await sem.acquire(background(), 1)
    waiting = asyncio.create_task(sem.acquire(ctx, 2))
    await asyncio.sleep(0)
    ctx.cancel()
    sem.release(1)
    with pytest.raises(Canceled):
        await waiting
    assert sem.try_acquire(2)
    sem.release(2)
    with pytest.raises(Canceled):
        await sem.acquire(ctx, 1)


@pytest.mark.parametrize("how", ["context", "task"])
def test_a_grant_that_meets_an_end_goes_back(how: str) -> None:
    @virtual_time
    async def run() -> None:
        sem = WeightedSemaphore(1)
        await sem.acquire(background(), 1)
        ctx = with_cancel(background())
        waiting = asyncio.create_task(sem.acquire(ctx, 1))
        await asyncio.sleep(0)
        sem.release(1)  # granted, and not yet resumed
        if how == "context":
            ctx.cancel()
            with pytest.raises(Canceled):
                await waiting
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert sem.statistics().held == 0

    run()


# -- SingleFlight --------------------------------------------------------------------------------------------


@virtual_time
async def test_single_flight_do() -> None:
    """Port of TestDo."""
    sf = SingleFlight()
    assert await sf.do("key", lambda: "bar") == ("bar", False)

    async def add(a: int, b: int) -> int:
        return a + b

    assert await sf.do("key", add, 1, 2) == (3, False)
    assert repr(sf) == "<SingleFlight [0 in flight]>"


@virtual_time
async def test_single_flight_error() -> None:
    """Port of TestDoErr and TestPanicErrorUnwrap: every caller gets the very error."""
    sf = SingleFlight()

    async def broken() -> None:
        await asyncio.sleep(1)
        raise ERR1

    outcomes = await asyncio.gather(*(sf.do("key", broken) for _ in range(3)), return_exceptions=True)
    assert all(outcome is ERR1 for outcome in outcomes)


@virtual_time
async def test_single_flight_suppresses_duplicates() -> None:
    """Port of TestDoDupSuppress."""
    sf = SingleFlight()
    calls = []
    ch = Chan[str](1)

    async def fn() -> str:
        calls.append(1)
        value = await ch.recv()
        await ch.send(value)
        return value

    tasks = [asyncio.create_task(sf.do("key", fn)) for _ in range(10)]
    await asyncio.sleep(0)
    assert len(sf) == 1
    await ch.send("bar")
    assert await asyncio.gather(*tasks) == [("bar", True)] * 10
    assert calls == [1]
    assert len(sf) == 0


@virtual_time
async def test_single_flight_forget() -> None:
    """Port of TestForget."""
    sf = SingleFlight()
    unblock_first, unblock_second = Chan[None](), Chan[None]()

    async def first() -> int:
        await unblock_first.recv_ok()
        return 1

    async def second() -> int:
        await unblock_second.recv_ok()
        return 2

    one = asyncio.create_task(sf.do("key", first))
    await asyncio.sleep(0)
    sf.forget("key")
    two = asyncio.create_task(sf.do("key", second))
    await asyncio.sleep(0)
    unblock_first.close()
    assert await one == (1, False)
    three = asyncio.create_task(sf.do("key", lambda: 3))
    await asyncio.sleep(0)
    unblock_second.close()
    assert await two == (2, True)
    assert await three == (2, True)


@virtual_time
async def test_single_flight_goes_on_for_the_others_and_ends_with_the_last() -> None:
    sf = SingleFlight()
    steps: list[str] = []

    async def fn() -> int:
        steps.append("start")
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise
        return 1

    first = asyncio.create_task(sf.do("key", fn))
    second = asyncio.create_task(sf.do("key", fn))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (1, True)
    alone = asyncio.create_task(sf.do("key", fn))
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await asyncio.sleep(0)
    assert steps == ["start", "start", "cancelled"]
    assert await sf.do("key", lambda: 2) == (2, False)


@virtual_time
async def test_single_flight_that_asks_for_itself_is_a_deadlock() -> None:
    sf = SingleFlight()

    async def fn() -> Any:
        return await sf.do("key", fn)

    with pytest.raises(Deadlock):
        await sf.do("key", fn)


@virtual_time
async def test_one_context_over_groups_and_values() -> None:
    """Contexts and groups nest: a value of the parent is seen through the group's context."""
    parent = with_value(with_timeout(background(), 10), "user", "ann")
    async with ErrGroup(parent) as g:
        assert g.ctx.value("user") == "ann"
        assert g.ctx.deadline() == parent.deadline()
        assert (await select(g.ctx.done().on_recv(), default=True))[0] == -1
