"""Where a context meets a task: the block of `ctx.bind()`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from fairway.concurrency.errors import WrongLoop
from fairway.concurrency.switching import call_first


class Ending(Protocol):
    """What a block can be bound to: something that ends, with an error that says how."""

    def err(self) -> Exception | None:
        """Return None until the end, then the error."""
        ...


E = TypeVar("E", bound=Ending)


class Binding(Generic[E]):
    """The block of `ctx.bind()`: the end of the context cancels the task that runs the block, once.

    Modelled on `asyncio.Timeout`: the cancel is taken back on exit, and a cancel that came from elsewhere goes on.
    The cancel is sent as a turn of the loop, so a block that ends its own context is not hit in mid-step.
    """

    __slots__ = ("_active", "_base", "_ctx", "_fired", "_loop", "_on_end", "_stop", "_task")

    def __init__(self, ctx: E, on_end: Callable[[E, Callable[[], None]], Callable[[], bool] | None]) -> None:
        self._ctx = ctx
        self._on_end = on_end
        self._active = False
        self._fired = False
        self._base = 0
        self._stop: Callable[[], bool] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> E:
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
        self._stop = self._on_end(self._ctx, self._ended)
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
            call_first(loop, self._interrupt)
        else:
            loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._active and self._task is not None:
            self._fired = True
            self._task.cancel()
