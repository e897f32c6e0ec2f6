"""Inline switches on unbuffered channels: order, bounds, contexts, and what a switched task may do."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from fairway.concurrency import Chan, SendOnClosed, select
from fairway.concurrency.switching import BUDGET, DEPTH

ON_BOTH_LOOPS = True


async def turns(n: int = 3) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_an_awaited_send_runs_the_receiver_at_once_and_try_send_never() -> None:
    ch, log = Chan[int](0), list[Any]()

    async def receive() -> None:
        while True:
            log.append(await ch.recv())

    task = asyncio.ensure_future(receive())
    await turns()
    await ch.send(1)
    assert log == [1]
    assert ch.try_send(2)
    assert log == [1]
    await turns()
    assert log == [1, 2]
    task.cancel()


async def test_order_is_kept_between_try_send_and_send() -> None:
    """fifo.go: a receiver that the loop is still to run goes before one that could be switched to."""
    ch, log = Chan[int](0), list[tuple[int, int]]()

    async def receive(number: int) -> None:
        log.append((number, await ch.recv()))

    tasks = [asyncio.ensure_future(receive(number)) for number in range(4)]
    await turns()
    assert ch.try_send(0)
    await ch.send(1)
    await ch.send(2)
    await turns()
    await ch.send(3)
    assert log == [(number, number) for number in range(4)]
    await asyncio.gather(*tasks)


async def test_order_is_kept_when_the_budget_runs_out() -> None:
    ch, log, count = Chan[int](0), list[int](), 3 * BUDGET

    async def receive() -> None:
        log.append(await ch.recv())

    tasks = [asyncio.ensure_future(receive()) for _ in range(count)]
    await turns()
    for value in range(count):
        await ch.send(value)
    await asyncio.gather(*tasks)
    assert log == list(range(count))


async def test_a_ping_pong_does_not_starve_the_loop() -> None:
    """The loop turns within the budget, whatever two tasks do to each other."""
    there, back, turned = Chan[int](0), Chan[int](0), 0

    async def tick() -> None:
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    async def pong() -> None:
        async for value in there:
            await back.send(value)

    ticking, ponging = asyncio.ensure_future(tick()), asyncio.ensure_future(pong())
    await turns()
    before = turned
    for value in range(BUDGET * 10):
        await there.send(value)
        assert await back.recv() == value
    assert turned - before >= 10
    there.close()
    await ponging
    ticking.cancel()


async def test_nesting_is_bounded() -> None:
    """goroutines.go: a long chain of tasks that wake each other does not grow the stack."""
    deepest = 0

    async def link(source: Chan[int], out: Chan[int]) -> None:
        nonlocal deepest
        value = await source.recv()
        deepest = max(deepest, _stack_depth())
        await out.send(value + 1)

    lanes = [Chan[int](0) for _ in range(301)]
    tasks = [asyncio.ensure_future(link(a, b)) for a, b in itertools.pairwise(lanes)]
    last = asyncio.ensure_future(lanes[-1].recv())
    await turns()
    await lanes[0].send(0)
    assert await last == 300
    await asyncio.gather(*tasks)
    assert deepest < 60 + 8 * DEPTH


def _stack_depth() -> int:
    import sys

    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


async def test_the_current_task_and_context_are_the_receivers() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="main")
    ch, seen = Chan[int](0), list[Any]()

    async def receive() -> None:
        name.set("receiver")
        await ch.recv()
        seen.append((asyncio.current_task(), name.get()))

    task = asyncio.ensure_future(receive())
    await turns()
    me = asyncio.current_task()
    await ch.send(1)
    assert seen == [(task, "receiver")]
    assert (asyncio.current_task(), name.get()) == (me, "main")


async def test_tasks_that_share_a_context_go_through_the_loop() -> None:
    """A context cannot be entered twice."""
    shared, ch, log = contextvars.copy_context(), Chan[int](0), list[str]()
    loop = asyncio.get_running_loop()

    async def receive() -> None:
        log.append(f"got {await ch.recv()}")

    async def send() -> None:
        await ch.send(1)
        log.append("sent")

    first = loop.create_task(receive(), context=shared)
    await turns()
    second = loop.create_task(send(), context=shared)
    await asyncio.gather(first, second)
    assert log == ["sent", "got 1"]


async def test_a_switched_task_may_fail_close_and_cancel() -> None:
    ch = Chan[int](0)
    me = asyncio.current_task()
    assert me is not None

    async def fail() -> None:
        await ch.recv()
        raise ZeroDivisionError

    failing = asyncio.ensure_future(fail())
    await turns()
    await ch.send(1)
    with pytest.raises(ZeroDivisionError):
        await failing

    async def close_and_cancel() -> None:
        await ch.recv()
        ch.close()
        sender.cancel()

    async def send() -> str:
        await ch.send(2)
        with pytest.raises(SendOnClosed):
            await ch.send(3)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled after the send"
        return "not cancelled"

    closing = asyncio.ensure_future(close_and_cancel())
    await turns()
    sender = asyncio.ensure_future(send())
    assert await sender == "cancelled after the send"
    await closing


async def test_a_receive_runs_the_sender_at_once() -> None:
    ch, log = Chan[int](0), list[str]()

    async def send() -> None:
        await ch.send(1)
        log.append("sent")

    task = asyncio.ensure_future(send())
    await turns()
    assert await ch.recv() == 1
    assert log == ["sent"]
    await task


@pytest.mark.parametrize("wait", ["shield", "wait_for", "gather", "timeout"])
async def test_waiters_behind_asyncio_functions(wait: str) -> None:
    """A channel operation inside asyncio's own wrappers gets its value all the same."""
    ch = Chan[int](0)
    forms: dict[str, Callable[[], Any]] = {
        "shield": lambda: asyncio.shield(ch.recv()),
        "wait_for": lambda: asyncio.wait_for(ch.recv(), 30),
        "gather": lambda: asyncio.gather(ch.recv()),
        "timeout": lambda: _within(ch),
    }
    task = asyncio.ensure_future(forms[wait]())
    await turns()
    await ch.send(7)
    assert await task in (7, [7])


async def _within(ch: Chan[int]) -> int:
    async with asyncio.timeout(30):
        return await ch.recv()


async def test_debug_mode() -> None:
    """The loop's debug mode changes nothing."""
    asyncio.get_running_loop().set_debug(True)
    ch = Chan[int](0)
    task = asyncio.ensure_future(select(ch.on_recv()))
    other = asyncio.ensure_future(ch.recv())
    await turns()
    await ch.send(1)
    await ch.send(2)
    assert await task == (0, 1, True)
    assert await other == 2


async def test_interrupt_inside_a_switched_task_restores_the_sender() -> None:
    """SystemExit of the other task surfaces where asyncio raises it, and the current task is right again."""
    ch = Chan[int](0)

    async def leave() -> None:
        await ch.recv()
        raise SystemExit(3)

    task = asyncio.ensure_future(leave())
    await turns()
    me = asyncio.current_task()
    with pytest.raises(SystemExit):
        await ch.send(1)
    assert asyncio.current_task() is me
    with pytest.raises(SystemExit):
        task.result()
