"""Items lost when `asyncio.timeout()` fires in the window of a hand-off: one script over every library.

A task waits inside `asyncio.timeout(3600)`; then, within one step, the other side completes the hand-off without
waiting and the timeout expires (its own callback is called, as the loop would when the time is up). Counted is
what the task's view of the operation and the channel's disagree about: a value that was taken from the channel
and never arrives, a send that is reported as not done and was received. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from bench.concurrency.adapters import ADAPTERS, Pipe, of_channel, run
from bench.concurrency.worker import available

Get = Callable[[], Awaitable[Any]]


async def _consume(get: Get, got: list[int], scopes: list[asyncio.Timeout]) -> None:
    while True:
        try:
            async with asyncio.timeout(3600) as scope:
                scopes.append(scope)
                got.append(await get())
        except TimeoutError:
            continue


async def _settle(turns: int = 4) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def _expire(scope: asyncio.Timeout) -> None:
    if scope.when() is not None and not scope.expired():
        scope._on_timeout()  # type: ignore[attr-defined]  # what the loop calls when the time is up


async def receive(pipe: Pipe, get: Get, items: int) -> int:
    """Time out the receiver in the window of each hand-off; return how many items never arrive."""
    got: list[int] = []
    scopes: list[asyncio.Timeout] = []
    consumer = asyncio.ensure_future(_consume(get, got, scopes))
    for item in range(items):
        waits = len(scopes)
        await _settle()
        while len(scopes) == waits and item:  # a slower library needs more turns to come round
            await asyncio.sleep(0)
        await _settle()
        pipe.put_now(item)
        _expire(scopes[-1])
    await _settle(20)
    consumer.cancel()
    await asyncio.gather(consumer, return_exceptions=True)
    return items - len(set(got))


async def send(pipe: Pipe, items: int) -> int:
    """Time out a blocked sender in the window; return how often its report and the receiver disagree."""
    wrong = 0
    for item in range(items):
        if pipe.room:
            pipe.put_now(-1)
        scopes: list[asyncio.Timeout] = []
        sent: list[int] = []
        sender = asyncio.ensure_future(_send_one(pipe, item, scopes, sent))
        await _settle(6)
        got = pipe.get_now()
        _expire(scopes[0])
        await sender
        while more := pipe.get_now():
            got += more
        wrong += (item in got) != bool(sent)
    return wrong


async def _send_one(pipe: Pipe, item: int, scopes: list[asyncio.Timeout], sent: list[int]) -> None:
    try:
        async with asyncio.timeout(3600) as scope:
            scopes.append(scope)
            await pipe.put(item)
            sent.append(item)
    except TimeoutError:
        return


def selecting() -> tuple[Pipe, Get]:
    """Receive through a select beside an idle channel."""
    from fairway.concurrency import Chan, select

    ch, idle = Chan[int](0), Chan[int](0)

    async def get() -> int:
        index, value, _ = await select(idle.on_recv(), ch.on_recv())
        if index != 1 or value is None:
            raise RuntimeError(f"expected the second case, got {index}, {value!r}")
        return value

    return of_channel(ch), get


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("-n", type=int, default=10_000)
    args = parser.parse_args()
    lost: dict[str, dict[str, int]] = {"recv": {}, "send": {}, "select": {}}

    async def one(adapter: Any, items: int) -> int:
        pipe = adapter.pipe(0)
        try:
            return await receive(pipe, pipe.get, items)
        finally:
            pipe.close()

    async def one_send(adapter: Any, items: int) -> int:
        pipe = adapter.pipe(0)
        try:
            return await send(pipe, items)
        finally:
            pipe.close()

    async def one_select() -> int:
        pipe, get = selecting()
        return await receive(pipe, get, args.n)

    for adapter in ADAPTERS:
        if args.loop in adapter.loops and available(adapter.name):
            lost["recv"][adapter.name] = run(args.loop, partial(one, adapter, args.n))
            lost["send"][adapter.name] = run(args.loop, partial(one_send, adapter, args.n))
    lost["select"]["fairway"] = run(args.loop, one_select)
    json.dump({"lost": lost, "items": args.n}, sys.stdout)


if __name__ == "__main__":
    main()
