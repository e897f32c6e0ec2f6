"""Ports of ``golang.org/x/sync`` tests: semaphore and singleflight; the docstrings name the test."""

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
    WeightedSemaphore,
    WrongArgument,
    background,
    with_cancel,
    with_timeout,
)
from fairway.testing.loop import elapse, virtual_time

ERR1 = ValueError("singleflight_test: 1")


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
            await elapse(rng.random() / 1000)
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
        await elapse(0.001)
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
            await elapse(0.001)
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
        await elapse(1)
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
    assert (sf.statistics().in_flight, sf.statistics().waiting) == (1, 10)
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
            await elapse(1)
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
