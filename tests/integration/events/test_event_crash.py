"""SIGKILL in the middle of publishing and consuming: no acknowledged event lost, no acknowledged event delivered again.

Ten cycles; ``FAIRWAY_CRASH_CYCLES`` makes them more.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from fairway.events import EventBus, GroupOptions

pytestmark = pytest.mark.integration
CHILD = Path(__file__).with_name("event_crash_child.py")
CYCLES = int(os.environ.get("FAIRWAY_CRASH_CYCLES", "10"))


class Promises:
    """What the killed processes said before they died."""

    def __init__(self) -> None:
        self.published: set[str] = set()
        self.acknowledged: set[str] = set()
        self.delivered: set[str] = set()
        self.deliveries = 0
        self.redelivered: list[str] = []

    def hear(self, line: str) -> None:
        kind, _, name = line.partition(" ")
        if kind == "P":
            self.published.add(name)
        elif kind == "A":
            self.acknowledged.add(name)
        else:
            self.delivered.add(name)
            self.deliveries += 1
            if name in self.acknowledged:
                self.redelivered.append(name)


async def one_cycle(url: str, cycle: int, lines: int, promises: Promises) -> None:
    """Let a process say `lines` lines, kill it there, and hear what it had said by then; half a line is no promise."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), url, str(cycle), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            for _ in range(lines):
                promises.hear((await process.stdout.readuntil(b"\n")).decode().rstrip("\n"))
    finally:
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).decode()
        await process.wait()
    for line in rest.split("\n")[:-1]:
        promises.hear(line)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.timeout(120 + 5 * CYCLES)
async def test_nothing_acknowledged_is_lost_or_delivered_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    promises, chance = Promises(), random.Random(4)
    for cycle in range(CYCLES):
        await one_cycle(url, cycle, chance.randrange(1, 400), promises)
    async with EventBus(url) as bus:
        log = [stored.event.id for stored in await bus.store.read(0, 1_000_000)]
        assert len(log) == len(set(log))
        assert promises.published <= set(log)
        async with (
            asyncio.timeout(60),
            bus.consume("t", group="g", after=0, options=GroupOptions(concurrency=100, max_deliveries=100)) as consumer,
        ):
            while any(info.lag or info.waiting or info.leased for info in await bus.store.groups()):
                received = consumer.channel.try_recv()
                if received is None:
                    await asyncio.sleep(0.001)  # a lease of a killed process has to run out
                    continue
                delivery = received[0]
                assert delivery is not None
                promises.hear(f"D {delivery.event.id}")
                assert await delivery.ack()
                promises.hear(f"A {delivery.event.id}")
                consumer.settle()
        assert await bus.store.read(0, 10, "$dead.g") == []
    assert promises.redelivered == []
    assert promises.delivered >= promises.published  # one killed between ack and saying so was delivered too
    print(f"{len(log)} events, {promises.deliveries - len(log)} deliveries more than once, over {CYCLES} kills")
