"""`WaitGroup`: wait until a number of things is done.

Source: Go, ``sync/waitgroup.go``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fairway.concurrency.errors import NegativeWaitGroup, WrongArgument
from fairway.concurrency.flight import resolve
from fairway.concurrency.timing import require_loop


@dataclass(frozen=True, slots=True)
class WaitGroupStatistics:
    """A wait group at one instant.

    Attributes:
        count: What `wait` waits for, >= 0.
        waiters: Tasks blocked in `wait`.
        failures: Functions started by `go` that failed and were not yet cleared by reuse.
    """

    count: int
    waiters: int
    failures: int


class WaitGroup:
    """A counter and those who wait for it to be zero. `add` and `done` may be called from any thread.

    A group may be used again after a `wait`: failures that a `wait` has raised are forgotten with the next `add`.

    Source: Go, ``sync.WaitGroup``.
    """

    __slots__ = ("__weakref__", "_count", "_failures", "_lock", "_seen", "_tasks", "_waiters")

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[tuple[asyncio.Task[None] | None, BaseException, TracebackType | None]] = []
        self._seen = False

    def add(self, delta: int = 1) -> None:
        """Add `delta`, which may be negative, to the counter; at zero everyone who waits is woken.

        Raises:
            NegativeWaitGroup: The counter would go below zero; it stays as it is.
        """
        if not isinstance(delta, int):
            raise WrongArgument(f"expected an int to add to a wait group, got: {delta!r}")
        with self._lock:
            count = self._count + delta
            if count < 0:
                raise NegativeWaitGroup(f"negative wait group counter: {self._count} {delta:+d} = {count}")
            if delta > 0 and self._count == 0 and self._seen:
                self._failures.clear()
                self._seen = False
            self._count = count
            woken = list(self._waiters) if count == 0 else []
        for future in woken:
            resolve(future)

    def done(self) -> None:
        """Take one from the counter. Raises `NegativeWaitGroup` as `add` does."""
        self.add(-1)

    def go(self, fn: Callable[..., Awaitable[object] | object], *args: Any) -> None:
        """Start `fn(*args)` in a task that the group counts and holds; do not wait for it.

        `fn` is a coroutine function; a plain one is called in the task. A failure cancels no sibling and is
        raised by `wait`; if nobody waits, the loop's exception handler is told.
        """
        loop = require_loop("WaitGroup.go")
        self.add(1)
        task = loop.create_task(self._run(fn, args), name=f"WaitGroup.go {getattr(fn, '__qualname__', fn)}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def wait(self) -> None:
        """Wait until the counter is zero; return at once if it is.

        Cancellation: the caller stops waiting; the counter and the tasks stay as they are.

        Raises:
            Exception: The failure of a function started by `go`.
            ExceptionGroup: All of them, in the order in which they failed, if there were several; a
                `BaseExceptionGroup` if one of them is no `Exception`.
        """
        if self._count:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._lock:
                if self._count:
                    self._waiters[future] = None
                else:
                    future.set_result(None)
            try:
                await future
            finally:
                with self._lock:
                    self._waiters.pop(future, None)
        self._raise_failures()

    def statistics(self) -> WaitGroupStatistics:
        """Return the group's state at this instant."""
        return WaitGroupStatistics(count=self._count, waiters=len(self._waiters), failures=len(self._failures))

    def __repr__(self) -> str:
        """Return ``<WaitGroup 3 [1 waiting, 2 failed]>``."""
        notes = [f"{n} {what}" for n, what in ((len(self._waiters), "waiting"), (len(self._failures), "failed")) if n]
        tail = f" [{', '.join(notes)}]" if notes else ""
        return f"<WaitGroup {self._count}{tail}>"

    async def _run(self, fn: Callable[..., Awaitable[object] | object], args: tuple[Any, ...]) -> None:
        try:
            result = fn(*args)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._failures.append((asyncio.current_task(), exc, exc.__traceback__))
            raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.done()

    def _raise_failures(self) -> None:
        failures = list(self._failures)
        if not failures:
            return
        self._seen = True
        for task, _exc, _traceback in failures:
            if task is not None and task.done():
                task.exception()  # now somebody has seen it
        if len(failures) == 1:
            raise failures[0][1].with_traceback(failures[0][2])
        raise BaseExceptionGroup(f"{len(failures)} functions of a wait group failed", [exc for _, exc, _ in failures])
