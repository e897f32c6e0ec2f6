"""`SharedChan`: a thread whose value a task's receive let in is woken late, and never later than its patience."""

from __future__ import annotations

import asyncio
import dis
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fairway.concurrency import Chan, SendOnClosed, SharedChan, TimedOut, select, shared, waiters
from fairway.concurrency.waiters import ThreadWaiter

LIMIT = 30.0

pytestmark = pytest.mark.skipif(not shared.LOCK_FREE, reason="without a global lock every receive takes the channel's")


@pytest.fixture(autouse=True)
def any_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads that are blocked on small channels woken late too."""
    monkeypatch.setattr(shared, "LATE_FROM", 1)


def full_with_blocked(*values: int, cap: int = 1, patient: bool = True) -> tuple[SharedChan[int], list[ThreadWaiter]]:
    """Return a channel with `cap` times 0 in the buffer, and one waiter queued for each of the values."""
    ch, queued = SharedChan[int](cap), list[ThreadWaiter]()
    for _ in range(cap):
        ch.send_sync(0)
    for value in values:
        queued.append(ThreadWaiter(patient=patient))
        with ch.lock:
            ch.enqueue_locked(queued[-1], True, value)
    return ch, queued


def is_woken(waiter: ThreadWaiter) -> bool:
    return not waiter._wake.locked()


def finish(operation: Any) -> None:
    """Run a coroutine that need not wait, without a loop."""
    with pytest.raises(StopIteration):
        operation.send(None)


async def turn_loop() -> None:
    """Have the loop run all that is ready now."""
    await asyncio.sleep(0)


async def next_of(ch: SharedChan[int]) -> int:
    async for value in ch:
        return value
    raise AssertionError("the channel is closed")


@pytest.mark.parametrize("receive", [SharedChan.recv, next_of])
async def test_the_value_is_let_in_at_once_and_the_thread_woken_when_the_loop_turns(
    receive: Callable[..., Any],
) -> None:
    ch, (waiter,) = full_with_blocked(1)
    assert await receive(ch) == 0
    assert waiter.done()
    assert waiter.result is True
    assert len(ch) == 1
    assert ch.statistics().blocked_senders == 0
    assert not is_woken(waiter)
    await turn_loop()
    assert is_woken(waiter)


async def test_threads_let_in_during_one_turn_are_woken_by_one_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    ch, queued = full_with_blocked(1, 2, 3)
    loop, calls = asyncio.get_running_loop(), list[Any]()
    call_soon = loop.call_soon

    def counted(callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
        calls.append(callback)
        return call_soon(callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_soon", counted)
    assert [await ch.recv() for _ in range(4)] == [0, 1, 2, 3]
    assert len(calls) == 1
    assert not any(map(is_woken, queued))
    monkeypatch.undo()
    await turn_loop()
    assert all(map(is_woken, queued))


async def test_who_is_let_in_in_a_later_turn_is_woken_in_that_turn() -> None:
    ch, (first, second) = full_with_blocked(1, 2)
    await ch.recv()
    await turn_loop()
    assert (is_woken(first), second.done()) == (True, False)
    await ch.recv()
    assert second.done()
    await turn_loop()
    assert is_woken(second)


async def test_a_thread_that_lost_its_patience_is_woken_at_once() -> None:
    ch, (waiter,) = full_with_blocked(1, patient=False)
    assert await ch.recv() == 0
    assert is_woken(waiter)


@pytest.mark.parametrize("operation", ["recv_ok", "recv_many", "try_recv", "recv_sync", "close", "select", "by hand"])
async def test_only_a_receive_without_the_lock_on_a_loop_wakes_late(operation: str) -> None:
    ch, (waiter,) = full_with_blocked(1)
    match operation:
        case "recv_ok":
            assert await ch.recv_ok() == (0, True)
        case "recv_many":
            assert await ch.recv_many(1) == [0]
        case "try_recv":
            assert ch.try_recv() == (0, True)
        case "recv_sync":
            assert await asyncio.to_thread(ch.recv_sync) == 0
        case "close":
            ch.close()
        case "select":
            assert await select(ch.on_recv(), Chan[int](0).on_recv()) == (0, 0, True)
        case "by hand":
            await asyncio.to_thread(finish, ch.recv())
    assert is_woken(waiter)


def test_a_patient_thread_looks_by_itself_whether_it_was_let_in() -> None:
    """Nobody wakes it: its loop was stopped, say. It has sent."""
    ch, (waiter,) = full_with_blocked(1)
    late = list[ThreadWaiter]()
    ch._buf.popleft()
    with ch.lock:
        ch.refill_locked(late)
    assert late == [waiter]
    assert waiter.wait(LIMIT, ch.lock)
    assert waiter.result is True
    waiter.wake()  # the loop turns after all: nobody minds


def test_a_thread_that_was_not_let_in_is_woken_at_once_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience ends under the channel's lock: whoever comes next sees it."""
    monkeypatch.setattr(waiters, "PATIENCE", 0.0)
    ch, (waiter,) = full_with_blocked(1)
    entered, ends = threading.Event(), list[bool]()

    def wait() -> None:
        entered.set()
        ends.append(waiter.wait(LIMIT, ch.lock))

    thread = threading.Thread(target=wait)
    thread.start()
    assert entered.wait(LIMIT)
    while waiter.patient:  # set by the thread, without anybody's doing
        assert thread.is_alive()
    late = list[ThreadWaiter]()
    ch._buf.popleft()
    with ch.lock:
        ch.refill_locked(late)
    assert late == []
    thread.join(LIMIT)
    assert ends == [True]


def test_a_time_out_after_the_value_was_let_in_is_none() -> None:
    """The time runs out between the hand-off and the late wake-up: the value was taken, so the send returns."""
    ch, (waiter,) = full_with_blocked(1)
    late = list[ThreadWaiter]()
    ch._buf.popleft()
    with ch.lock:
        ch.refill_locked(late)
    assert waiter.wait(0.0, ch.lock)
    assert ch.try_recv() == (1, True)


@pytest.mark.parametrize("timeout", [0.0, 0.001, 0.02])
def test_the_time_limit_is_kept_below_and_above_the_patience(timeout: float) -> None:
    ch = SharedChan[int](1)
    ch.send_sync(0)
    with pytest.raises(TimedOut):
        ch.send_sync(1, timeout=timeout)
    assert ch.statistics().blocked_senders == 0
    assert ch.try_recv() == (0, True)
    assert ch.try_recv() is None


class Sender(threading.Thread):
    """A thread that sends one value to a full channel; `blocked` waits until it is queued."""

    def __init__(self, ch: SharedChan[int], value: int) -> None:
        super().__init__(daemon=True)
        self.ch, self.value, self.error = ch, value, None
        self.start()

    def run(self) -> None:
        try:
            self.ch.send_sync(self.value)
        except SendOnClosed as error:
            self.error = error

    def blocked(self) -> None:
        while not self.ch.statistics().blocked_senders:
            assert self.is_alive()

    error: SendOnClosed | None


@pytest.mark.parametrize("stops", ["joins", "returns", "is closed"])
def test_a_sender_goes_on_although_the_loop_never_turns_again(stops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiters, "PATIENCE", 0.05)  # long enough to be let in with patience left
    ch, loop = SharedChan[int](1), asyncio.new_event_loop()
    ch.send_sync(0)
    sender = Sender(ch, 1)
    sender.blocked()

    async def receive() -> int:
        got = await ch.recv()
        if stops == "joins":
            sender.join(LIMIT)
        return got

    assert loop.run_until_complete(receive()) == 0
    if stops == "is closed":
        loop.close()
    sender.join(LIMIT)
    assert not sender.is_alive()
    assert sender.error is None
    assert ch.try_recv() == (1, True)
    loop.close()


@pytest.mark.parametrize(("cap", "patient"), [(1, False), (31, False), (32, True), (100, True)])
def test_threads_are_patient_where_the_buffer_is_large(cap: int, patient: bool, monkeypatch: Any) -> None:
    monkeypatch.undo()
    ch = SharedChan[int](cap)
    for _ in range(cap):
        ch.send_sync(0)
    monkeypatch.setattr(waiters, "PATIENCE", LIMIT)
    sender = Sender(ch, 1)
    sender.blocked()
    (waiter,) = ch.queue_for(is_send=True)
    assert isinstance(waiter, ThreadWaiter)
    assert waiter.patient is patient
    ch.close()
    sender.join(LIMIT)
    assert not sender.is_alive()


def test_close_wakes_a_patient_thread_at_once() -> None:
    ch = SharedChan[int](1)
    ch.send_sync(0)
    sender = Sender(ch, 1)
    sender.blocked()
    ch.close()
    sender.join(LIMIT)
    assert isinstance(sender.error, SendOnClosed)


@pytest.mark.parametrize("patience", [0.0, 1e-5, 5e-3, LIMIT])
@pytest.mark.parametrize("cap", [1, 8])
def test_stress_with_every_patience(cap: int, patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, two loops, a switch of threads each microsecond; with endless patience the loops wake them all."""
    monkeypatch.setattr(waiters, "PATIENCE", patience)
    ch, count, got = SharedChan[int](cap), 400, [list[int](), list[int]()]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        async def drain(into: list[int]) -> None:
            async with asyncio.timeout(LIMIT):
                async for value in ch:
                    into.append(value)
                    if value % 7 == 0:
                        await asyncio.sleep(0)

        def send(base: int) -> None:
            for value in range(base, base + count):
                ch.send_sync(value)

        loops = [threading.Thread(target=asyncio.run, args=(drain(into),)) for into in got]
        senders = [threading.Thread(target=send, args=(base * count,)) for base in range(3)]
        for thread in loops + senders:
            thread.start()
        for thread in senders:
            thread.join(LIMIT)
            assert not thread.is_alive()
        ch.close()
        for thread in loops:
            thread.join(LIMIT)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(before)
    assert sorted(got[0] + got[1]) == list(range(3 * count))
    for values in got:
        for base in range(3):
            own = [value for value in values if value // count == base]
            assert own == sorted(own)


# -- the lock that is taken by a step of an iterator ------------------------------------------------------------


@pytest.mark.parametrize("method", [SharedChan.send_sync, SharedChan.send])
def test_no_interrupt_is_looked_for_between_the_lock_and_the_try(method: Any) -> None:
    """The interpreter looks for signals after calls and at jumps back; none is between the step and the `try`."""
    code = dis.Bytecode(method)
    instructions = list(code)
    step = next(at for at, one in enumerate(instructions) if one.opname == "FOR_ITER")
    covered = {offset for entry in code.exception_entries for offset in range(entry.start, entry.end, 2)}  # type: ignore[attr-defined]  # since 3.11
    between = []
    for one in instructions[step + 1 :]:
        if one.offset in covered:
            break
        between.append(one.opname)
    assert set(between) <= {"STORE_FAST", "NOP"}


class Interrupted(Exception):
    """What the signal's handler raises."""


@pytest.fixture
def interrupts() -> Iterator[list[bool]]:
    """Have a signal every 50 µs raise `Interrupted` in the main thread, once for each time the flag is set."""
    armed = [False]

    def handler(_number: int, _frame: Any) -> None:
        if armed[0]:
            armed[0] = False
            raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
    yield armed
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_never_leaves_the_lock_taken(interrupts: list[bool]) -> None:
    ch, hits, sent = SharedChan[int](1 << 20), 0, 0
    while hits < 300 and sent < 1 << 19:
        try:
            interrupts[0] = True
            ch.send_sync(sent)
            interrupts[0] = False
        except Interrupted:
            hits += 1
            assert not ch.lock.locked()
        sent += 1
    assert hits
    assert not ch.lock.locked()
    got = ch.recv_many_sync(1 << 20)
    assert got == sorted(set(got))
    assert sent - hits <= len(got) <= sent


# -- the bound that a send looks at first -----------------------------------------------------------------------


def test_the_short_way_is_open_only_while_nobody_is_queued() -> None:
    ch = SharedChan[int](2)
    assert ch._room == 2
    with pytest.raises(TimedOut):
        ch.recv_sync(timeout=0)
    assert ch._room == -1  # somebody was queued; the next send looks closer
    ch.send_sync(1)
    assert ch._room == 2
    ch.send_sync(2)
    with pytest.raises(TimedOut):
        ch.send_sync(3, timeout=0)
    assert ch._room == -1
    assert ch.recv_sync() == 1
    assert ch.try_send(3)
    assert ch._room == 2
    ch.close()
    assert ch._room == -1
    with pytest.raises(SendOnClosed):
        ch.send_sync(4)
    assert ch.recv_many_sync(5) == [2, 3]


def test_a_waiting_receiver_is_served_before_the_buffer_and_a_queued_sender_before_a_new_one() -> None:
    ch = SharedChan[int](2)
    receiver = ThreadWaiter()
    with ch.lock:
        ch.enqueue_locked(receiver, False)
    ch.send_sync(1)
    assert receiver.result == 1
    assert len(ch) == 0
    ch.send_sync(2)
    ch.send_sync(3)
    sender = ThreadWaiter()
    with ch.lock:
        ch.enqueue_locked(sender, True, 4)
    ch._buf.popleft()  # a receive without the lock that has yet to look for senders
    with pytest.raises(TimedOut):
        ch.send_sync(5, timeout=0)
    assert ch.recv_many_sync(5) == [3, 4]
