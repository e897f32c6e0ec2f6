"""The same case of FastStream over Redis Streams: each subscriber reads the stream by itself, from its beginning."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time

import uvloop
from faststream.redis import RedisBroker, StreamSub


async def main(url: str, subscribers: int, count: int, publishers: int) -> None:
    broker = RedisBroker(url, logger=None, log_level=logging.CRITICAL)
    totals, seen = [0] * subscribers, [0] * subscribers
    done = [asyncio.Event() for _ in range(subscribers)]
    payload = "x" * 100

    def subscribe(index: int) -> None:
        @broker.subscriber(stream=StreamSub("t", last_id="0", max_records=256, polling_interval=10))
        async def receive(data: dict[str, object]) -> None:
            totals[index] += data["n"]
            seen[index] += 1
            if seen[index] == count:
                done[index].set()

    async def publish(numbers: range) -> None:
        for n in numbers:
            await broker.publish({"n": n, "text": payload}, stream="t")

    for index in range(subscribers):
        subscribe(index)
    async with broker:
        await broker.start()

        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for first in range(publishers):
                group.create_task(publish(range(first, count, publishers)))
        published = time.perf_counter() - began
        ok = True
        try:
            async with asyncio.timeout(120):
                for event in done:
                    await event.wait()
        except TimeoutError:
            ok = False
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    ok = ok and all(total == count * (count - 1) // 2 for total in totals)
    print(json.dumps({"elapsed": elapsed, "published": published, "cpu": cpu, "ok": ok}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
