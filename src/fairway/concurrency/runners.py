"""Where a pool's function runs: in the worker's own task, in a thread, or in a process.

A runner makes calls; a call is waited for once. A call whose wait is cancelled stops what it started, if that can be
stopped, and else leaves an orphan.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from fairway.concurrency.errors import ConcurrencyError


class WorkerDied(ConcurrencyError):
    """A worker process ended in the middle of an item, for instance by a signal."""

    code = "concurrency.worker_died"


class RemoteFailure(ConcurrencyError):
    """What a worker process raised, returned or was given cannot be carried over; the message has its text."""

    code = "concurrency.remote_failure"


class Call(Protocol):
    """One run of the function."""

    async def prepare(self) -> None:
        """Wait for what it runs in; that time does not count as the item's."""
        ...

    async def wait(self) -> Any:
        """Run it and return its value; a cancel stops it where that is possible."""
        ...

    def orphan(self) -> asyncio.Future[Any] | None:
        """Return what still runs although its wait was cancelled."""
        ...


class Runner(Protocol):
    """A way to run the function."""

    def call(self, item: Any) -> Call:
        """Return a call of the function with `item`, not yet started."""
        ...

    async def close(self) -> None:
        """Free threads and processes; no call is under way."""
        ...


def is_coroutine_function(fn: Any) -> bool:
    """Whether calling `fn` gives a coroutine, also for a partial or an object with an async ``__call__``."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


class TaskRunner:
    """Runs a coroutine function in the worker's task."""

    __slots__ = ("_fn",)

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self._fn = fn

    def call(self, item: Any) -> Call:
        """Return a call of the function with `item`."""
        return _TaskCall(self._fn, item)

    async def close(self) -> None:
        """There is nothing to free."""


class _TaskCall:
    __slots__ = ("_fn", "_item")

    def __init__(self, fn: Callable[[Any], Any], item: Any) -> None:
        self._fn = fn
        self._item = item

    async def prepare(self) -> None:
        """A task is always ready."""

    async def wait(self) -> Any:
        result = self._fn(self._item)
        return await result if inspect.isawaitable(result) else result

    def orphan(self) -> None:
        return None


class ThreadRunner:
    """Runs a plain function in one of `workers` threads, which start when they are first needed."""

    __slots__ = ("_fn", "_threads")

    def __init__(self, fn: Callable[[Any], Any], workers: int) -> None:
        self._fn = fn
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="WorkerPool")

    def call(self, item: Any) -> Call:
        """Return a call of the function with `item`."""
        return _ThreadCall(self._threads, self._fn, item)

    async def close(self) -> None:
        """Let the threads end; one that is still busy ends with its function."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _ThreadCall:
    __slots__ = ("_fn", "_future", "_item", "_threads")

    def __init__(self, threads: ThreadPoolExecutor, fn: Callable[[Any], Any], item: Any) -> None:
        self._threads = threads
        self._fn = fn
        self._item = item
        self._future: asyncio.Future[Any] | None = None

    async def prepare(self) -> None:
        """A thread starts in no time."""

    async def wait(self) -> Any:
        loop = asyncio.get_running_loop()
        variables = contextvars.copy_context()
        self._future = loop.run_in_executor(self._threads, variables.run, self._fn, self._item)
        # Shielded: cancelling the future of a running thread would only make it lose its answer.
        return await asyncio.shield(self._future)

    def orphan(self) -> asyncio.Future[Any] | None:
        return self._future if self._future is not None and not self._future.done() else None
