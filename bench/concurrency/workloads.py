"""What is measured: each workload moves n values, checks that they arrived, and returns CPU seconds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.concurrency.adapters import Adapter, AsyncFn, run, together


def check(what: str, got: object, expected: object) -> None:
    """Refuse to report a time for work that was not done."""
    if got != expected:
        raise RuntimeError(f"{what}: expected {expected!r}, got {got!r}")


async def produce(put: AsyncFn, n: int) -> None:
    for value in range(n):
        await put(value)


async def consume(get: AsyncFn, n: int, sums: list[int]) -> None:
    total = 0
    for _ in range(n):
        total += await get()
    sums.append(total)


def measure(loop: str, main: Callable[[], Coroutine[Any, Any, float]]) -> float:
    seconds: float = run(loop, main)
    return seconds


def buffered(adapter: Adapter, loop: str, n: int) -> float:
    """One producer, one consumer, capacity 128."""
    return _flow(adapter, loop, n, cap=128, pairs=1)


def eight(adapter: Adapter, loop: str, n: int) -> float:
    """Eight producers, eight consumers, capacity 64."""
    return _flow(adapter, loop, n, cap=64, pairs=8)


def _flow(adapter: Adapter, loop: str, n: int, *, cap: int, pairs: int) -> float:
    async def main() -> float:
        pipe, sums, each = adapter.pipe(cap), list[int](), n // pairs
        jobs = [partial(produce, pipe.put, each) for _ in range(pairs)]
        jobs += [partial(consume, pipe.get, each, sums) for _ in range(pairs)]
        start = time.process_time()
        await together(loop, jobs)
        spent = time.process_time() - start
        pipe.close()
        check(f"{adapter.name} {pairs}→{pairs}", sum(sums), pairs * each * (each - 1) // 2)
        return spent

    return measure(loop, main)


def ping_pong(adapter: Adapter, loop: str, n: int) -> float:
    """A value goes back and forth between two tasks over two unbuffered channels; n round trips."""

    async def main() -> float:
        there, back, sums = adapter.pipe(0), adapter.pipe(0), list[int]()

        async def ping() -> None:
            total = 0
            put, get = there.put, back.get
            for value in range(n):
                await put(value)
                total += await get()
            sums.append(total)

        async def pong() -> None:
            put, get = back.put, there.get
            for _ in range(n):
                await put(await get())

        start = time.process_time()
        await together(loop, [ping, pong])
        spent = time.process_time() - start
        there.close()
        back.close()
        check(f"{adapter.name} ping-pong", sum(sums), n * (n - 1) // 2)
        return spent

    return measure(loop, main)


def batch(loop: str, n: int) -> float:
    """The library's own `send_many` and `recv_many`, one producer, one consumer, capacity 128, batches of 128."""
    from fairway.concurrency import Chan

    async def main() -> float:
        ch, sums = Chan[int](128), list[int]()

        async def send() -> None:
            for start in range(0, n, 128):
                await ch.send_many(range(start, min(start + 128, n)))
            ch.close()

        async def receive() -> None:
            total = 0
            while got := await ch.recv_many(128):
                total += sum(got)
            sums.append(total)

        start = time.process_time()
        await together(loop, [send, receive])
        spent = time.process_time() - start
        check("fairway batch", sums, [n * (n - 1) // 2])
        return spent

    return measure(loop, main)


def select_ready(loop: str, n: int) -> tuple[float, float]:
    """CPU seconds of n plain receives from a buffer, and of n selects over it and an idle channel."""
    from fairway.concurrency import Chan, select

    async def main() -> tuple[float, float]:
        full, idle = Chan[int](n), Chan[int](0)
        await full.send_many(range(n))
        start = time.process_time()
        for _ in range(n):
            await full.recv()
        plain = time.process_time() - start
        await full.send_many(range(n))
        start = time.process_time()
        for _ in range(n):
            await select(full.on_recv(), idle.on_recv())
        spent = time.process_time() - start
        check("fairway select", len(full), 0)
        return plain, spent

    result: tuple[float, float] = run(loop, main)
    return result


@dataclass(frozen=True)
class Placement:
    """Which cores the loop's thread and the sending thread may run on.

    What a change of threads costs depends on it by a factor of two, and the system's own choice changes between
    runs; so it is fixed too, in both ways.
    """

    name: str
    loop: frozenset[int]
    sender: frozenset[int]


def placements() -> list[Placement]:
    """Both threads on one core, and each on a core of its own; none where the system does not tell its cores."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    first, *others = sorted(os.sched_getaffinity(0))
    found = [Placement("on one core", frozenset({first}), frozenset({first}))]
    if others:
        found.append(Placement("on two cores", frozenset({first}), frozenset({others[0]})))
    return found


def from_thread(name: str, loop: str, n: int, placement: Placement | None = None) -> tuple[float, float]:
    """One thread sends n values, a task receives them, capacity 128; CPU seconds of both, and wall-clock seconds."""

    async def main() -> tuple[float, float]:
        put, get, close = _threaded(name, 128)

        def feed() -> None:
            if placement is not None:
                os.sched_setaffinity(0, placement.sender)  # of this thread
            for value in range(n):
                put(value)

        thread = threading.Thread(target=feed)
        total = 0
        start, cpu = time.perf_counter(), time.process_time()
        thread.start()
        for _ in range(n):
            total += await get()
        spent = time.perf_counter() - start
        thread.join()
        cpu = time.process_time() - cpu
        close()
        check(f"{name} thread→asyncio", total, n * (n - 1) // 2)
        return cpu, spent

    if placement is None:
        result: tuple[float, float] = run(loop, main)
        return result
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, placement.loop)
    try:
        result = run(loop, main)
    finally:
        os.sched_setaffinity(0, before)
    return result


def _threaded(name: str, cap: int) -> tuple[Callable[[int], Any], AsyncFn, Callable[[], Any]]:
    if name == "fairway shared":
        from fairway.concurrency import SharedChan

        ch = SharedChan[int](cap)
        return ch.send_sync, ch.recv, ch.close
    if name == "janus":
        import janus

        queue: janus.Queue[int] = janus.Queue(cap)
        return queue.sync_q.put, queue.async_q.get, queue.close
    if name == "culsans":
        import culsans

        other: culsans.Queue[int] = culsans.Queue(cap)
        return other.sync_q.put, other.async_q.get, other.close
    import aiologic

    third: aiologic.Queue[int] = aiologic.Queue(cap)
    return third.green_put, third.async_get, lambda: None


THREADED = ["fairway shared", "janus", "culsans", "aiologic"]
