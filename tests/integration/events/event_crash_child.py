"""The process that the crash test kills: publishes to a SQLite log, consumes a group of it, and says what was promised.

Lines on standard output, each written in one call: ``P ID`` an event was acknowledged as stored, ``D ID`` a delivery
began, ``A ID`` its acknowledgement was answered True.
"""

from __future__ import annotations

import asyncio
import os
import sys

from fairway.concurrency import background
from fairway.events import Event, EventBus, GroupOptions

GROUP = "g"


def say(kind: str, name: object) -> None:
    os.write(1, f"{kind} {name}\n".encode())


async def publish(bus: EventBus, cycle: int, publisher: int) -> None:
    number = 0
    while True:
        event = Event("made", number, id=f"{cycle}.{publisher}.{number}", partition_key=f"k{number % 3}")
        await bus.publish(background(), event, topic="t")
        say("P", event.id)
        number += 1


async def consume(bus: EventBus) -> None:
    options = GroupOptions(lease=0.2, concurrency=4, max_deliveries=100)
    async with bus.consume("t", group=GROUP, after=0, options=options) as consumer:
        async for delivery in consumer.channel:
            say("D", delivery.event.id)
            if await delivery.ack():
                say("A", delivery.event.id)
            consumer.settle()


async def main(url: str, cycle: int) -> None:
    async with EventBus(url) as bus, asyncio.TaskGroup() as group:
        for publisher in range(3):
            group.create_task(publish(bus, cycle, publisher))
        group.create_task(consume(bus))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
