"""The peers of `bench.jobs`: how each is installed, enqueues and works. Run inside a peer's own environment:

    python peers.py NAME produce 0 OUT URL     a producer that does what its standard input says, see `commands`
    python peers.py NAME work N OUT URL        one worker process at its best setting, until N jobs have run
    python peers.py NAME inside N OUT URL      32 producers and a worker in one process and loop, for a peer that can
    python peers.py NAME inside-256 N OUT URL  the same with 256
    python peers.py NAME prepare 0 OUT URL     makes its tables, for a peer that has some

Each job is a no-op with an integer and a string of 100 bytes. `Meter` counts and sums the integers: the correctness
gate. Nothing of Fairway is imported here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

TEXT = "x" * 100
REQUIREMENTS: dict[str, list[str]] = {
    # hiredis, with which redis-py is faster, for everyone who can use it.
    "celery": ["celery[redis]==5.6.0", "hiredis==3.2.1"],
    "dramatiq": ["dramatiq[redis]==1.18.0", "hiredis==3.2.1"],
    "rq": ["rq==2.6.0", "hiredis==3.2.1"],
    "arq": ["arq==0.26.3", "hiredis==3.2.1"],
    "taskiq": ["taskiq==0.11.18", "taskiq-redis==1.0.9", "hiredis==3.2.1"],
    "huey": ["huey==2.5.3", "redis==5.2.1", "hiredis==3.2.1"],
    "saq": ["saq[hiredis]==0.24.4"],
    "procrastinate": ["procrastinate==3.2.2", "psycopg[binary]==3.2.9"],
    "pgqueuer": ["pgqueuer==0.21.1", "asyncpg==0.30.0", "uvloop==0.21.0"],
}
POSTGRES = {"procrastinate", "pgqueuer"}


class Meter:
    """Counts jobs in the worker and writes what it saw once `expected` have run."""

    def __init__(self) -> None:
        self.expected = int(os.environ.get("BENCH_JOBS", "0"))
        self.count = 0
        self.total = 0
        self.first = 0.0
        self.lags: list[float] = []

    def __call__(self, n: int, text: str) -> None:
        now = time.perf_counter()
        if not self.count:
            self.first = now
        self.count += 1
        self.total += n
        if text[0] == "@":
            self.lags.append(time.time() - float(text[1:21]))
        if self.count == self.expected:
            elapsed = time.perf_counter() - self.first
            result = {"count": self.count, "total": self.total, "seconds": elapsed, "lags": self.lags}
            write({**result, "ended": time.time()})


def write(result: dict[str, Any]) -> None:
    """Leave the result where the benchmark looks for it."""
    path = Path(os.environ["BENCH_OUT"])
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.rename(path)


def read_back() -> dict[str, Any]:
    """Return what `write` left."""
    result: dict[str, Any] = json.loads(Path(os.environ["BENCH_OUT"]).read_text())
    return result


meter = Meter()


def stamp() -> str:
    """Return a string of 100 bytes that begins with the time."""
    return f"@{time.time():<20.7f}".ljust(100, "x")


Enqueue = Callable[[int, str], Any]


def commands() -> Iterator[tuple[str, int]]:
    """Yield what the benchmark asks for, line by line: ``one N``, ``many N``, ``many-256 N``, ``pace N`` or ``fill N``.

    N jobs one after another; from 32 or 256 producers at once (where it is async); 50 a second, each with the time of
    its enqueue; as fast as can be. Jobs are numbered from 0. Every enqueue is acknowledged before its producer goes on.
    """
    for line in sys.stdin:
        what, _, count = line.partition(" ")
        yield what, int(count)


def tell(**result: float) -> None:
    """Answer a command."""
    print("RESULT", json.dumps(result), flush=True)


def produce_sync(enqueue: Enqueue) -> None:
    """Do what is asked for, from one thread."""
    tell()
    for what, n in commands():
        begin = time.perf_counter()
        for i in range(n):
            if what == "pace":
                time.sleep(max(0.0, begin + i / 50 - time.perf_counter()))
            enqueue(i, stamp() if what == "pace" else TEXT)
        tell(rate=n / (time.perf_counter() - begin))


async def produce_async(
    enqueue: Callable[[int, str], Awaitable[Any]], fill: Callable[[int], Awaitable[Any]] | None = None
) -> None:
    """Do what is asked for, on this loop; `fill` is how many jobs are enqueued in the fewest calls."""
    tell()
    for what, n in commands():
        begin = time.perf_counter()
        if what == "fill" and fill is not None:
            await fill(n)
        elif what in {"many", "many-256", "fill"}:
            await _produce_many(enqueue, n, 256 if what == "many-256" else 32)
        else:
            for i in range(n):
                if what == "pace":
                    await asyncio.sleep(max(0.0, begin + i / 50 - time.perf_counter()))
                await enqueue(i, stamp() if what == "pace" else TEXT)
        tell(rate=n / (time.perf_counter() - begin))


async def _produce_many(enqueue: Callable[[int, str], Awaitable[Any]], n: int, producers: int = 32) -> None:
    numbers = iter(range(n))

    async def produce() -> None:
        for i in numbers:
            await enqueue(i, TEXT)

    await asyncio.gather(*(produce() for _ in range(producers)))


def celery(role: str, url: str) -> None:
    from celery import Celery

    app = Celery("bench", broker=url)
    app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=512, broker_connection_retry_on_startup=True)

    @app.task(name="noop")
    def noop(n: int, text: str) -> None:
        meter(n, text)

    if role == "work":
        app.worker_main(
            ["worker", "-P", "solo", "-l", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        )
    else:
        produce_sync(noop.delay)


def dramatiq(role: str, url: str) -> None:
    import dramatiq as lib
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url, middleware=[])
    lib.set_broker(broker)

    @lib.actor
    def noop(n: int, text: str) -> None:
        meter(n, text)

    if role == "work":
        worker = lib.Worker(broker, worker_threads=4)
        worker.start()
        time.sleep(3600)
    else:
        produce_sync(noop.send)


def rq_noop(n: int, text: str) -> None:
    """RQ finds its functions by name."""
    meter(n, text)


def rq(role: str, url: str) -> None:
    from redis import Redis
    from rq import Queue, SimpleWorker

    sys.modules["peers"] = sys.modules["__main__"]
    connection = Redis.from_url(url)
    queue = Queue(connection=connection)

    def enqueue(n: int, text: str) -> None:
        queue.enqueue("peers.rq_noop", n, text, result_ttl=0)

    if role == "work":
        SimpleWorker([queue], connection=connection).work(logging_level="ERROR")
    else:
        produce_sync(enqueue)


def arq(role: str, url: str) -> None:
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    at = RedisSettings.from_dsn(url)

    async def noop(_ctx: Any, n: int, text: str) -> None:
        meter(n, text)

    async def produce() -> None:
        pool = await create_pool(at)

        async def enqueue(n: int, text: str) -> None:
            await pool.enqueue_job("noop", n, text)

        await produce_async(enqueue)

    if role == "work":
        asyncio.set_event_loop(asyncio.new_event_loop())
        Worker(
            functions=[func(noop, name="noop")], redis_settings=at, max_jobs=200, poll_delay=0.01, keep_result=0
        ).run()
    else:
        asyncio.run(produce())


def taskiq(role: str, url: str) -> None:
    from taskiq.api import run_receiver_task
    from taskiq_redis import ListQueueBroker

    async def main() -> None:
        broker = ListQueueBroker(url=url)

        @broker.task(task_name="noop")
        async def noop(n: int, text: str) -> None:
            meter(n, text)

        await broker.startup()
        if role == "work":
            broker.is_worker_process = True
            await run_receiver_task(broker, max_async_tasks=100, run_startup=True)
        else:
            await produce_async(noop.kiq)
            await broker.shutdown()

    asyncio.run(main())


def huey(role: str, url: str) -> None:
    from huey import RedisHuey

    queue = RedisHuey("bench", url=url, results=False)

    @queue.task(name="noop")
    def noop(n: int, text: str) -> None:
        meter(n, text)

    if role == "work":
        queue.create_consumer(workers=1, worker_type="thread", periodic=False, check_worker_health=False).run()
    else:
        produce_sync(noop)


def saq(role: str, url: str) -> None:
    from saq import Queue, Worker

    async def noop(_ctx: Any, *, n: int, text: str) -> None:
        meter(n, text)

    async def main() -> None:
        queue = Queue.from_url(url)
        await queue.connect()

        async def enqueue(n: int, text: str) -> None:
            await queue.enqueue("noop", n=n, text=text, ttl=-1)

        if role == "work":
            await Worker(queue, functions=[("noop", noop)], concurrency=50).start()
        else:
            await produce_async(enqueue)

    asyncio.run(main())


def procrastinate(role: str, url: str) -> None:
    import procrastinate as lib

    app = lib.App(connector=lib.PsycopgConnector(conninfo=url, min_size=4, max_size=32))

    @app.task(name="noop")
    async def noop(n: int, text: str) -> None:
        meter(n, text)

    async def enqueue(n: int, text: str) -> None:
        await noop.defer_async(n=n, text=text)

    async def main() -> None:
        async with app.open_async():
            if role == "prepare":
                await app.schema_manager.apply_schema_async()
            elif role == "work":
                await app.run_worker_async(concurrency=20, install_signal_handlers=False, delete_jobs="always")
            else:
                await produce_async(enqueue)

    asyncio.run(main())


def pgqueuer(role: str, url: str) -> None:
    import asyncpg
    import uvloop
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
    from pgqueuer.queries import Queries

    async def work() -> None:
        worker = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

        @worker.entrypoint("noop")
        async def noop(job: Any) -> None:
            n, text = json.loads(job.payload)
            meter(n, text)

        await worker.run(batch_size=1_000)

    async def main() -> None:
        if role == "prepare":
            await Queries(AsyncpgDriver(await asyncpg.connect(url))).install()
            return
        if role == "work":
            await work()
            return
        # Of 3, 5, 8, 16 and 32 connections 8 are the best on two cores, end to end.
        pool = await asyncpg.create_pool(url, min_size=4, max_size=8)
        queries = Queries(AsyncpgPoolDriver(pool))

        async def enqueue(n: int, text: str) -> None:
            await queries.enqueue("noop", json.dumps([n, text]).encode())

        async def fill(n: int) -> None:
            for start in range(0, n, 1_000):
                payloads: list[bytes | None] = [json.dumps([i, TEXT]).encode() for i in range(start, start + 1_000)]
                await queries.enqueue(["noop"] * 1_000, payloads, [0] * 1_000)

        if role == "produce":
            await produce_async(enqueue, fill)
        else:
            await _inside(enqueue, work, 256 if role == "inside-256" else 32)

    uvloop.run(main())


async def _inside(enqueue: Enqueue, work: Callable[[], Awaitable[None]], producers: int) -> None:
    """Enqueue one by one and work in one loop; the clock runs from the first enqueue to the last job's run."""
    worker = asyncio.ensure_future(work())
    await asyncio.sleep(1.0)  # connected, and waiting for jobs
    begin = time.time()
    await _produce_many(enqueue, meter.expected, producers)
    while meter.count < meter.expected:
        await asyncio.sleep(0.002)
    result = read_back()
    write({**result, "rate": meter.expected / (result["ended"] - begin)})
    worker.cancel()


PEERS = {peer.__name__: peer for peer in (celery, dramatiq, rq, arq, taskiq, huey, saq, procrastinate, pgqueuer)}

if __name__ == "__main__":
    name, role, jobs, out, url = sys.argv[1:]
    os.environ["BENCH_OUT"] = out
    os.environ["BENCH_JOBS"] = jobs
    meter = Meter()
    PEERS[name](role, url)
