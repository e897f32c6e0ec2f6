"""Contexts at work: `after_func` (ports from Go's ``context/x_test.go``), `bind`, blocks, threads and loops."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from fairway.concurrency import (
    Canceled,
    Chan,
    Context,
    DeadlineExceeded,
    after_func,
    background,
    select,
    with_cancel,
    with_cause,
    with_deadline,
    with_timeout,
    with_value,
)
from fairway.concurrency.timing import now
from fairway.testing.loop import elapse, virtual_time

SHORT = 0.001


def is_done(ctx: Context) -> bool:
    return ctx.done().try_recv() == (None, False)


# -- after_func ----------------------------------------------------------------------------------------------


@virtual_time
async def test_after_func_is_called_after_cancel() -> None:
    """Port of TestAfterFuncCalledAfterCancel."""
    ctx = with_cancel(background())
    done = Chan[None]()
    stop = after_func(ctx, done.close)
    await elapse(SHORT)
    assert not done.closed
    ctx.cancel()
    assert not done.closed, "asynchronously"
    await done.recv_ok()
    assert stop() is False


@virtual_time
async def test_after_func_is_called_after_a_timeout() -> None:
    """Port of TestAfterFuncCalledAfterTimeout."""
    done = Chan[None]()
    after_func(with_timeout(background(), SHORT), done.close)
    await done.recv_ok()


@virtual_time
async def test_after_func_is_called_for_an_ended_context() -> None:
    """Port of TestAfterFuncCalledImmediately."""
    ctx = with_cancel(background())
    ctx.cancel()
    done = Chan[None]()
    stop = after_func(ctx, done.close)
    assert not done.closed
    await done.recv_ok()
    assert stop() is False


@virtual_time
async def test_after_func_is_not_called_after_stop() -> None:
    """Port of TestAfterFuncNotCalledAfterStop."""
    ctx = with_cancel(background())
    called: list[int] = []
    stop = after_func(ctx, lambda: called.append(1))
    assert stop() is True
    ctx.cancel()
    await elapse(SHORT)
    assert called == []
    assert stop() is False
    never = after_func(background(), lambda: called.append(2))
    assert (never(), never()) == (True, False)


@virtual_time
async def test_after_func_runs_beside_the_canceller_once() -> None:
    """Port of TestAfterFuncCalledAsynchronously: a coroutine function that blocks holds nobody up."""
    ctx = with_cancel(background())
    done = Chan[int]()
    stop = after_func(ctx, lambda: done.send(1))
    ctx.cancel()
    ctx.cancel()
    assert await done.recv() == 1
    assert await select(done.on_recv(), timeout=1) == (-1, None, False)
    assert stop() is False


def test_after_func_without_a_loop_runs_in_a_thread() -> None:
    ctx = with_cancel(background())
    seen: list[str] = []
    event = threading.Event()

    async def note() -> None:
        seen.append(threading.current_thread().name)
        event.set()

    after_func(ctx, note)
    ctx.cancel()
    assert event.wait(10)
    assert seen == ["after_func"]


# -- blocks --------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_block_cancels_its_context_on_exit() -> None:
    """Go's ``defer cancel()``."""
    async with with_timeout(background(), 2.0) as c:
        assert c.err() is None
    assert isinstance(c.err(), Canceled)
    with with_cancel(background()) as d:
        assert d.err() is None
    assert isinstance(d.err(), Canceled)


@virtual_time
async def test_bind_cancels_the_block_and_raises_err() -> None:
    c = with_cancel(background())
    because = ValueError("enough")
    asyncio.get_running_loop().call_later(1, c.cancel, because)
    reached = []
    with pytest.raises(Canceled) as caught:
        async with c.bind() as bound:
            assert bound is c
            try:
                await elapse(100)
            except asyncio.CancelledError:
                reached.append("cancelled")
                raise
    assert caught.value is c.err()
    assert caught.value.__cause__ is because
    assert reached == ["cancelled"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # no cancel comes after the block


@virtual_time
async def test_bind_to_a_deadline_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with with_timeout(background(), 1) as c, c.bind():
            await elapse(100)
    assert c.deadline() == pytest.approx(now())


@virtual_time
async def test_bind_lets_a_block_end_that_is_faster() -> None:
    async with with_timeout(background(), 1) as c, c.bind():
        await elapse(0.5)
    await elapse(5)


@virtual_time
async def test_bind_raises_at_entry_of_an_ended_context_and_at_exit_of_one_ended_inside() -> None:
    c = with_cancel(background())
    steps = []
    with pytest.raises(Canceled):
        async with c.bind():
            c.cancel()
            steps.append("goes on to its end")
    with pytest.raises(Canceled):
        async with c.bind():
            steps.append("never")
    assert steps == ["goes on to its end"]
    await asyncio.sleep(0)


@virtual_time
async def test_bind_keeps_an_exception_of_the_block_and_a_cancel_from_outside() -> None:
    c = with_cancel(background())
    with pytest.raises(KeyError):
        async with c.bind():
            c.cancel()
            raise KeyError("mine")

    inner = with_cancel(background())

    async def work() -> None:
        async with inner.bind():
            await elapse(100)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    inner.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@virtual_time
async def test_bind_when_the_cancel_meets_a_committed_receive() -> None:
    """Commit wins: the value is not lost, and the block still ends with the context's error."""
    c = with_cancel(background())
    ch = Chan[int]()
    got = []

    async def work() -> None:
        async with c.bind():
            got.append(await ch.recv())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert ch.try_send(1)
    c.cancel()
    with pytest.raises(Canceled):
        await task
    assert got == [1]
    assert task.cancelling() == 0


@virtual_time
async def test_bind_nested_with_asyncio_timeout() -> None:
    c = with_timeout(background(), 5)
    with pytest.raises(TimeoutError) as caught:
        async with c.bind():
            async with asyncio.timeout(1):
                await elapse(100)
    assert not isinstance(caught.value, DeadlineExceeded)
    assert c.err() is None


# -- threads and loops ---------------------------------------------------------------------------------------


async def test_cancel_from_a_thread_closes_done_on_the_loop() -> None:
    c = with_cancel(background())
    held = c.done()
    thread = threading.Thread(target=c.cancel)
    thread.start()
    assert await held.recv_ok() == (None, False)
    thread.join()


async def test_err_set_means_done_closed_on_the_loop() -> None:
    """ "err set ⇒ done closed", even before the loop has had its turn."""
    c = with_cancel(background())
    held = c.done()
    thread = threading.Thread(target=c.cancel)
    thread.start()
    thread.join()
    assert c.err() is not None
    assert held.closed


def test_one_context_over_two_loops() -> None:
    root = with_cancel(background())
    ready = threading.Barrier(3)
    ends: list[str] = []

    async def wait(name: str) -> None:
        done = root.done()
        await asyncio.to_thread(ready.wait)
        await done.recv_ok()
        ends.append(name)

    threads = [threading.Thread(target=lambda n=name: asyncio.run(wait(n))) for name in "ab"]
    for thread in threads:
        thread.start()
    ready.wait()
    root.cancel()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["a", "b"]


def test_a_deadline_needs_no_loop() -> None:
    c = with_timeout(background(), 0)
    assert isinstance(c.err(), DeadlineExceeded)
    late = with_deadline(background(), time.monotonic() + 0.0005)
    child = with_cancel(late)
    until = time.monotonic() + 5
    while child.err() is None and time.monotonic() < until:
        time.sleep(0)
    assert isinstance(child.err(), DeadlineExceeded)
    assert isinstance(late.err(), DeadlineExceeded)


def test_a_line_of_deadlines_from_before_the_loop_is_armed_in_it() -> None:
    child = with_cancel(with_value(with_timeout(background(), 0.001), "k", 1))

    async def main() -> None:
        await child.done().recv_ok()
        assert isinstance(child.err(), DeadlineExceeded)

    asyncio.run(main())


def test_a_timer_of_a_closed_loop_is_started_again_on_the_next() -> None:
    made: list[Context] = []

    async def first() -> None:
        made.append(with_timeout(background(), 0.01))
        assert made[0].done().try_recv() is None

    async def second() -> None:
        await made[0].done().recv_ok()

    asyncio.run(first())
    asyncio.run(second())
    assert isinstance(made[0].err(), DeadlineExceeded)


def test_a_done_channel_from_before_the_loop_serves_in_it() -> None:
    c = with_timeout(background(), 0.001)
    done = c.done()

    async def main() -> None:
        assert c.done() is done
        assert await done.recv_ok() == (None, False)

    asyncio.run(main())


def test_repr_shows_the_way_and_the_end() -> None:
    c = with_cause(with_value(background(), "user", "secret"))
    assert repr(c) == "<Context background.with_value('user').with_cause>"
    c.cancel(ValueError("tired"))
    assert repr(c) == "<Context background.with_value('user').with_cause [context canceled: tired]>"
    assert repr(background()) == "<Context background>"


async def test_bound_block_that_works_through_an_unbuffered_channel_is_cancelled_promptly() -> None:
    """Inline switches do not carry the block on after its context has ended."""
    ch: Chan[int] = Chan()
    ctx, got = with_cancel(background()), []
    producer = asyncio.create_task(ch.send_many(range(1000)))
    with pytest.raises(Canceled):
        async with ctx.bind():
            async for value in ch:
                got.append(value)
                if value == 3:
                    ctx.cancel()
    producer.cancel()
    assert got[:4] == [0, 1, 2, 3]
    assert len(got) <= 6
