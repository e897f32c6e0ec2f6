"""The hooks that `fairway.concurrency.debug` reads: who waits on which channel, for tasks and for threads."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fairway.concurrency import Chan, SharedChan, nil, registry, select

AnyChan = Chan[Any] | SharedChan[Any]


@pytest.mark.parametrize("kind", [Chan, SharedChan])
async def test_blocked_tasks_are_found_with_their_channel(kind: Callable[[int], AnyChan]) -> None:
    ch, other = kind(0), kind(0)
    tasks = [asyncio.ensure_future(operation) for operation in (ch.recv(), ch.recv_many(2), other.send(1))]
    choosing = asyncio.ensure_future(select(ch.on_recv(), other.on_send(2), nil.on_recv()))
    idle = asyncio.ensure_future(select(nil.on_recv()))
    for _ in range(3):
        await asyncio.sleep(0)
    found = {(entry.kind, entry.task) for entry in registry.blocked() if entry.channel in (ch, other)}
    assert found == {
        ("recv", tasks[0]),
        ("recv", tasks[1]),
        ("send", tasks[2]),
        ("select recv", choosing),
        ("select send", choosing),
    }
    assert [entry.kind for entry in registry.blocked() if entry.task is idle] == ["for ever"]
    for task in (*tasks, choosing, idle):
        task.cancel()
    await asyncio.gather(*tasks, choosing, idle, return_exceptions=True)
    assert not [entry for entry in registry.blocked() if entry.channel in (ch, other) or entry.task is idle]


def test_blocked_threads_are_found() -> None:
    ch = SharedChan[int](0)
    thread = threading.Thread(target=ch.recv_sync, args=(30,))
    thread.start()
    end = time.monotonic() + 30
    while not ch.statistics().blocked_receivers:
        assert time.monotonic() < end
        time.sleep(0)
    entry = next(entry for entry in registry.blocked() if entry.channel is ch)
    assert (entry.kind, entry.task, entry.thread) == ("recv", None, thread.ident)
    ch.send_sync(1)
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_eager_tasks() -> None:
    """A task that starts at once parks, is switched to and is cancelled like any other."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    ch, got = Chan[int](0), list[int]()

    async def receive() -> None:
        got.append(await ch.recv())
        got.append(await ch.recv())

    first = asyncio.ensure_future(receive())
    await ch.send(1)
    second = asyncio.ensure_future(ch.send(2))
    await asyncio.gather(first, second)
    third = asyncio.ensure_future(ch.recv())
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    assert (got, third.cancelled(), ch.statistics().blocked_receivers) == ([1, 2], True, 0)


async def test_a_loop_after_another() -> None:
    """One channel, used on one loop after the other."""
    ch = Chan[int](0)

    async def exchange() -> int:
        receiving = asyncio.ensure_future(ch.recv())
        await asyncio.sleep(0)
        await ch.send(5)
        return await receiving

    for _ in range(2):
        assert await asyncio.to_thread(asyncio.run, exchange()) == 5
    assert await exchange() == 5
