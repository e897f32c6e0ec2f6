"""One case of Fairway: a group with one member, 64 events at a time, handles and acknowledges `count` events."""

from __future__ import annotations

import json
import sys
import time

from fairway.concurrency import Context, background, with_cancel
from fairway.events import Event, EventBus, EventHandlers, GroupOptions


async def main(url: str, count: int) -> None:
    handlers = EventHandlers()
    totals = {"sum": 0, "seen": 0}
    async with EventBus(url) as bus, with_cancel(background()) as ctx:

        @handlers.on("t")
        async def handle(_: Context, event: Event) -> None:
            totals["sum"] += event.data["n"]
            totals["seen"] += 1
            if totals["seen"] == count:
                ctx.cancel()

        for start in range(0, count, 500):
            events = [("t", Event("t", {"n": n, "text": "x" * 100})) for n in range(start, min(start + 500, count))]
            await bus.publish_many(background(), events)
        began, cpu = time.perf_counter(), time.process_time()
        await bus.handle(ctx, "t", handlers, group="g", after=0, options=GroupOptions(concurrency=64))
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
        [left] = await bus.store.groups()
    ok = totals["sum"] == count * (count - 1) // 2 and left.waiting == left.leased == left.lag == 0
    print(json.dumps({"elapsed": elapsed, "published": 0.0, "cpu": cpu, "ok": ok}))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
