"""Items lost when a timeout fires in the window of a hand-off: one script over every library.

A task waits inside a timeout of an hour; then, within one step, the other side completes the hand-off without
waiting and the timeout expires (what the loop does when the time is up is done there and then). Counted is what the
task's view of the operation and the channel's disagree about: a value that was taken from the channel and never
arrives, a send that is reported as not done and was received. asyncio's timeout is `asyncio.timeout()`, trio's
`trio.fail_after()`. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.concurrency.adapters import Adapter, Pipe, of_channel, run
from bench.concurrency.worker import adapter_loop, usable

Get = Callable[[], Awaitable[Any]]
HOUR = 3600


@dataclass(frozen=True)
class Runtime:
    """What the script needs of an event loop.

    Attributes:
        turn: Lets the loop turn once.
        timeout: The block that raises `expired` after an hour; gives its scope.
        expire: Has a scope's time be up now, if it is still open.
        beside: Runs a coroutine function in a task during a block and cancels it at the block's end.
        expired: What a timeout raises.
    """

    turn: Callable[[], Awaitable[Any]]
    timeout: Callable[[], AbstractAsyncContextManager[Any]]
    expire: Callable[[Any], None]
    beside: Callable[[Callable[[], Awaitable[None]]], AbstractAsyncContextManager[None]]
    expired: type[Exception]


def asyncio_runtime() -> Runtime:
    """What asyncio offers."""

    def expire(scope: asyncio.Timeout) -> None:
        if scope.when() is not None and not scope.expired():
            scope._on_timeout()  # type: ignore[attr-defined]  # what the loop calls when the time is up

    @asynccontextmanager
    async def beside(fn: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        task = asyncio.ensure_future(fn())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return Runtime(partial(asyncio.sleep, 0), partial(asyncio.timeout, HOUR), expire, beside, TimeoutError)


def trio_runtime() -> Runtime:
    """What trio offers."""
    import trio

    @asynccontextmanager
    async def timeout() -> AsyncIterator[Any]:
        with trio.fail_after(HOUR) as scope:
            yield scope

    def expire(scope: trio.CancelScope) -> None:
        scope.cancel()  # what trio's loop calls when the deadline has passed

    @asynccontextmanager
    async def beside(fn: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fn)
            yield
            nursery.cancel_scope.cancel()

    return Runtime(partial(trio.sleep, 0), timeout, expire, beside, trio.TooSlowError)


async def _settle(runtime: Runtime, turns: int = 4) -> None:
    for _ in range(turns):
        await runtime.turn()


async def receive(runtime: Runtime, pipe: Pipe, get: Get, items: int) -> int:
    """Time out the receiver in the window of each hand-off; return how many items never arrive."""
    got: list[int] = []
    scopes: list[Any] = []

    async def consume() -> None:
        while True:
            try:
                async with runtime.timeout() as scope:
                    scopes.append(scope)
                    got.append(await get())
            except runtime.expired:
                continue

    async with runtime.beside(consume):
        for item in range(items):
            waits = len(scopes)
            await _settle(runtime)
            while len(scopes) == waits and item:  # a slower library needs more turns to come round
                await runtime.turn()
            await _settle(runtime)
            pipe.put_now(item)
            runtime.expire(scopes[-1])
        await _settle(runtime, 20)
    return items - len(set(got))


async def send(runtime: Runtime, pipe: Pipe, items: int) -> int:
    """Time out a blocked sender in the window; return how often its report and the receiver disagree."""
    wrong = 0
    for item in range(items):
        if pipe.room:
            pipe.put_now(-1)
        scopes: list[Any] = []
        outcome: list[bool] = []
        async with runtime.beside(partial(_send_one, runtime, pipe, item, scopes, outcome)):
            await _settle(runtime, 6)
            got = pipe.get_now()
            runtime.expire(scopes[0])
            while not outcome:
                await runtime.turn()
        while more := pipe.get_now():
            got += more
        wrong += (item in got) != outcome[0]
    return wrong


async def _send_one(runtime: Runtime, pipe: Pipe, item: int, scopes: list[Any], outcome: list[bool]) -> None:
    sent = False
    try:
        async with runtime.timeout() as scope:
            scopes.append(scope)
            await pipe.put(item)
            sent = True
    except runtime.expired:
        pass
    outcome.append(sent)


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

    async def one(adapter: Adapter, runtime: Runtime) -> tuple[int, int]:
        counts = []
        for script in (lambda pipe: receive(runtime, pipe, pipe.get, args.n), lambda pipe: send(runtime, pipe, args.n)):
            pipe = adapter.pipe(0)
            try:
                counts.append(await script(pipe))
            finally:
                pipe.close()
        return counts[0], counts[1]

    async def one_select() -> int:
        pipe, get = selecting()
        return await receive(asyncio_runtime(), pipe, get, args.n)

    for adapter in usable(args.loop):
        loop = adapter_loop(adapter, args.loop)
        runtime = trio_runtime() if loop == "trio" else asyncio_runtime()
        lost["recv"][adapter.name], lost["send"][adapter.name] = run(loop, partial(one, adapter, runtime))
    lost["select"]["fairway"] = run(args.loop, one_select)
    json.dump({"lost": lost, "items": args.n}, sys.stdout)


if __name__ == "__main__":
    main()
