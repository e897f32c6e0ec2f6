"""The same of FastStream at its best, one after another: a group with one member handles and acknowledges events."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

import uvloop
from faststream.redis import RedisBroker, StreamSub


async def main(url: str, count: int) -> None:
    filler = RedisBroker(url, logger=None, log_level=logging.CRITICAL)
    async with filler:
        await filler.start()
        for n in range(count):
            await filler.publish({"n": n, "text": "x" * 100}, stream="t")

    broker = RedisBroker(url, logger=None, log_level=logging.CRITICAL)
    totals = {"sum": 0, "seen": 0}
    done = asyncio.Event()

    stream = StreamSub("t", group="g", consumer="one", max_records=256)

    @broker.subscriber(stream=stream)
    async def receive(data: dict[str, object]) -> None:
        totals["sum"] += data["n"]
        totals["seen"] += 1
        if totals["seen"] == count:
            done.set()

    from redis.asyncio import Redis

    client = Redis.from_url(url)
    await client.xgroup_create("t", "g", id="0")
    ok = True
    async with broker:
        began, cpu = time.perf_counter(), time.process_time()
        await broker.start()
        try:
            async with asyncio.timeout(60):
                await done.wait()
                while (await client.xpending("t", "g"))["pending"]:
                    await asyncio.sleep(0.005)
        except TimeoutError:
            ok = False
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    await client.aclose()
    ok = ok and totals["sum"] == count * (count - 1) // 2
    print(json.dumps({"elapsed": elapsed, "published": 0.0, "cpu": cpu, "ok": ok}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
