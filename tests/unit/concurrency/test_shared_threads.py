"""`SharedChan` between threads and event loops: no loss, no double, back-pressure both ways, close wakes everyone.

The stress tests run under a thread-switch interval of 1 µs. Every wait has an end, so a fault is a failure and
not a hang.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fairway.concurrency import Chan, Closed, SendOnClosed, SharedChan, TimedOut, WrongArgument, nil, select, shared
from fairway.concurrency.waiters import ThreadWaiter

LIMIT = 30.0


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Have the interpreter change threads every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Threads:
    """Threads whose failures surface when they are joined."""

    def __init__(self) -> None:
        self._started: list[threading.Thread] = []
        self._failed: list[BaseException] = []

    def start(self, target: Callable[..., Any], *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                target(*args)
            except BaseException as error:
                self._failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._started.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._started:
            thread.join(LIMIT)
            assert not thread.is_alive(), "a thread is still blocked"
        if self._failed:
            raise self._failed[0]


def blocked(ch: SharedChan[Any], senders: int, receivers: int) -> None:
    """Wait until so many are blocked on the channel."""
    import time

    end = time.monotonic() + LIMIT
    while True:
        statistics = ch.statistics()
        if (statistics.blocked_senders, statistics.blocked_receivers) == (senders, receivers):
            return
        assert time.monotonic() < end, f"expected {senders} and {receivers} blocked, got {ch!r}"
        time.sleep(0)


@pytest.fixture(params=[True, False], ids=["lock-free", "locked"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receive with and without the lock; the latter is what a free-threaded build does not do."""
    monkeypatch.setattr(shared, "LOCK_FREE", request.param and shared.LOCK_FREE)


@pytest.mark.parametrize("cap", [0, 1, 16])
@pytest.mark.usefixtures("fast_switching", "both_ways")
def test_threads_to_threads(cap: int) -> None:
    ch, got, count = SharedChan[int](cap), [list[int]() for _ in range(3)], 700
    threads = Threads()

    def produce(base: int) -> None:
        for value in range(count):
            ch.send_sync(base + value, timeout=LIMIT)

    def consume(into: list[int]) -> None:
        try:
            while True:
                into.append(ch.recv_sync(timeout=LIMIT))
        except Closed:
            return

    senders = [threads.start(produce, number * count) for number in range(3)]
    for into in got:
        threads.start(consume, into)
    for sender in senders:
        sender.join(LIMIT)
    ch.close()
    threads.join()
    assert sorted(value for into in got for value in into) == list(range(3 * count))
    for into in got:  # one sender's values reach one receiver in the order in which they were sent
        for number in range(3):
            own = [value for value in into if value // count == number]
            assert own == sorted(own)


@pytest.mark.parametrize("cap", [0, 1, 16])
@pytest.mark.usefixtures("fast_switching", "both_ways")
def test_threads_and_several_loops(cap: int) -> None:
    """Threads send, two loops in threads of their own pass on, a thread collects."""
    first, second, count = SharedChan[int](cap), SharedChan[int](cap), 600
    threads, got = Threads(), list[int]()

    def produce(base: int) -> None:
        for value in range(count):
            first.send_sync(base + value, timeout=LIMIT)

    async def forward() -> None:
        async for value in first:
            await second.send(value)

    async def loop_main() -> None:
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(forward())

    def collect() -> None:
        while batch := second.recv_many_sync(7, timeout=LIMIT):
            got.extend(batch)

    senders = [threads.start(produce, number * count) for number in range(2)]
    loops = [threads.start(asyncio.run, loop_main()) for _ in range(2)]
    threads.start(collect)
    for sender in senders:
        sender.join(LIMIT)
    first.close()
    for loop in loops:
        loop.join(LIMIT)
    second.close()
    threads.join()
    assert sorted(got) == list(range(2 * count))


@pytest.mark.usefixtures("fast_switching")
def test_select_over_shared_channels_from_threads_and_loops() -> None:
    """Selects on two loops and plain operations of threads meet on the same channels; each value arrives once."""
    lanes, count = [SharedChan[int](cap) for cap in (0, 1)], 400
    threads, got = Threads(), list[int]()
    stop = SharedChan[None](0)

    def produce(number: int) -> None:
        for value in range(count):
            lanes[number].send_sync(number * count + value, timeout=LIMIT)

    async def receive() -> None:
        local = Chan[int](0)
        async with asyncio.timeout(LIMIT):
            while True:
                cases = (lanes[0].on_recv(), lanes[1].on_recv(), local.on_recv(), stop.on_recv(), nil.on_recv())
                match await select(*cases):
                    case ((0 | 1), value, True):
                        got.append(value)
                    case 3, _, _:
                        return

    senders = [threads.start(produce, number) for number in range(2)]
    for _ in range(2):
        threads.start(asyncio.run, receive())
    for sender in senders:
        sender.join(LIMIT)
    stop.close()
    threads.join()
    assert sorted(got) == list(range(2 * count))


@pytest.mark.usefixtures("fast_switching", "both_ways")
def test_cancelled_tasks_and_timed_out_threads_lose_nothing() -> None:
    """A thread commits while tasks are being cancelled and threads time out: every value is accounted for."""
    ch, count = SharedChan[int](0), 1500
    threads, got = Threads(), list[int]()

    def produce() -> None:
        for value in range(count):
            while True:
                try:
                    ch.send_sync(value, timeout=0.0005 if value % 3 == 0 else LIMIT)
                    break
                except TimedOut:
                    continue
        ch.close()

    async def receive_and_be_cancelled() -> None:
        ended = False

        async def one() -> None:
            nonlocal ended
            value, ok = await ch.recv_ok()
            if ok and value is not None:
                got.append(value)
            ended = ended or not ok

        async with asyncio.timeout(LIMIT):
            while not ended:
                task = asyncio.ensure_future(one())
                await asyncio.sleep(0)
                if len(got) % 2:
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def receive_with_timeouts() -> None:
        while True:
            try:
                got.append(ch.recv_sync(timeout=0.0002))
            except TimedOut:
                continue
            except Closed:
                return

    threads.start(produce)
    threads.start(receive_with_timeouts)
    threads.start(asyncio.run, receive_and_be_cancelled())
    threads.join()
    assert sorted(got) == list(range(count))


def test_back_pressure_holds_threads_and_tasks() -> None:
    ch, threads = SharedChan[int](2), Threads()
    ch.send_sync(1)
    ch.send_sync(2)
    threads.start(ch.send_sync, 3)
    blocked(ch, 1, 0)
    assert ch.recv_sync() == 1
    threads.join()
    assert len(ch) == 2

    async def main() -> None:
        sending = asyncio.ensure_future(ch.send(4))
        await asyncio.sleep(0)
        assert not sending.done()
        assert await asyncio.to_thread(ch.recv_sync, LIMIT) == 2
        await sending
        assert await ch.recv_many(5) == [3, 4]

    asyncio.run(main())


def test_close_wakes_threads_and_tasks() -> None:
    empty, full, threads, ends = SharedChan[int](0), SharedChan[int](1), Threads(), list[Any]()
    full.send_sync(0)

    def end_of(operation: Callable[..., Any], *args: Any) -> None:
        try:
            ends.append(operation(*args))
        except (Closed, SendOnClosed) as error:
            ends.append(type(error))

    async def tasks() -> list[Any]:
        return await asyncio.gather(empty.recv_ok(), full.send(1), return_exceptions=True)

    loop_thread = threads.start(lambda: ends.append(asyncio.run(tasks())))
    for operation, args in ((empty.recv_sync, ()), (empty.recv_many_sync, (3,)), (full.send_sync, (2,))):
        threads.start(end_of, operation, *args)
    blocked(empty, 0, 3)
    blocked(full, 2, 0)
    empty.close()
    full.close()
    threads.join()
    assert not loop_thread.is_alive()
    from_loop = next(end for end in ends if isinstance(end, list) and end)
    assert from_loop[0] == (None, False)
    assert isinstance(from_loop[1], SendOnClosed)
    rest = [end for end in ends if end is not from_loop]
    assert sorted(map(str, rest)) == sorted(map(str, [Closed, [], SendOnClosed]))
    assert full.recv_sync() == 0


def test_timeouts_of_threads() -> None:
    ch = SharedChan[int](1)
    with pytest.raises(TimedOut, match="SharedChan 0/1"):
        ch.recv_sync(timeout=0.001)
    with pytest.raises(TimeoutError):
        ch.recv_many_sync(2, timeout=0)
    ch.send_sync(1, timeout=0)
    with pytest.raises(TimedOut):
        ch.send_sync(2, timeout=0.001)
    statistics = ch.statistics()
    assert (statistics.blocked_senders, statistics.blocked_receivers) == (0, 0)
    assert ch.recv_many_sync(2, timeout=0) == [1]
    for wrong in (-1, "1", float("nan"), True):
        with pytest.raises(WrongArgument, match="timeout in seconds >= 0 or None, got"):
            ch.recv_sync(timeout=wrong)  # type: ignore[arg-type]
    assert ch.try_send(3)
    assert ch.recv_sync(timeout=float("inf")) == 3


def test_a_waiter_on_a_closed_loop_counts_as_dead() -> None:
    """Loop closed with a task waiting: nobody hands it anything, a thread that sends stays blocked."""
    ch = SharedChan[int](0)
    local = Chan[int](0)
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(op) for op in (ch.recv(), ch.recv_ok(), local.recv())]
    waiting.append(loop.create_task(select(ch.on_recv(), local.on_recv())))
    loop.run_until_complete(asyncio.sleep(0))
    assert ch.statistics().blocked_receivers == 3
    assert local.statistics().blocked_receivers == 2
    loop.close()
    assert ch.statistics().blocked_receivers == local.statistics().blocked_receivers == 0
    assert not ch.try_send(1)
    assert not local.try_send(1)
    with pytest.raises(TimedOut):
        ch.send_sync(2, timeout=0.001)

    async def still_usable() -> None:
        receiver = asyncio.ensure_future(ch.recv())
        await asyncio.sleep(0)
        assert ch.try_send(3)
        assert await receiver == 3
        receiver = asyncio.ensure_future(local.recv())
        await asyncio.sleep(0)
        await local.send(4)
        assert await receiver == 4

    asyncio.run(still_usable())
    for task in waiting:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # they are meant to be left behind


def test_a_sender_on_a_closed_loop_counts_as_dead() -> None:
    for ch in (SharedChan[int](0), Chan[int](0), SharedChan[int](1), Chan[int](1)):
        loop = asyncio.new_event_loop()
        if ch.cap:
            assert ch.try_send(0)
        task = loop.create_task(ch.send(1))
        loop.run_until_complete(asyncio.sleep(0))
        assert ch.statistics().blocked_senders == 1
        loop.close()
        assert ch.statistics().blocked_senders == 0
        assert ch.try_recv() == ((0, True) if ch.cap else None)
        assert ch.try_recv() is None
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be left behind


async def test_thread_commits_while_the_task_is_being_cancelled() -> None:
    """The claim is taken by the thread before the task sees its CancelledError: the value is returned."""
    for _ in range(50):
        ch, log = SharedChan[int](0), list[Any]()

        async def consume(ch: SharedChan[int] = ch, log: list[Any] = log) -> None:
            log.append(await ch.recv())
            try:
                await ch.recv()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        task = asyncio.ensure_future(consume())
        await asyncio.sleep(0)
        sender = threading.Thread(target=ch.send_sync, args=(1,))
        sender.start()
        sender.join(LIMIT)  # the thread has committed; the loop has not run since
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert log == [1, "cancelled"]


async def test_wake_ups_from_threads_are_coalesced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many hand-offs of one thread cost one call_soon_threadsafe while the loop is busy."""
    ch, loop, calls = SharedChan[int](0), asyncio.get_running_loop(), 0
    original = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    receivers = [asyncio.ensure_future(ch.recv()) for _ in range(100)]
    await asyncio.sleep(0)
    sender = threading.Thread(target=lambda: [ch.send_sync(value) for value in range(100)])
    sender.start()
    sender.join(LIMIT)
    assert calls == 1
    assert await asyncio.gather(*receivers) == list(range(100))


def test_an_interrupted_thread_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt in a blocked receive: raised, and nothing is handed to the one that left."""
    from fairway.concurrency.waiters import ThreadWaiter

    class Interrupting:
        def acquire(self, *_: Any) -> bool:
            raise KeyboardInterrupt

    original = ThreadWaiter.__init__

    def interrupted(self: ThreadWaiter) -> None:
        original(self)
        self._wake = Interrupting()  # type: ignore[assignment]

    ch = SharedChan[int](0)
    monkeypatch.setattr(ThreadWaiter, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ch.recv_sync()
    assert ch.statistics().blocked_receivers == 0
    assert not ch.try_send(1)


def test_views_of_shared_channels() -> None:
    ch = SharedChan[int](1)
    with ch.sender as out:
        assert out.try_send(1)
    assert ch.receiver.try_recv() == (1, True)
    assert ch.receiver.try_recv() == (None, False)


@pytest.mark.parametrize("with_select", [False, True])
def test_a_receiver_is_told_although_its_sender_sees_a_late_cancel(with_select: bool) -> None:
    ch, told, threads = SharedChan[int](1 if with_select else 0), threading.Event(), Threads()

    async def receiver() -> None:
        assert await ch.recv() == 1
        told.set()

    async def blocked_sender() -> None:
        await ch.send(1)
        told.set()

    async def sender() -> None:
        late = SharedChan[int](0)

        async def send() -> None:
            await late.recv()
            if with_select:
                ch._buf.popleft()  # a receive of another thread, which has yet to look for senders
                await select(ch.on_send(2), late.on_recv())
            else:
                await ch.send_many([1, 2])

        task = asyncio.ensure_future(send())
        await asyncio.sleep(0)
        assert late.try_send(0)
        task.cancel()  # comes late, over a receive that has happened: it is due at the task's next wait
        with pytest.raises(asyncio.CancelledError):
            await task

    if with_select:
        ch.send_sync(0)
    threads.start(asyncio.run, blocked_sender() if with_select else receiver())
    blocked(ch, int(with_select), int(not with_select))
    asyncio.run(sender())
    assert told.wait(LIMIT / 10)
    threads.join()


async def test_loops_are_notified_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    ch, loop, threads = SharedChan[int](0), asyncio.get_running_loop(), Threads()
    notify, held = loop.call_soon_threadsafe, list[bool]()

    def watch(*args: Any, **kwargs: Any) -> asyncio.Handle:
        held.append(ch.lock.locked())
        return notify(*args, **kwargs)

    receiver = asyncio.ensure_future(ch.recv())
    await asyncio.sleep(0)
    monkeypatch.setattr(loop, "call_soon_threadsafe", watch)
    threads.start(ch.send_sync, 1)
    assert await receiver == 1
    sender = asyncio.ensure_future(ch.send(2))
    await asyncio.sleep(0)
    got = list[int]()
    threads.start(lambda: got.append(ch.recv_sync(LIMIT)))
    await sender
    closing = asyncio.ensure_future(ch.recv_ok())
    await asyncio.sleep(0)
    threads.start(ch.close)
    assert await closing == (None, False)
    await asyncio.to_thread(threads.join)
    assert held[:3] == [False, False, False]
    assert got == [2]
