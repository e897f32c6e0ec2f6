"""Waiters resumed in batches: the loop's order, nobody lost, and only on loops that are known to work so."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import uvloop

from fairway.concurrency import Chan, Closed, runqueue
from fairway.concurrency.runqueue import Batch, ready_handles


def batches() -> list[list[Any]]:
    """The wake-ups of the batches that the running loop has still to make."""
    ready: Any = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # asyncio's own
    return [handle.wakeups for handle in ready if handle.__class__ is Batch]


async def parked(n: int, body: Callable[[int], Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(body(i)) for i in range(n)]
    await asyncio.sleep(0)
    return tasks


async def test_waiters_woken_in_a_row_share_one_handle() -> None:
    ch = Chan[int](4)
    tasks = await parked(4, lambda _: ch.recv())
    for value in range(4):
        assert ch.try_send(value)
    assert [len(wakeups) for wakeups in batches()] == [4]
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


async def test_blocked_senders_are_resumed_in_one_batch_and_in_order() -> None:
    ch, log = Chan[int](3), list[int]()

    async def send(value: int) -> None:
        await ch.send(value)
        log.append(value)

    tasks = await parked(6, send)
    assert log == [0, 1, 2]
    assert [ch.try_recv() for _ in range(3)] == [(0, True), (1, True), (2, True)]
    assert [len(wakeups) for wakeups in batches()] == [3]
    await asyncio.gather(*tasks)
    assert log == [0, 1, 2, 3, 4, 5]


async def test_a_callback_between_two_wake_ups_runs_between_them() -> None:
    ch, log = Chan[int](2), list[Any]()

    async def receive(name: int) -> None:
        log.append((name, await ch.recv()))

    tasks = await parked(3, receive)
    loop = asyncio.get_running_loop()
    ch.try_send(10)
    loop.call_soon(log.append, "callback")
    ch.try_send(11)
    ch.try_send(12)
    assert [len(wakeups) for wakeups in batches()] == [1, 2]
    await asyncio.gather(*tasks)
    assert log == [(0, 10), "callback", (1, 11), (2, 12)]


async def test_whom_a_batch_wakes_comes_after_all_that_is_ready() -> None:
    first, second, log = Chan[int](1), Chan[int](1), list[str]()

    async def relay() -> None:
        await second.send(await first.recv())
        log.append("relay")

    async def receive() -> None:
        await second.recv()
        log.append("receive")

    tasks = [asyncio.ensure_future(relay()), asyncio.ensure_future(receive())]
    await asyncio.sleep(0)
    first.try_send(1)
    asyncio.get_running_loop().call_soon(log.append, "ready before")
    await asyncio.gather(*tasks)
    assert log == ["relay", "ready before", "receive"]


async def test_tasks_that_wake_each_other_leave_every_turn_to_the_others() -> None:
    there, back, turns = Chan[int](1), Chan[int](1), 0

    async def relay(source: Chan[int], sink: Chan[int]) -> None:
        async for value in source:
            await sink.send(value + 1)

    tasks = [asyncio.ensure_future(relay(there, back)), asyncio.ensure_future(relay(back, there))]
    await asyncio.sleep(0)
    there.try_send(0)
    for _ in range(50):
        await asyncio.sleep(0)
        turns += 1
    value, _ = there.try_recv() or back.try_recv() or (turns, False)
    assert value is not None
    assert value <= turns + 1  # one hop a turn at most
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def trace(seed: int) -> list[Any]:
    """Run a random program of tasks, channels, callbacks and cancels, and return what happened in which order."""
    rand, log = Random(seed), list[Any]()

    async def main() -> None:
        channels = [Chan[int](rand.choice((1, 1, 2, 3, 5))) for _ in range(3)]
        loop = asyncio.get_running_loop()

        async def actor(name: int, script: list[tuple[str, int]]) -> None:
            for step, (what, which) in enumerate(script):
                ch = channels[which]
                if what == "send":
                    await ch.send(name * 100 + step)
                elif what == "recv":
                    log.append((name, step, await ch.recv()))
                elif what == "many":
                    log.append((name, step, await ch.recv_many(3)))
                elif what == "callback":
                    loop.call_soon(log.append, ("callback", name, step))
                elif what == "cancel":
                    tasks[which].cancel()
                else:
                    await asyncio.sleep(0)
                log.append((name, step, what))

        kinds = ["send"] * 6 + ["recv"] * 5 + ["many", "callback", "callback", "sleep"]
        scripts = [[(rand.choice(kinds), rand.randrange(3)) for _ in range(20)] for _ in range(8)]
        scripts[0][10] = ("cancel", 1 + rand.randrange(2))
        tasks = [asyncio.ensure_future(actor(name, script)) for name, script in enumerate(scripts)]
        for _ in range(200):
            await asyncio.sleep(0)
        for ch in channels:
            ch.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        log.append([type(result).__name__ for result in results])

    asyncio.run(main())
    return log


@pytest.mark.parametrize("seed", range(40))
def test_everything_happens_in_the_order_of_a_loop_without_batches(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batched = trace(seed)
    monkeypatch.setattr(runqueue, "ready_handles", lambda loop: None)
    assert batched == trace(seed)
    assert len(batched) > 10


async def test_a_cancel_after_the_wake_up_loses_no_value() -> None:
    ch = Chan[int](4)
    got = list[int]()

    async def receive(_: int) -> None:
        got.append(await ch.recv())
        await asyncio.Event().wait()

    tasks = await parked(3, receive)
    for value in range(3):
        ch.try_send(value)
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert got == [0, 1, 2]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.cancelled() for task in tasks] == [False, True, False]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_a_task_that_ends_the_loop_loses_none_of_its_batch(end: type[BaseException]) -> None:
    ch, got = Chan[int](3), list[int]()

    async def receive(name: int) -> None:
        got.append(await ch.recv())
        if name == 1:
            raise end

    async def start() -> list[asyncio.Task[None]]:
        tasks = await parked(3, receive)
        for value in range(3):
            ch.try_send(value)
        assert [len(wakeups) for wakeups in batches()] == [3]
        await asyncio.Event().wait()
        return tasks

    loop = asyncio.new_event_loop()
    main = loop.create_task(start())
    with pytest.raises(end):
        loop.run_until_complete(main)
    assert got == [0, 1]
    main.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(main)
    assert got == [0, 1, 2]
    loop.close()


def test_a_task_that_cannot_be_resumed_is_reported_and_holds_up_nobody() -> None:
    """A context that is entered already, here by the loop itself, is what a step of a task fails on."""
    shared, reports, got = contextvars.copy_context(), list[Any](), list[int]()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, report: reports.append(report))

    async def main() -> None:
        ch = Chan[int](3)

        async def receive(_: int) -> None:
            got.append(await ch.recv())

        tasks = await parked(3, receive)
        for value in range(3):
            ch.try_send(value)
        [wakeups] = batches()
        wake_up, _, future = wakeups[1]
        wakeups[1] = (wake_up, shared, future)
        await asyncio.gather(tasks[0], tasks[2])
        loop.call_soon(wake_up, future)
        await tasks[1]

    shared.run(loop.run_until_complete, main())
    loop.close()
    assert got == [0, 2, 1]
    assert len(reports) == 1
    assert isinstance(reports[0]["exception"], RuntimeError)


def test_waiters_of_a_closed_loop_are_dead_to_the_next() -> None:
    ch = Chan[int](1)

    async def wait() -> None:
        asyncio.get_running_loop().stop()
        await ch.recv()

    first = asyncio.new_event_loop()
    waiting = first.create_task(wait())
    first.run_forever()
    first.close()

    async def pass_one() -> int:
        receiver = asyncio.ensure_future(ch.recv())
        await asyncio.sleep(0)
        await ch.send(7)
        return await receiver

    assert asyncio.run(pass_one()) == 7
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # it can never end, and need not say so
    waiting.get_coro().close()


def test_only_a_loop_that_is_asyncios_own_in_all_that_matters_is_looked_into() -> None:
    class Counting(asyncio.SelectorEventLoop):
        def call_soon(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # whatever asyncio's takes
            return super().call_soon(*args, **kwargs)

    own, counting, other = asyncio.new_event_loop(), Counting(), uvloop.new_event_loop()
    assert ready_handles(own) is own._ready  # type: ignore[attr-defined]  # asyncio's own
    assert ready_handles(counting) is None
    assert ready_handles(other) is None
    own.set_debug(True)
    assert ready_handles(own) is None
    for loop in (own, counting, other):
        loop.close()


@pytest.mark.parametrize("debug", [False, True])
def test_close_wakes_waiters_behind_those_that_were_resumed(debug: bool) -> None:
    async def main() -> list[Any]:
        ch, log = Chan[int](2), list[Any]()

        async def receive(name: int) -> None:
            try:
                log.append((name, await ch.recv()))
            except Closed:
                log.append((name, "closed"))

        tasks = await parked(3, receive)
        ch.try_send(5)
        ch.close()
        await asyncio.gather(*tasks)
        return log

    assert asyncio.run(main(), debug=debug) == [(0, 5), (1, "closed"), (2, "closed")]
