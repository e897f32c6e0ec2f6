"""Ports of ``golang.org/x/time/rate/rate_test.go``, all 29; the docstrings name the test."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterable

import pytest

from fairway.concurrency import (
    BurstExceeded,
    Canceled,
    Context,
    DeadlineExceeded,
    RateLimiter,
    Reservation,
    WaitTooLong,
    WrongArgument,
    background,
    every,
    with_cancel,
    with_timeout,
)
from fairway.testing import FakeClock
from fairway.testing.loop import VirtualTimeLoop, virtual_time

D = 0.1


class Clock:
    """A clock that is set by hand, also backwards; moments are multiples of `D` after a start."""

    def __init__(self) -> None:
        self.t = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.t * D


def limiter(limit: float, burst: int) -> tuple[RateLimiter, Clock]:
    clock = Clock()
    return RateLimiter(limit, burst, clock=clock), clock


def run(lim: RateLimiter, clock: Clock, allows: Iterable[tuple[float, float, int, bool]]) -> None:
    for step, (t, tokens, n, ok) in enumerate(allows):
        clock.t = t
        assert lim.tokens() == tokens, step
        assert lim.allow(n) is ok, step


def reserve(lim: RateLimiter, clock: Clock, t: float, n: int, act: float, *, ok: bool = True) -> Reservation:
    clock.t = t
    reservation = lim.reserve(n)
    assert reservation.ok is ok
    assert reservation.delay == (pytest.approx((act - t) * D) if ok else math.inf)
    return reservation


def test_limit() -> None:
    """Port of TestLimit."""
    assert RateLimiter(10, 1).limit != math.inf
    assert RateLimiter(math.inf, 0).limit == math.inf


@pytest.mark.parametrize(
    ("interval", "limit"),
    [
        (0, math.inf), (-1, math.inf), (1e-9, 1e9), (1e-6, 1e6), (1e-3, 1e3), (0.01, 100), (0.1, 10), (1, 1), (2, 0.5),
        (2.5, 0.4), (4, 0.25), (10, 0.1), (math.inf, 0),
    ],
)  # fmt: skip
def test_every(interval: float, limit: float) -> None:
    """Port of TestEvery."""
    assert every(interval) == pytest.approx(limit)


def test_burst_1() -> None:
    """Port of TestLimiterBurst1."""
    run(
        *limiter(10, 1),
        [
            (0, 1, 1, True), (0, 0, 1, False), (0, 0, 1, False), (1, 1, 1, True), (1, 0, 1, False), (1, 0, 1, False),
            (2, 1, 2, False), (2, 1, 1, True), (2, 0, 1, False),
        ],
    )  # fmt: skip


def test_burst_3() -> None:
    """Port of TestLimiterBurst3."""
    run(
        *limiter(10, 3),
        [
            (0, 3, 2, True), (0, 1, 2, False), (0, 1, 1, True), (0, 0, 1, False), (1, 1, 4, False), (2, 2, 1, True),
            (3, 2, 1, True), (4, 2, 1, True), (4, 1, 1, True), (4, 0, 1, False), (4, 0, 1, False), (9, 3, 3, True),
            (9, 0, 0, True),
        ],
    )  # fmt: skip


def test_jump_backwards() -> None:
    """Port of TestLimiterJumpBackwards."""
    run(
        *limiter(10, 3),
        [
            (1, 3, 1, True), (0, 2, 1, True), (0, 1, 1, True), (0, 0, 1, False), (0, 0, 1, False), (1, 1, 1, True),
            (1, 0, 1, False), (1, 0, 1, False), (2, 1, 1, True), (2, 0, 1, False), (2, 0, 1, False),
        ],
    )  # fmt: skip


def test_no_truncation_errors() -> None:
    """Port of TestLimiter_noTruncationErrors."""
    assert RateLimiter(0.7692307692307693, 1).allow()


def test_simultaneous_requests() -> None:
    """Port of TestSimultaneousRequests, from threads."""
    lim, _ = limiter(1, 5)
    taken: list[bool] = []
    threads = [threading.Thread(target=lambda: taken.append(lim.allow())) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 5


def test_long_running_qps() -> None:
    """Port of TestLongRunningQPS."""
    lim, clock = limiter(100, 100)
    taken = 0
    for step in range(2500):
        clock.t = step * 0.02
        taken += lim.allow()
    ideal = 100 + 100 * 5
    assert int(0.999 * ideal) <= taken <= ideal + 1


def test_simple_reserve() -> None:
    """Port of TestSimpleReserve."""
    lim = limiter(10, 2)
    reserve(*lim, 0, 2, 0)
    reserve(*lim, 0, 2, 2)
    reserve(*lim, 3, 2, 4)


def test_mix() -> None:
    """Port of TestMix."""
    lim = limiter(10, 2)
    reserve(*lim, 0, 3, 1, ok=False)
    reserve(*lim, 0, 2, 0)
    run(*lim, [(1, 1, 2, False)])
    reserve(*lim, 1, 2, 2)
    run(*lim, [(1, -1, 1, False)])
    run(*lim, [(3, 1, 1, True)])


def cancel_at(clock: Clock, t: float, reservation: Reservation) -> None:
    clock.t = t
    reservation.cancel()


def test_cancel_invalid() -> None:
    """Port of TestCancelInvalid."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 0, 2, 0)
    cancel_at(clock, 0, reserve(lim, clock, 0, 3, 3, ok=False))
    reserve(lim, clock, 0, 2, 2)


def test_cancel_last() -> None:
    """Port of TestCancelLast."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 0, 2, 0)
    cancel_at(clock, 1, reserve(lim, clock, 0, 2, 2))
    reserve(lim, clock, 1, 2, 2)


def test_cancel_twice_gives_the_tokens_back_once() -> None:
    """As TestCancelLast; the second cancel does nothing."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 0, 2, 0)
    last = reserve(lim, clock, 0, 2, 2)
    cancel_at(clock, 1, last)
    cancel_at(clock, 1, last)
    reserve(lim, clock, 1, 2, 2)


def test_cancel_too_late() -> None:
    """Port of TestCancelTooLate."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 0, 2, 0)
    cancel_at(clock, 3, reserve(lim, clock, 0, 2, 2))
    reserve(lim, clock, 3, 2, 4)


def test_cancel_0_tokens() -> None:
    """Port of TestCancel0Tokens."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 0, 2, 0)
    first = reserve(lim, clock, 0, 1, 1)
    reserve(lim, clock, 0, 1, 2)
    cancel_at(clock, 0, first)
    reserve(lim, clock, 0, 1, 3)


def test_cancel_1_token() -> None:
    """Port of TestCancel1Token."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 0, 2, 0)
    first = reserve(lim, clock, 0, 2, 2)
    reserve(lim, clock, 0, 1, 3)
    cancel_at(clock, 2, first)
    reserve(lim, clock, 2, 2, 4)


def test_cancel_multi() -> None:
    """Port of TestCancelMulti."""
    lim, clock = limiter(10, 4)
    reserve(lim, clock, 0, 4, 0)
    a = reserve(lim, clock, 0, 3, 3)
    reserve(lim, clock, 0, 1, 4)
    c = reserve(lim, clock, 0, 1, 5)
    cancel_at(clock, 1, c)
    cancel_at(clock, 1, a)
    reserve(lim, clock, 1, 3, 5)


def test_reserve_jump_back() -> None:
    """Port of TestReserveJumpBack; its maximum wait is the deadline of a context here."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 1, 2, 1)
    reserve(lim, clock, 0, 1, 1)
    reserve(lim, clock, 2, 2, 3)
    reserve(lim, clock, 0, 3, 0, ok=False)
    reserve(lim, clock, 2, 1, 4)
    clock.t = 0
    with pytest.raises(WaitTooLong):
        asyncio.run(lim.wait(with_timeout(background(), D), 2))
    reserve(lim, clock, 2, 1, 5)


def test_reserve_jump_back_cancel() -> None:
    """Port of TestReserveJumpBackCancel."""
    lim, clock = limiter(10, 2)
    reserve(lim, clock, 1, 2, 1)
    first = reserve(lim, clock, 1, 2, 3)
    reserve(lim, clock, 1, 1, 4)
    cancel_at(clock, 0, first)
    reserve(lim, clock, 1, 2, 4)


def test_reserve_set_limit() -> None:
    """Port of TestReserveSetLimit."""
    lim, clock = limiter(5, 2)
    reserve(lim, clock, 0, 2, 0)
    reserve(lim, clock, 0, 2, 4)
    clock.t = 2
    lim.set_limit(10)
    reserve(lim, clock, 2, 1, 4)


def test_reserve_set_burst() -> None:
    """Port of TestReserveSetBurst."""
    lim, clock = limiter(5, 2)
    reserve(lim, clock, 0, 2, 0)
    reserve(lim, clock, 0, 2, 4)
    clock.t = 3
    lim.set_burst(4)
    reserve(lim, clock, 0, 4, 9)
    assert (lim.limit, lim.burst) == (5, 4)


def test_reserve_set_limit_cancel() -> None:
    """Port of TestReserveSetLimitCancel."""
    lim, clock = limiter(5, 2)
    reserve(lim, clock, 0, 2, 0)
    first = reserve(lim, clock, 0, 2, 4)
    clock.t = 2
    lim.set_limit(10)
    cancel_at(clock, 2, first)
    reserve(lim, clock, 2, 2, 3)


@virtual_time
async def test_reserve_max() -> None:
    """Port of TestReserveMax: the deadline is what a wait has."""
    lim = RateLimiter(10, 2)
    await lim.wait(with_timeout(background(), D), 2)
    near = lim.reserve(1)
    assert near.delay == pytest.approx(D)
    with pytest.raises(WaitTooLong, match="would exceed the context's deadline"):
        await lim.wait(with_timeout(background(), D), 1)


async def timed_wait(lim: RateLimiter, ctx: Context, n: int) -> float:
    start = asyncio.get_running_loop().time()
    try:
        await lim.wait(ctx, n)
    finally:
        took.append((asyncio.get_running_loop().time() - start) / D)
    return took[-1]


took: list[float] = []


@virtual_time
async def test_wait_simple() -> None:
    """Port of TestWaitSimple."""
    lim = RateLimiter(10, 3)
    ctx = with_cancel(background())
    ctx.cancel()
    with pytest.raises(Canceled):
        await lim.wait(ctx, 1)
    with pytest.raises(BurstExceeded, match="the burst of 3 tokens, got: 4"):
        await lim.wait(background(), 4)
    assert await timed_wait(lim, background(), 2) == 0
    assert await timed_wait(lim, background(), 3) == pytest.approx(2)


@virtual_time
async def test_wait_cancel_returns_the_tokens() -> None:
    """Port of TestWaitCancel, by the context and by the task."""
    for by_task in (False, True):
        lim = RateLimiter(10, 3)
        ctx = with_cancel(background())
        assert await timed_wait(lim, ctx, 2) == 0
        task = asyncio.create_task(timed_wait(lim, ctx, 3))
        loop = asyncio.get_running_loop()
        if by_task:
            loop.call_later(D, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            loop.call_later(D, ctx.cancel)
            with pytest.raises(Canceled):
                await task
        assert took[-1] == pytest.approx(1)
        assert lim.tokens() == pytest.approx(2)
        assert await timed_wait(lim, background(), 2) == 0


@virtual_time
async def test_wait_timeout() -> None:
    """Port of TestWaitTimeout: it fails at once, not at the deadline."""
    lim = RateLimiter(10, 3)
    ctx = with_timeout(background(), D)
    assert await timed_wait(lim, ctx, 2) == 0
    with pytest.raises(DeadlineExceeded):
        await timed_wait(lim, ctx, 3)
    assert took[-1] == 0
    assert lim.tokens() == 1


@virtual_time
async def test_wait_inf() -> None:
    """Port of TestWaitInf: the infinite limit ignores the burst."""
    lim = RateLimiter(math.inf, 0)
    assert await timed_wait(lim, background(), 3) == 0
    assert lim.allow(1000)
    reservation = lim.reserve(5)
    assert (reservation.ok, reservation.delay) == (True, 0)
    lim.set_limit(1)
    reservation.cancel()
    assert lim.tokens() == 0


def test_zero_limit() -> None:
    """Port of TestZeroLimit."""
    lim, _ = limiter(0, 1)
    assert lim.allow()
    assert not lim.allow()
    refused = lim.reserve()
    assert (refused.ok, refused.delay, repr(refused)) == (False, math.inf, "<Reservation refused>")


@virtual_time
async def test_zero_limit_waits_for_the_end_of_the_context() -> None:
    lim = RateLimiter(0, 1)
    await lim.wait(background())
    ctx = with_cancel(background())
    asyncio.get_running_loop().call_later(5, ctx.cancel)
    with pytest.raises(Canceled):
        await timed_wait(lim, ctx, 1)
    assert took[-1] == pytest.approx(5 / D)


@virtual_time
async def test_set_after_zero_limit() -> None:
    """Port of TestSetAfterZeroLimit."""
    lim = RateLimiter(0, 1)
    assert lim.allow()
    assert not lim.allow()
    lim.set_limit(10)
    assert await timed_wait(lim, background(), 1) == pytest.approx(1)


def test_tiny_limit() -> None:
    """Port of TestTinyLimit."""
    lim, _ = limiter(1e-10, 1)
    assert lim.allow()
    assert not lim.allow()


async def test_waits_on_the_clock_that_was_given(fake_clock: FakeClock) -> None:
    lim = RateLimiter(10, 1, clock=fake_clock)
    await lim.wait(background())
    task = asyncio.create_task(lim.wait(background()))
    await asyncio.sleep(0)
    assert fake_clock.sleeping == 1
    await fake_clock.advance(0.05)
    assert not task.done()
    await fake_clock.advance(0.05)
    await task
    ctx = with_cancel(background())
    task = asyncio.create_task(lim.wait(ctx))
    await asyncio.sleep(0)
    ctx.cancel()
    with pytest.raises(Canceled):
        await task
    assert lim.tokens() == pytest.approx(0)


def test_takes_a_function_as_clock_and_refuses_nonsense() -> None:
    t = [5.0]
    lim = RateLimiter(10, 1, clock=lambda: t[0])
    assert lim.allow()
    assert not lim.allow()
    t[0] += 0.1
    assert lim.allow()
    assert repr(lim) == "<RateLimiter 10/s, burst 1 [0 tokens]>"
    assert lim.statistics().tokens == 0
    for limit, burst in ((-1, 1), (math.nan, 1), ("1", 1), (1, -1), (1, 1.5), (True, 1)):
        with pytest.raises(WrongArgument):
            RateLimiter(limit, burst)  # type: ignore[arg-type]
    with pytest.raises(WrongArgument, match="expected a clock"):
        RateLimiter(1, 1, clock=5)  # type: ignore[arg-type]
    with pytest.raises(WrongArgument, match="int >= 0, got: -1"):
        lim.allow(-1)


def test_ten_thousand_waits_keep_the_rate() -> None:
    async def main() -> float:
        lim = RateLimiter(1000, 10)
        await asyncio.gather(*(lim.wait(background()) for _ in range(10_010)))
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(0)) as runner:
        assert runner.run(main()) == pytest.approx(10, abs=0.01)
