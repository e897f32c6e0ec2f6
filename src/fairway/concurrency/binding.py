"""Where a context meets a task: `ctx.bind()` and `after_func`."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from fairway.concurrency.context import Context, on_end, require_context
from fairway.concurrency.errors import WrongLoop
from fairway.concurrency.timing import require_loop

# The tasks of coroutine functions given to after_func: nobody else holds them, and a task must be held.
_running: set[asyncio.Task[None]] = set()


class Binding:
    """The block of `ctx.bind()`: the end of the context cancels the task that runs the block, once.

    Modelled on `asyncio.Timeout`: the cancel is taken back on exit, and a cancel that came from elsewhere goes on.
    The cancel is sent as a turn of the loop, so a block that ends its own context is not hit in mid-step.
    """

    __slots__ = ("_active", "_base", "_ctx", "_fired", "_loop", "_stop", "_task")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._active = False
        self._fired = False
        self._base = 0
        self._stop: Callable[[], bool] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Context:
        """Return the context. Raises its `err()` if it has ended."""
        task = asyncio.current_task()
        if task is None or self._task is not None:
            raise WrongLoop("expected bind() to be entered once and inside a task")
        err = self._ctx.err()
        if err is not None:
            raise err.with_traceback(None)
        self._task = task
        self._loop = task.get_loop()
        self._base = task.cancelling()
        self._active = True
        self._stop = on_end(self._ctx, self._ended)
        return self._ctx

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Raise the context's `err()` if it has ended, unless the block failed or was cancelled from elsewhere."""
        self._active = False
        if self._stop is not None:
            self._stop()
        left = self._base
        if self._fired and self._task is not None:
            left = self._task.uncancel()
        if exc is not None and not (self._fired and isinstance(exc, asyncio.CancelledError) and left <= self._base):
            return
        err = self._ctx.err()
        if err is not None and left <= self._base:
            raise err.with_traceback(None)

    def _ended(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:
            loop.call_soon(self._interrupt)
        else:
            loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._active and self._task is not None:
            self._fired = True
            self._task.cancel()


def after_func(ctx: Context, fn: Callable[[], Awaitable[object] | object]) -> Callable[[], bool]:
    """Call `fn` once, asynchronously, after `ctx` has ended; at once if it has.

    `fn` may be a plain or a coroutine function. It runs on the loop that is running now, as a turn or a task of
    its own; without a running loop it runs on the loop of the canceller or, if there is none either, in a thread
    of its own. What it raises goes to the loop's exception handler.

    Args:
        ctx: The context to follow.
        fn: Called without arguments, in a copy of the current `contextvars` context.

    Returns:
        ``stop()``: True if it kept `fn` from being started, False if `fn` was started or stopped before.

    Source: Go, ``context.AfterFunc``.
    """
    require_context(ctx)
    loop = asyncio._get_running_loop()
    variables = contextvars.copy_context()

    def start() -> None:
        where = loop if loop is not None and not loop.is_closed() else asyncio._get_running_loop()
        if where is None:
            threading.Thread(target=variables.run, args=(_call_in_thread, fn), name="after_func").start()
        elif where is asyncio._get_running_loop():
            where.call_soon(_call, fn, context=variables)
        else:
            where.call_soon_threadsafe(_call, fn, context=variables)

    stop = on_end(ctx, start)
    return stop if stop is not None else _Once()


class _Once:
    """The `stop` of a context that never ends: True the first time, as for any other."""

    __slots__ = ("_stopped",)

    def __init__(self) -> None:
        self._stopped = False

    def __call__(self) -> bool:
        stopped, self._stopped = self._stopped, True
        return not stopped


def _call(fn: Callable[[], Awaitable[object] | object]) -> None:
    result = fn()
    if inspect.isawaitable(result):
        task = require_loop("after_func").create_task(_finish(result), name=f"after_func {fn!r}")
        _running.add(task)
        task.add_done_callback(_running.discard)


def _call_in_thread(fn: Callable[[], Awaitable[object] | object]) -> None:
    result = fn()
    if inspect.isawaitable(result):
        asyncio.run(_finish(result))


async def _finish(result: Awaitable[object]) -> None:
    await result
