"""Many tasks blocked on one channel: memory of each above a task that waits on a future, and what close costs.

Prints JSON: bytes a blocked receiver and a task on a bare future, and seconds to wake all of each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
import tracemalloc
from asyncio import Future

from bench.concurrency.adapters import run
from fairway.concurrency import Chan


async def _on_future(future: Future[None]) -> None:
    await future


async def _on_channel(ch: Chan[int]) -> None:
    await ch.recv_ok()


async def _park(tasks: int, ch: Chan[int] | None) -> tuple[list[asyncio.Task[None]], list[Future[None]]]:
    """Start the tasks and let each run until it blocks."""
    loop = asyncio.get_running_loop()
    futures: list[Future[None]] = []
    if ch is not None:
        started = [loop.create_task(_on_channel(ch)) for _ in range(tasks)]
    else:
        futures = [loop.create_future() for _ in range(tasks)]
        started = [loop.create_task(_on_future(future)) for future in futures]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return started, futures


async def memory(tasks: int, *, channel: bool) -> float:
    """Return the bytes that one blocked task takes."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ch = Chan[int]() if channel else None
    started, futures = await _park(tasks, ch)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await _wake(ch, futures)
    await asyncio.gather(*started)
    return taken / tasks


async def _wake(ch: Chan[int] | None, futures: list[Future[None]]) -> float:
    """Wake all that are parked; return the CPU seconds that this took, without their own steps."""
    start = time.process_time()
    if ch is not None:
        ch.close()
    for future in futures:
        future.set_result(None)
    return time.process_time() - start


async def wake(tasks: int, *, channel: bool) -> float:
    """Return the CPU seconds from the call that wakes all to the end of the last task."""
    ch = Chan[int]() if channel else None
    started, futures = await _park(tasks, ch)
    if ch is not None and ch.statistics().blocked_receivers != tasks:
        raise RuntimeError(f"expected {tasks} blocked receivers, got {ch!r}")
    gc.collect()
    gc.disable()
    spent = await _wake(ch, futures)
    gc.enable()
    await asyncio.gather(*started)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("-n", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    result: dict[str, list[float]] = {"channel bytes": [], "future bytes": [], "close s": [], "set s": []}
    result["channel bytes"].append(run(args.loop, lambda: memory(args.n, channel=True)))
    result["future bytes"].append(run(args.loop, lambda: memory(args.n, channel=False)))
    for _ in range(args.runs):
        result["close s"].append(run(args.loop, lambda: wake(args.n, channel=True)))
        result["set s"].append(run(args.loop, lambda: wake(args.n, channel=False)))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
