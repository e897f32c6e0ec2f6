"""Ports of Go's ``time/tick_test.go`` and ``time/sleep_test.go``; the docstrings name the test."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref

import pytest

from fairway.concurrency import (
    Chan,
    Ticker,
    Timer,
    WrongArgument,
    WrongLoop,
    after,
    background,
    nil,
    select,
    with_timeout,
)
from fairway.concurrency.timing import now
from fairway.testing.loop import VirtualTimeLoop, elapse, virtual_time

ON_BOTH_LOOPS = True


@virtual_time
async def test_ticker() -> None:
    """Port of TestTicker: ten ticks take ten periods, then reset, then stop."""
    start = now()
    ticker = Ticker(2)
    for _ in range(5):
        await ticker.recv()
    assert now() - start == pytest.approx(10)
    ticker.reset(4)
    for _ in range(5):
        await ticker.recv()
    assert now() - start == pytest.approx(30)
    ticker.stop()
    await elapse(20)
    assert ticker.try_recv() is None, "Ticker did not shut down"


@virtual_time
async def test_ticker_keeps_one_tick_and_its_rhythm() -> None:
    """ "One pending tick": a slow receiver finds one, and the next comes when it would have come."""
    start = now()
    with Ticker(1) as ticker:
        await elapse(5.5)
        assert await ticker.recv() == pytest.approx(start + 1), "the first, the rest was dropped"
        assert ticker.try_recv() is None
        assert await ticker.recv() == pytest.approx(start + 6)


@virtual_time
async def test_ticker_skips_what_a_blocked_loop_has_missed() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    start = now()
    with Ticker(1) as ticker:
        loop.jump(3.5)
        assert await ticker.recv() == pytest.approx(start + 3.5)
        assert await select(ticker.on_recv(), default=True) == (-1, None, False)
        assert await ticker.recv() == pytest.approx(start + 4)


@virtual_time
async def test_ticker_stop_does_not_close() -> None:
    """Port of TestTickerStopWithDirectInitialization's neighbour: "stop does not close"; stop twice."""
    ticker = Ticker(1)
    ticker.stop()
    ticker.stop()
    assert not ticker.closed
    assert await select(ticker.on_recv(), timeout=10) == (-1, None, False)
    ticker.reset(1)
    await ticker.recv()
    ticker.stop()


@virtual_time
async def test_ticker_drops_a_stale_tick() -> None:
    """Port of TestChan (asynctimerchan=0) for tickers: no stale value after stop or reset."""
    ticker = Ticker(1)
    await elapse(1.5)
    assert len(ticker) == 1
    ticker.stop()
    assert ticker.try_recv() is None
    ticker.reset(1)
    await elapse(1.5)
    start = now()
    ticker.reset(3)
    assert await ticker.recv() == pytest.approx(start + 3)
    ticker.stop()


def test_new_ticker_with_a_period_that_is_none() -> None:
    """Port of TestNewTickerLtZeroDuration and TestTickerResetLtZeroDuration."""

    @virtual_time
    async def run() -> None:
        for bad in (0, -1, math.nan, "1", True):
            with pytest.raises(WrongArgument, match="ticker's"):
                Ticker(bad)  # type: ignore[arg-type]
        with Ticker(1) as ticker:
            with pytest.raises(WrongArgument):
                ticker.reset(0)

    run()
    with pytest.raises(WrongLoop, match="expected a running event loop for Ticker"):
        Ticker(1)


@virtual_time
async def test_a_dropped_ticker_ends_by_itself() -> None:
    """Port of TestTickTimes' reason (Go 1.23): an unreferenced ticker is collected."""
    ticker = Ticker(1)
    await ticker.recv()
    channel = weakref.ref(ticker._buffer)
    del ticker
    gc.collect()
    assert channel() is None
    await elapse(3)
    assert asyncio.get_running_loop()._scheduled == []  # type: ignore[attr-defined]


@virtual_time
async def test_teardown_of_many() -> None:
    """Port of TestTeardown."""
    for _ in range(3):
        ticker = Ticker(1)
        await ticker.recv()
        ticker.stop()


@virtual_time
async def test_after() -> None:
    """Port of TestAfter and TestAfterTick: the value is the firing time."""
    start = now()
    assert await after(0.1).recv() == pytest.approx(start + 0.1)
    for _ in range(10):
        await after(0.1).recv()
    assert now() - start == pytest.approx(1.1)
    assert await after(0).recv() == pytest.approx(now())
    assert await after(-5).recv() == pytest.approx(now())


@virtual_time
async def test_after_queuing() -> None:
    """Port of TestAfterQueuing: timers fire in the order of their time."""
    slots = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0]
    order: list[float] = []

    async def wait(slot: int) -> None:
        await after(slot).recv()
        order.append(slot)

    await asyncio.gather(*(wait(slot) for slot in slots))
    assert order == sorted(slots)


@virtual_time
async def test_timer_stop_and_reset() -> None:
    """Port of TestAfterStop, TestTimerStopStress and testReset."""
    timer = Timer(100)
    assert timer.pending
    assert timer.stop() is True
    assert timer.stop() is False
    assert repr(timer) == "<Timer idle>"
    assert timer.reset(1) is False
    assert timer.reset(2) is True
    start = now()
    assert await timer.recv() == pytest.approx(start + 2)
    assert timer.reset(5) is False
    with timer:
        assert repr(timer) == "<Timer pending>"
    assert timer.pending is False


@virtual_time
async def test_timer_has_no_stale_value() -> None:
    """Port of TestChan (asynctimerchan=0): a value that nobody has received counts as stopped."""
    timer = Timer(1)
    await elapse(2)
    assert repr(timer) == "<Timer fired>"
    assert timer.stop() is True
    assert timer.try_recv() is None
    timer.reset(1)
    await elapse(2)
    start = now()
    assert timer.reset(3) is True
    assert await timer.recv() == pytest.approx(start + 3)


@virtual_time
async def test_timer_wakes_a_receiver_that_waited_before_a_reset() -> None:
    timer = Timer(100)
    receiver = asyncio.ensure_future(timer.recv())
    await asyncio.sleep(0)
    timer.reset(1)
    start = now()
    assert await receiver == pytest.approx(start + 1)


@virtual_time
async def test_zero_timer_and_overflow() -> None:
    """Port of TestZeroTimer, TestOverflowSleep and TestZeroTimerStopPanics' valid half."""
    for _ in range(1000):
        assert await select(Timer(0).on_recv(), timeout=1) != (-1, None, False)
    for huge in (1e30, math.inf):
        with Timer(huge) as timer:
            assert await select(timer.on_recv(), after(1).on_recv()) == (1, pytest.approx(now()), True)
    with pytest.raises(WrongArgument, match="timer's delay"):
        Timer(math.nan)


@virtual_time
async def test_timers_in_select_with_nil_and_channels() -> None:
    """The guide's ``case <-time.After(5 * time.Second)``."""
    ch = Chan[int]()
    start = now()
    match await select(ch.on_recv(), nil.on_recv(), after(5).on_recv()):
        case 2, value, True:
            assert value == pytest.approx(start + 5)
        case other:
            pytest.fail(f"unexpected case: {other}")


async def test_no_timer_and_no_deadline_comes_early() -> None:
    """uvloop counts in milliseconds, and calls back up to one too early."""
    for tenths in range(5, 25):
        start = time.monotonic()
        await after(tenths / 10_000).recv()
        assert time.monotonic() - start >= tenths / 10_000
        start = time.monotonic()
        await with_timeout(background(), tenths / 10_000).done().recv_ok()
        assert time.monotonic() - start >= tenths / 10_000
