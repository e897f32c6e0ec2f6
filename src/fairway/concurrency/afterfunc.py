"""`after_func`: what happens after a context has ended.

Source: Go, ``context.AfterFunc``.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable

from fairway.concurrency.context import Context, on_end, require_context
from fairway.concurrency.timing import require_loop

# The tasks of coroutine functions given to after_func: nobody else holds them, and a task must be held.
_running: set[asyncio.Task[None]] = set()


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
