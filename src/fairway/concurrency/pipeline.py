"""Channels in rows and trees: `pipeline`, `fan_out`, `fan_in`, `or_done`, `tee`, `bridge`, `batch`.

Every function takes the context first, starts its tasks in a group of its own and returns at once; see `Flow` for
how the tasks end and where a failure goes.

Source: "Go Concurrency Patterns: Pipelines and cancellation" (go.dev/blog/pipelines); K. Cox-Buday, "Concurrency
in Go", chapter 4, for or-done, tee and bridge.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar, cast, overload

from fairway.concurrency.chan import Chan
from fairway.concurrency.context import Context
from fairway.concurrency.errors import WrongArgument
from fairway.concurrency.flow import Flow, Stage
from fairway.concurrency.nil import nil
from fairway.concurrency.select import select
from fairway.concurrency.ticker import Timer
from fairway.concurrency.views import RecvChan

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Source = RecvChan[T] | AsyncIterable[T] | Iterable[T]


@overload
def pipeline(ctx: Context, source: Source[T]) -> Flow[T]: ...
@overload
def pipeline(ctx: Context, source: Source[T], a: Callable[[T], Awaitable[A]], /) -> Flow[A]: ...
@overload
def pipeline(ctx: Context, source: Source[T], a: Callable[[T], A], /) -> Flow[A]: ...
@overload
def pipeline(
    ctx: Context, source: Source[T], a: Callable[[T], Awaitable[A]], b: Callable[[A], Awaitable[B]], /
) -> Flow[B]: ...
@overload
def pipeline(ctx: Context, source: Source[T], a: Callable[[T], A], b: Callable[[A], B], /) -> Flow[B]: ...
@overload
def pipeline(ctx: Context, source: Source[Any], /, *stages: Callable[[Any], Any]) -> Flow[Any]: ...


def pipeline(ctx: Context, source: Source[Any], *stages: Callable[[Any], Any]) -> Flow[Any]:
    """Send every value of `source` through the stages, one after the other, each in a task of its own.

    Args:
        ctx: Its end stops all stages and closes the output.
        source: A channel, or any iterable, plain or asynchronous.
        stages: Plain or coroutine functions of one value; each returns one value.

    Returns:
        The values that the last stage returns, in order. A stage that raises stops all of them, and the receiver
        gets its exception.
    """
    stage = Stage(ctx)
    out = stage.output()
    if not stages:
        stage.start(partial(_copy, source, out._chan))
        return out
    links: list[Any] = [source]
    links.extend(Chan() for _ in stages[1:])
    ends: list[Any] = [*links[1:], out._chan]
    stage.start(*(partial(_map, fn, links[i], ends[i], i == 0) for i, fn in enumerate(stages)))
    return out


def fan_out(ctx: Context, source: RecvChan[T], n: int) -> list[Flow[T]]:
    """Return `n` (>= 1) channels; every value of `source` goes to exactly one of them, whichever is read first."""
    stage = Stage(ctx)
    outs = [stage.output() for _ in range(_count("a number of outputs", n))]
    stage.start(*(partial(_copy, source, out._chan) for out in outs))
    return cast(list[Flow[T]], outs)


def fan_in(ctx: Context, *sources: RecvChan[T] | Sequence[RecvChan[T]]) -> Flow[T]:
    """Merge the sources into one channel, which is closed when all of them have ended.

    A list of channels counts as each of them, so that `fan_in(ctx, fan_out(ctx, source, 4))` is whole.
    """
    stage = Stage(ctx)
    out = stage.output()
    flat = chain.from_iterable(source if isinstance(source, Sequence) else (source,) for source in sources)
    stage.start(*(partial(_copy, source, out._chan) for source in flat))
    return out


def or_done(ctx: Context, source: RecvChan[T]) -> Flow[T]:
    """Return the values of `source` until it or `ctx` ends: what an `async for` over it needs to end with `ctx`."""
    stage = Stage(ctx)
    out = stage.output()
    stage.start(partial(_copy, source, out._chan))
    return out


def tee(ctx: Context, source: RecvChan[T], n: int = 2) -> tuple[Flow[T], ...]:
    """Return `n` (>= 1, default 2) channels that each get every value; the slowest reader sets the pace."""
    stage = Stage(ctx)
    outs = [stage.output() for _ in range(_count("a number of outputs", n))]
    stage.start(partial(_duplicate, source, [out._chan for out in outs]))
    return tuple(outs)


def bridge(ctx: Context, sources: RecvChan[RecvChan[T]]) -> Flow[T]:
    """Return the values of a channel of channels as one: all of the first, then all of the second, and so on."""
    stage = Stage(ctx)
    out = stage.output()
    stage.start(partial(_join, sources, out._chan))
    return out


def batch(ctx: Context, source: RecvChan[T], size: int, *, timeout: float | None = None) -> Flow[list[T]]:
    """Return the values of `source` in lists of `size` (>= 1); the last one may be shorter, none is empty.

    Args:
        ctx: Its end stops the task; values that wait for their batch are dropped.
        source: Where the values come from.
        size: Most values in a list.
        timeout: Seconds (> 0) after the first value of a list at which it is sent though not full; None: never.
    """
    _count("a batch size", size)
    if timeout is not None and not timeout > 0:
        raise WrongArgument(f"expected a batch timeout in seconds > 0 or None, got: {timeout!r}")
    stage = Stage(ctx)
    out = stage.output()
    stage.start(partial(_collect, source, out._chan, size, timeout))
    return out


async def _copy(source: Source[Any], out: Any) -> None:
    if isinstance(source, AsyncIterable):
        async for value in source:
            await out.send(value)
    else:
        for value in source:
            await out.send(value)


async def _map(fn: Callable[[Any], Any], source: Source[Any], out: Any, first: bool) -> None:
    """Call `fn` for every value and send what it returns; close the link behind it."""
    try:
        if isinstance(source, AsyncIterable):
            async for value in source:
                result = fn(value)
                await out.send(await result if inspect.isawaitable(result) else result)
        else:
            for value in source:
                result = fn(value)
                await out.send(await result if inspect.isawaitable(result) else result)
    finally:
        if not out.closed:
            out.close()


async def _duplicate(source: RecvChan[Any], outs: list[Any]) -> None:
    async for value in source:
        waiting = list(outs)
        for _ in outs:
            # Whoever reads first is served first; one that has its value is switched off.
            index, _, _ = await select(*(out.on_send(value) for out in waiting))
            waiting[index] = nil


async def _join(sources: RecvChan[RecvChan[Any]], out: Any) -> None:
    async for source in sources:
        await _copy(source, out)


async def _collect(source: RecvChan[Any], out: Any, size: int, timeout: float | None) -> None:
    values: list[Any] = []
    timer: Timer | None = None
    try:
        while True:
            index, value, ok = await select(source.on_recv(), (nil if timer is None else timer).on_recv())
            if index == 0 and ok:
                values.append(value)
                if timer is None and timeout is not None:
                    timer = Timer(timeout)
                if len(values) < size:
                    continue
            if values:
                await out.send(values)
                values = []
            if timer is not None:
                timer.stop()
                timer = None
            if index == 0 and not ok:
                break
    finally:
        if timer is not None:
            timer.stop()
    failure = source.failure if isinstance(source, Flow) else None
    if failure is not None:
        raise failure


def _count(what: str, got: Any) -> int:
    if isinstance(got, bool) or not isinstance(got, int) or got < 1:
        raise WrongArgument(f"expected {what} that is an int >= 1, got: {got!r}")
    return got
