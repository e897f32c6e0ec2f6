"""Dump, deadlock detector and leak checker: each of the guide's pitfalls is found with the line it stands at."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fairway.concurrency import (
    Chan,
    Closed,
    Deadlock,
    ErrGroup,
    SharedChan,
    WaitGroup,
    WorkerPool,
    WrongLoop,
    debug,
    select,
)
from fairway.testing.loop import run_virtual, virtual_time

HERE = Path(__file__).name


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(text))


async def receive(ch: Chan[int]) -> None:
    await ch.recv()


async def choose(a: Chan[int], b: Chan[int]) -> None:
    await select(a.on_recv(), b.on_send(1))


@virtual_time
async def test_dump_names_operation_channel_and_line() -> None:
    ch, full = Chan[int](), Chan[int]()
    wg = WaitGroup()
    wg.go(receive, ch)
    wg.go(choose, Chan[int](), full)
    await asyncio.sleep(0)
    found = {waiter.operation: waiter for waiter in debug.waiters()}
    assert found["Chan.recv"].location.endswith(f"{HERE}:{line_of('await ch.recv()')}")
    assert found["Chan.recv"].function == "receive"
    assert "1 receiver blocked" in found["Chan.recv"].on
    assert found["select"].location.endswith(f"{HERE}:{line_of('await select(a.on_recv()')}")
    assert found["select"].on.count("<Chan 0/0 [1 ") == 2
    assert "Chan.recv" in debug.dump()
    ch.close()
    await full.recv()
    with pytest.raises(Closed):
        await wg.wait()
    assert debug.dump() == "nobody is blocked on a channel, select or wait group"


@virtual_time
async def test_dump_shows_wait_groups_and_the_workers_of_a_pool() -> None:
    wg = WaitGroup()
    wg.add(1)
    async with ErrGroup() as g, WorkerPool(receive, 1):
        await g.go(wg.wait)
        await asyncio.sleep(0)
        operations = {waiter.operation for waiter in debug.waiters()}
        wg.done()
    assert operations == {"WaitGroup.wait", "Chan.__anext__"}


@virtual_time
async def test_everyone_includes_tasks_that_wait_elsewhere() -> None:
    event = asyncio.Event()
    before = {waiter.name for waiter in debug.waiters(everyone=True)}  # what other tests have left in this process
    async with ErrGroup() as g:
        await g.go(event.wait)
        await asyncio.sleep(0)
        found = [waiter for waiter in debug.waiters(everyone=True) if waiter.name not in before]
        assert [waiter.operation for waiter in found] == [""]
        assert debug.waiters() == []
        event.set()


def test_deadlock_of_two_tasks_is_raised_with_the_dump() -> None:
    """Port of Go's fatal error "all goroutines are asleep"; pitfall "Deadlocks"."""

    async def main() -> None:
        a, b = Chan[int](), Chan[int]()

        async def crossed() -> None:
            await a.send(1)
            await b.recv()

        wg = WaitGroup()
        wg.go(crossed)
        await b.send(1)

    with pytest.raises(Deadlock, match="all tasks are asleep - deadlock!") as caught:
        debug.run(main(), ignore=threading.enumerate())
    assert f"{HERE}:{line_of('await a.send(1)')}" in str(caught.value)
    assert f"{HERE}:{line_of('await b.send(1)')}" in str(caught.value)


def test_virtual_time_raises_on_a_deadlock_too() -> None:
    with pytest.raises(Deadlock, match=r"Chan\.recv"):
        run_virtual(receive(Chan[int]()))


def test_no_deadlock_while_a_timer_a_thread_or_a_signal_can_wake() -> None:
    async def main() -> int:
        ch = SharedChan[int](1)
        loop = asyncio.get_running_loop()
        timed = Chan[int](1)
        loop.call_later(0.001, timed.try_send, 1)
        await timed.recv()
        gate = threading.Event()
        threading.Thread(target=lambda: (gate.wait(), ch.send_sync(7))).start()
        loop.call_later(0.001, gate.set)
        return await ch.recv()

    assert debug.run(main(), ignore=threading.enumerate()) == 7


def test_deadlock_with_a_thread_that_waits_on_a_channel_too() -> None:
    ch = SharedChan[int]()
    other = SharedChan[int]()

    def receive_in_thread() -> None:
        with pytest.raises(Closed):
            ch.recv_sync()

    thread = threading.Thread(target=receive_in_thread)
    thread.start()

    async def main() -> None:
        await other.recv()

    with pytest.raises(Deadlock, match="thread Thread-") as caught:
        debug.run(main(), ignore=threading.enumerate())
    assert "SharedChan.recv" in str(caught.value)
    ch.close()
    thread.join()


async def test_detector_refuses_a_loop_that_shows_nothing() -> None:
    class Foreign:
        pass

    with pytest.raises(WrongLoop, match="expected a selector event loop"):
        with debug.detect_deadlocks(Foreign()):  # type: ignore[arg-type]
            pass


@virtual_time
async def test_a_task_left_behind_is_a_leak() -> None:
    """Pitfall "Goroutine leaks"."""
    ch = Chan[int]()
    wg = WaitGroup()
    with pytest.raises(debug.Leaked, match=r"1 left behind:\n.*receive.*Chan\.recv"):
        async with debug.no_leaks():
            wg.go(receive, ch)
    ch.close()
    with pytest.raises(Closed):
        await wg.wait()


@virtual_time
async def test_a_cancelled_task_that_ends_is_no_leak() -> None:
    async with debug.no_leaks():
        task = asyncio.create_task(receive(Chan[int]()))
        await asyncio.sleep(0)
        task.cancel()


async def test_leak_fixture_passes_over_a_clean_test(no_leaks: None) -> None:
    async with ErrGroup() as g:
        await g.go(asyncio.sleep, 0)


async def test_deadlock_fixture_passes_over_a_test_that_ends(no_deadlocks: None) -> None:
    ch = Chan[int](1)
    await ch.send(1)
    assert await ch.recv() == 1
