"""`Flight`: one run of a function that several callers wait for; the base of `Once` and `SingleFlight`.

A coroutine function runs in a task of its own, so that a caller who is cancelled takes nobody along. The task is
held here; its failure goes to those who join and, if nobody does, to the loop's exception handler.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from fairway.concurrency.errors import Canceled, Deadlock
from fairway.concurrency.timing import require_loop

T = TypeVar("T")


def resolve(future: asyncio.Future[Any], value: Any = None) -> None:
    """Set the result of a waiter's future from any thread; one that is done or whose loop is closed is left alone."""
    loop = future.get_loop()
    if loop is asyncio._get_running_loop():
        _set(future, value)
    elif not loop.is_closed():
        try:
            loop.call_soon_threadsafe(_set, future, value)
        except RuntimeError:
            # Closed since it was asked: its waiters count as dead.
            if not loop.is_closed():
                raise


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task from any thread; one whose loop is closed never runs again."""
    loop = task.get_loop()
    if loop is asyncio._get_running_loop():
        task.cancel()
    elif not loop.is_closed():
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            if not loop.is_closed():
                raise


class Flight(Generic[T]):
    """One run of `fn`; `start` it once, `join` it from anywhere, also from another loop.

    Args:
        abandon: Cancel the run when the last one who waits for it is cancelled.
    """

    __slots__ = ("_abandon", "_error", "_lock", "_seen", "_task", "_traceback", "_value", "_waiters", "finished")

    def __init__(self, *, abandon: bool) -> None:
        self._abandon = abandon
        self._lock = threading.Lock()
        self._task: asyncio.Task[None] | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._value: T | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._seen = False
        self.finished: bool = False

    @property
    def waiting(self) -> int:
        """How many callers wait for the end."""
        return len(self._waiters)

    def start(self, fn: Callable[..., Awaitable[T] | T], *args: Any) -> None:
        """Call `fn(*args)`: a plain function runs here and now, a coroutine in a task of its own."""
        try:
            result = fn(*args)
        except BaseException as exc:
            self._end(None, exc)
            return
        if inspect.isawaitable(result):
            self._task = require_loop("a coroutine function").create_task(self._drive(result))
            self._task.add_done_callback(self._ended)
        else:
            self._end(result, None)

    async def join(self) -> T:
        """Wait for the end and return what `fn` returned, or raise what it raised.

        Cancellation: the caller stops waiting; the run goes on for the others.

        Raises:
            Deadlock: Called from inside the run itself.
            Canceled: The run was cancelled.
        """
        if not self.finished:
            if self._task is not None and asyncio.current_task() is self._task:
                raise Deadlock("expected another task to wait for this function, but it waits for itself")
            await self._wait()
        self._seen = True
        self._acknowledge()
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return cast(T, self._value)

    async def _wait(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.finished:
                return
            self._waiters[future] = None
        try:
            await future
        finally:
            with self._lock:
                self._waiters.pop(future, None)
                forsaken = self._abandon and not self.finished and not self._waiters
            if forsaken and self._task is not None:
                _cancel(self._task)

    async def _drive(self, result: Awaitable[T]) -> None:
        self._task = asyncio.current_task()  # an eager task takes its first step before `create_task` returns
        try:
            value = await result
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._end(None, exc)
            raise
        self._end(value, None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self.finished:
            self._end(None, Canceled("the function that was waited for was cancelled"))
        if self._seen:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Tell the task that somebody has seen its failure; a caller on another loop may be there before its end."""
        task = self._task
        if task is not None and task.done() and not task.cancelled():
            task.exception()

    def _end(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            self._value = value
            self._error = error
            self._traceback = None if error is None else error.__traceback__
            self.finished = True
            waiters = list(self._waiters)
        for future in waiters:
            resolve(future)
