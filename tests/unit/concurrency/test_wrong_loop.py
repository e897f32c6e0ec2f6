"""What belongs to one event loop, used from a second one in another thread meanwhile: it works, or says `WrongLoop`.

The first loop runs in a thread of its own and waits; the second use has a time limit, so a hang is a failure.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from fairway.concurrency import (
    Chan,
    ErrGroup,
    Once,
    RateLimiter,
    SharedChan,
    SingleFlight,
    Ticker,
    Timer,
    WaitGroup,
    WeightedSemaphore,
    WorkerPool,
    WrongLoop,
    after,
    after_func,
    background,
    once_value,
    select,
    with_cancel,
)

LIMIT = 10.0


class Elsewhere:
    """An event loop that runs in another thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run `main` there and return its result."""
        return asyncio.run_coroutine_threadsafe(main, self.loop).result(LIMIT)

    def begin(self, main: Callable[[], Awaitable[Any]]) -> None:
        """Start `main` there and return when it waits."""

        async def start() -> None:
            self._task = asyncio.ensure_future(main())
            for _ in range(5):
                await asyncio.sleep(0)

        self.call(start())

    def end(self) -> None:
        async def cancel() -> None:
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        self.loop.close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    it = Elsewhere()
    yield it
    it.end()


async def _soon(use: Awaitable[Any]) -> None:
    await asyncio.wait_for(use, LIMIT)


# Each makes the thing on the first loop, binds it there, and returns the use on the second.
Use = Callable[[], Awaitable[Any]]


def chan_send_to_receiver(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(ch.recv)
    return lambda: ch.send(1)


def chan_send_to_receiver_with_a_buffer(there: Elsewhere) -> Use:
    ch = Chan[int](4)
    there.begin(ch.recv)
    return lambda: ch.send(1)


def chan_recv_from_sender(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(lambda: ch.send(1))
    return ch.recv


def chan_recv_ok_beside_a_receiver(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(ch.recv)
    return ch.recv_ok


def chan_recv_many(there: Elsewhere) -> Use:
    ch = Chan[int](1)
    there.begin(lambda: ch.send_many([1, 2, 3]))
    return lambda: ch.recv_many(8)


def chan_send_many(there: Elsewhere) -> Use:
    ch = Chan[int](1)
    there.begin(ch.recv)
    return lambda: ch.send_many([1, 2, 3])


def chan_iteration(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(ch.recv)
    return ch.__anext__


def chan_close(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(ch.recv)

    async def close() -> None:
        ch.close()

    return close


def chan_try_send(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(ch.recv)

    async def send() -> None:
        ch.try_send(1)

    return send


def chan_try_recv(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(lambda: ch.send(1))

    async def recv() -> None:
        ch.try_recv()

    return recv


def select_that_waits(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(lambda: select(ch.on_recv()))
    return lambda: select(Chan[int]().on_recv(), ch.on_recv())


def select_that_is_ready(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(lambda: select(ch.on_send(1)))
    return lambda: select(ch.on_recv())


def select_over_shared_and_chan(there: Elsewhere) -> Use:
    ch = Chan[int]()
    there.begin(ch.recv)
    return lambda: select(SharedChan[int]().on_recv(), ch.on_recv())


def ticker(there: Elsewhere) -> Use:
    async def make() -> Ticker:
        return Ticker(3600)

    made: Ticker = there.call(make())
    return made.recv


def timer(there: Elsewhere) -> Use:
    async def make() -> Timer:
        return Timer(3600)

    made: Timer = there.call(make())
    return made.recv


def after_channel(there: Elsewhere) -> Use:
    async def make() -> Any:
        return after(3600)

    made = there.call(make())
    return lambda: select(made.on_recv())


def semaphore_acquire(there: Elsewhere) -> Use:
    sem = WeightedSemaphore(1)
    there.begin(lambda: sem.acquire(background()))
    return lambda: sem.acquire(background())


def semaphore_release(there: Elsewhere) -> Use:
    sem = WeightedSemaphore(1)
    there.begin(lambda: sem.acquire(background()))
    there.begin(lambda: sem.acquire(background()))

    async def release() -> None:
        sem.release()

    return release


def semaphore_try_acquire(there: Elsewhere) -> Use:
    sem = WeightedSemaphore(2)
    there.begin(lambda: sem.acquire(background()))

    async def take() -> None:
        sem.try_acquire()

    return take


def errgroup_go(there: Elsewhere) -> Use:
    group = ErrGroup(limit=1)
    there.begin(lambda: group.go(Chan[int]().recv))
    return lambda: group.go(Chan[int]().recv)


def errgroup_try_go(there: Elsewhere) -> Use:
    group = ErrGroup()
    there.begin(lambda: group.go(Chan[int]().recv))

    async def start() -> None:
        group.try_go(Chan[int]().recv)

    return start


def errgroup_wait(there: Elsewhere) -> Use:
    group = ErrGroup()
    there.begin(lambda: group.go(Chan[int]().recv))
    return group.wait


def worker_pool(there: Elsewhere) -> Use:
    async def work(_item: int) -> None:
        await Chan[int]().recv()

    pool = WorkerPool(work, workers=1)

    async def start() -> None:
        pool.start()

    there.begin(start)
    return lambda: pool.publish(1)


REFUSED = [
    chan_send_to_receiver, chan_send_to_receiver_with_a_buffer, chan_recv_from_sender, chan_recv_ok_beside_a_receiver,
    chan_recv_many, chan_send_many, chan_iteration, chan_close, chan_try_send, chan_try_recv, select_that_waits,
    select_that_is_ready, select_over_shared_and_chan, ticker, timer, after_channel, semaphore_acquire,
    semaphore_release, semaphore_try_acquire, errgroup_go, errgroup_try_go, errgroup_wait, worker_pool,
]  # fmt: skip


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("bind", REFUSED, ids=lambda bind: bind.__name__)
async def test_a_second_loop_is_refused(bind: Callable[[Elsewhere], Use], elsewhere: Elsewhere, busy: bool) -> None:
    use = bind(elsewhere)
    free = threading.Event()
    if busy:  # a task runs on the first loop at this very moment
        running = threading.Event()

        async def hold() -> None:
            running.set()
            free.wait(LIMIT)

        asyncio.run_coroutine_threadsafe(hold(), elsewhere.loop)
        assert running.wait(LIMIT)
    try:
        with pytest.raises(WrongLoop, match="expected"):
            await _soon(use())
    finally:
        free.set()


async def test_a_wait_group_serves_two_loops(elsewhere: Elsewhere) -> None:
    group = WaitGroup()
    group.add()
    elsewhere.begin(group.wait)
    waiting = asyncio.ensure_future(group.wait())
    await asyncio.sleep(0)
    group.done()
    await _soon(waiting)
    elsewhere.call(group.wait())


async def test_once_serves_two_loops(elsewhere: Elsewhere) -> None:
    once, ch, calls = Once(), SharedChan[int](), list[int]()

    async def fn() -> None:
        calls.append(await ch.recv())

    value = once_value(ch.recv)
    elsewhere.begin(lambda: once.do(fn))
    elsewhere.begin(value)
    waiting = [asyncio.ensure_future(once.do(fn)), asyncio.ensure_future(value())]
    await asyncio.sleep(0)
    await _soon(ch.send_many([1, 2]))
    await _soon(asyncio.gather(*waiting))
    assert calls == [1]
    assert await value() == 2


async def test_single_flight_serves_two_loops(elsewhere: Elsewhere) -> None:
    group, ch = SingleFlight(), SharedChan[int]()
    elsewhere.begin(lambda: group.do("k", ch.recv))
    waiting = asyncio.ensure_future(group.do("k", ch.recv))
    await asyncio.sleep(0)
    await _soon(ch.send(7))
    assert await asyncio.wait_for(waiting, LIMIT) == (7, True)


async def test_a_context_serves_two_loops(elsewhere: Elsewhere) -> None:
    ctx, called = with_cancel(background()), SharedChan[int](1)
    elsewhere.begin(lambda: ctx.done().recv_ok())

    async def follow() -> None:
        after_func(ctx, lambda: called.try_send(1))

    elsewhere.call(follow())
    waiting = asyncio.ensure_future(select(ctx.done().on_recv()))
    await asyncio.sleep(0)
    ctx.cancel()
    assert await asyncio.wait_for(waiting, LIMIT) == (0, None, False)
    assert await asyncio.wait_for(called.recv(), LIMIT) == 1


async def test_a_rate_limiter_serves_two_loops(elsewhere: Elsewhere) -> None:
    limiter = RateLimiter(1000.0, 1)
    elsewhere.call(limiter.wait(background()))
    await _soon(limiter.wait(background()))


def test_a_channel_moves_on_when_its_loop_has_ended() -> None:
    ch, sem = Chan[int](), WeightedSemaphore(1)

    async def use() -> int:
        sending = asyncio.ensure_future(ch.send(1))
        got = await ch.recv()
        await sending
        await sem.acquire(background())
        sem.release()
        return got

    assert [asyncio.run(use()) for _ in range(2)] == [1, 1]
