"""Fairway's side of `bench.jobs`, each in a process of its own: `python -m bench.jobs.own WHAT N OUT URL`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.jobs import peers
from bench.jobs.bench_tasks import meter, noop, tasks
from fairway.jobs import Queue, WorkerConfig
from fairway.jobs.job import Completed, NewJob, raw
from fairway.jobs.opening import open_store
from fairway.jobs.store import Store

TEXT = peers.TEXT
ARGS = raw({"n": 1, "text": TEXT})


async def fill(store: Store, n: int) -> None:
    """Enqueue `n` numbered jobs, 1,000 a call."""
    for start in range(0, n, 1000):
        await store.enqueue([noop.job(i, TEXT) for i in range(start, min(n, start + 1000))])


async def drain(store: Store, n: int, claimers: int = 8, batch: int = 32) -> float:
    """Claim and complete `n` jobs, each committed before it is acknowledged; return jobs a second."""
    done = 0

    async def work(name: str) -> None:
        nonlocal done
        while done < n:
            leases = await store.claim(["default"], min(batch, max(1, n - done)), 60.0, name)
            if not leases:
                return
            await store.settle([Completed(x.id, x.fence) for x in leases])
            done += len(leases)

    begin = time.perf_counter()
    await asyncio.gather(*(work(f"w{k}") for k in range(claimers)))
    elapsed = time.perf_counter() - begin
    if done < n:
        raise RuntimeError(f"expected {n} jobs, {done} were completed")
    return done / elapsed


async def produce(_n: int, url: str) -> None:
    """Do what standard input says."""
    async with Queue(url) as queue:

        async def enqueue(i: int, text: str) -> None:
            await queue.enqueue(noop, i, text)

        async def fill_all(n: int) -> None:
            await fill(queue.store, n)

        await peers.produce_async(enqueue, fill_all)


async def claim(n: int, url: str) -> None:
    """Claim and complete in this process, 8 claimers of 32."""
    async with open_store(url) as store:
        await fill(store, n)
        peers.write({"rate": await drain(store, n)})


async def end_to_end(n: int, url: str, producers: int = 32) -> None:
    """Producers and a worker in this process: enqueue one by one, run the typed handler, store the result."""
    meter.expected = 0
    async with Queue(url) as queue, queue.worker(tasks, WorkerConfig(concurrency=64)) as worker:
        numbers = iter(range(n))

        async def producer() -> None:
            for i in numbers:
                await queue.enqueue(noop, i, TEXT)

        begin = time.perf_counter()
        await asyncio.gather(*(producer() for _ in range(producers)))
        while worker.statistics().settled < n:
            await asyncio.sleep(0.002)
        elapsed = time.perf_counter() - begin
        (status,) = await queue.store.queues()
        if meter.total != n * (n - 1) // 2 or status.counts["completed"] != n:
            raise RuntimeError("not every job ran and completed")
        peers.write({"rate": n / elapsed})


async def end_to_end_many(n: int, url: str) -> None:
    """The same with 256 producers."""
    await end_to_end(n, url, 256)


async def latency_inside(n: int, url: str) -> None:
    """50 jobs a second, worker in this process."""
    meter.expected = n
    async with Queue(url) as queue, queue.worker(tasks):
        begin = time.perf_counter()
        for i in range(n):
            await asyncio.sleep(max(0.0, begin + i / 50 - time.perf_counter()))
            await queue.enqueue(noop, i, peers.stamp())
        while meter.count < n:
            await asyncio.sleep(0.01)


async def crowd(n: int, url: str) -> None:
    """Claim rate on an empty store and among `n` waiting and `n` finished jobs; then the time to open that store."""
    path = Path(url.removeprefix("sqlite:///"))
    probe = 20_000
    async with open_store(f"sqlite:///{path.with_name('empty.db')}") as store:
        await fill(store, probe)
        empty = await drain(store, probe)
        begin = time.perf_counter()
    async with open_store(f"sqlite:///{path.with_name('empty.db')}"):
        empty_start = time.perf_counter() - begin
    jobs = [NewJob(kind="noop", args=ARGS)] * 1000
    async with open_store(url) as store:
        for _ in range(n // 1000):
            await store.enqueue(jobs)
        await drain(store, n, claimers=2, batch=1000)
        for _ in range((n + probe) // 1000):
            await store.enqueue(jobs)
        full = await drain(store, probe)
    begin = time.perf_counter()
    async with open_store(url) as store:
        full_start = time.perf_counter() - begin
        (status,) = await store.queues()
        waiting, finished = status.counts["available"], status.counts["completed"]
        # Claimers that run at once may take a batch each beyond what was asked for.
        if waiting + finished != 2 * n + probe or waiting < n - 1_000:
            raise RuntimeError(f"expected {n} waiting, got {status.counts}")
    peers.write({"empty": empty, "full": full, "empty_start": empty_start, "full_start": full_start})


async def bare(_n: int, url: str) -> None:
    """A Starlette handler that reads the body, stores nothing and answers as an enqueue does, on the same server."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from fairway.api.server import serve

    async def handler(request: Request) -> Response:
        await request.body()
        return Response(b'{"ids":[1],"duplicates":[],"batch":null,"durability":"memory"}', 201,
                        media_type="application/json")  # fmt: skip

    app = Starlette(routes=[Route("/v1/queues/{queue}/jobs", handler, methods=["POST"])])
    async with serve(app, host="127.0.0.1", port=int(url)):
        await asyncio.get_running_loop().create_future()


ROLES: dict[str, Callable[[int, str], Awaitable[Any]]] = {
    "produce": produce, "claim": claim, "end-to-end": end_to_end, "end-to-end-many": end_to_end_many,
    "latency-inside": latency_inside, "crowd": crowd, "bare": bare,
}  # fmt: skip

if __name__ == "__main__":
    what, count, out, at = sys.argv[1:]
    os.environ["BENCH_OUT"] = out
    uvloop.run(ROLES[what](int(count), at))  # type: ignore[arg-type]
