"""One case of Fairway: publish `count` events to `subscribers`, each of which has to see every one.

Every publisher awaits the acknowledgement of one event before it publishes its next.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from fairway.concurrency import background
from fairway.events import Event, EventBus, Subscription


async def count_all(subscription: Subscription, wanted: int) -> int:
    seen = total = 0
    while seen < wanted:
        stored = await subscription.channel.recv()
        total += stored.event.data["n"]
        seen += 1
    return total


async def publish(bus: EventBus, numbers: range) -> None:
    ctx, payload = background(), "x" * 100
    for n in numbers:
        await bus.publish(ctx, Event("t", {"n": n, "text": payload}))


async def main(url: str, subscribers: int, count: int, publishers: int) -> None:
    async with EventBus(url) as bus:
        subscriptions = [
            await bus.open_subscription("t", policy="block", buffer=1024, after=None, since=None)
            for _ in range(subscribers)
        ]
        reading = [asyncio.ensure_future(count_all(one, count)) for one in subscriptions]
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for first in range(publishers):
                group.create_task(publish(bus, range(first, count, publishers)))
        published = time.perf_counter() - began
        totals = await asyncio.gather(*reading)
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
        for one in subscriptions:
            one.close()
    expected = count * (count - 1) // 2
    ok = all(total == expected for total in totals)
    print(json.dumps({"elapsed": elapsed, "published": published, "cpu": cpu, "ok": ok}))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
