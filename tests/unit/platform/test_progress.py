"""Progress events and background tasks."""

from __future__ import annotations

import asyncio

from fairway.platform.background import Background
from fairway.platform.progress import BACKLOG, ProgressHub


async def test_every_subscriber_gets_every_event_from_then_on(fake_clock):
    hub = ProgressHub(fake_clock)
    hub.tell("a", "queued")
    first, second = hub.subscribe(), hub.subscribe()
    hub.tell("a", "build", "compiling")
    for chan in (first, second):
        event = await chan.recv()
        assert (event.app, event.phase, event.message, event.at) == ("a", "build", "compiling", fake_clock.time())
    hub.unsubscribe(second)
    hub.unsubscribe(second)
    hub.close()
    assert [e async for e in first] == [] == [e async for e in second]


async def test_a_slow_reader_loses_the_oldest_and_holds_nobody_up():
    hub = ProgressHub()
    chan = hub.subscribe()
    for i in range(BACKLOG + 3):
        hub.tell("a", "build", str(i))
    assert hub.dropped == 3
    assert (await chan.recv()).message == "3"


async def test_a_failing_background_task_touches_no_other(capsys):
    background = Background()
    gate = asyncio.Event()

    async def fails() -> None:
        raise RuntimeError("boom")

    async def waits() -> str:
        await gate.wait()
        return "done"

    failing, waiting = background.start(fails(), name="fails"), background.start(waits(), name="waits")
    await asyncio.wait({failing})
    assert not await background.wait(0.0)
    assert len(background) == 1
    gate.set()
    assert await waiting == "done"
    assert await background.wait(1.0)
    assert "boom" in "".join(capsys.readouterr())


async def test_cancelling_waits_for_every_task_and_spares_the_caller():
    background = Background()
    ended: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("tidied")

    async def ends_all() -> None:
        await background.cancel()
        ended.append("caller")

    background.start(tidy(), name="tidy")
    await asyncio.sleep(0)
    await background.start(ends_all(), name="caller")
    assert ended == ["tidied", "caller"]
