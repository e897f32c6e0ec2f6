"""`ErrGroup`: tasks that work on one thing; the first failure ends it.

Source: Go, ``golang.org/x/sync/errgroup``. Beyond Go, where a function that ignores its context keeps the group
waiting: when the group's context ends, the tasks are cancelled too, and a failure interrupts the block, as in
`asyncio.TaskGroup`. The context ends first, so a task that waits on `g.ctx.done()` sees it before its cancel.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fairway.concurrency.context import CancelContext, Context, background, on_end, with_cause
from fairway.concurrency.errors import WrongArgument
from fairway.concurrency.switching import call_first
from fairway.concurrency.timing import require_loop, require_same_loop

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True)
class ErrGroupStatistics:
    """A group at one instant.

    Attributes:
        active: Tasks that run.
        limit: The most that may run at once, or None.
        waiting: Callers blocked in `go`.
        failed: Tasks that failed.
    """

    active: int
    limit: int | None
    waiting: int
    failed: int


class ErrGroup:
    """A group of tasks with a context of its own, `ctx`, that ends with the first failure or with the block.

    Args:
        ctx: Parent of the group's context; `background()` if left out.
        limit: Most tasks at once; None or a negative number for no limit, 0 lets none start.

    The block (``async with ErrGroup(ctx) as g:``) waits for all tasks and raises the first error only; `errors`
    has them all. A group that is not used as a block is ended by `wait()`.

    Source: Go, ``errgroup.Group`` and ``errgroup.WithContext``.
    """

    __slots__ = (
        "__weakref__", "_active", "_base", "_body", "_ctx", "_cut", "_errors", "_idle", "_interrupted", "_limit",
        "_loop", "_slots", "_stop", "_tasks",
    )  # fmt: skip

    def __init__(self, ctx: Context | None = None, *, limit: int | None = None) -> None:
        self._ctx = with_cause(background() if ctx is None else ctx)
        self._limit: int | None = None
        self._active = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._errors: list[BaseException] = []
        self._cut = False
        self._idle: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], bool] | None = None
        self._body: asyncio.Task[Any] | None = None
        self._base = 0
        self._interrupted = False
        self.set_limit(limit)

    @property
    def ctx(self) -> CancelContext:
        """The group's context; its cause is the first error."""
        return self._ctx

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """Every failure so far, in the order in which they came; the first is the one that is raised."""
        return tuple(self._errors)

    def set_limit(self, limit: int | None) -> None:
        """Set the most tasks that may run at once; None or a negative number for no limit.

        Raises:
            WrongArgument: It is no int, or tasks are running.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise WrongArgument(f"expected the limit of a group as an int or None, got: {limit!r}")
        if self._active:
            raise WrongArgument(f"expected to set the limit of an idle group, got one with {self._active} active tasks")
        self._limit = None if limit is None or limit < 0 else limit

    async def go(self, fn: Callable[..., Awaitable[object] | object], *args: Any) -> None:
        """Start `fn(*args)` in a task of the group, waiting first, in turn, while the limit is reached.

        `fn` is a coroutine function; a plain one is called in the task. It gets no context: `g.ctx` is there.

        Cancellation: whoever is cancelled while waiting has started nothing.

        Raises:
            WrongLoop: The group has tasks on another event loop that runs, or none is running here.
        """
        self._require_loop()
        if self._limit is not None and self._active >= self._limit:
            slot: asyncio.Future[None] = require_loop("ErrGroup.go").create_future()
            self._slots[slot] = None
            try:
                await slot
            except BaseException:
                if slot in self._slots:
                    del self._slots[slot]
                elif slot.done() and not slot.cancelled():
                    self._free()  # granted in the same turn: the next one gets it
                raise
        else:
            self._active += 1
        self._start(fn, args)

    def try_go(self, fn: Callable[..., Awaitable[object] | object], *args: Any) -> bool:
        """Start `fn(*args)` if the limit allows it now; return whether it was started.

        Raises:
            WrongLoop: As `go`.
        """
        self._require_loop()
        if self._limit is not None and self._active >= self._limit:
            return False
        self._active += 1
        self._start(fn, args)
        return True

    async def wait(self) -> None:
        """Wait for all tasks, end the group's context, and raise the first error.

        Cancellation: ends the context, which cancels the tasks, and waits for them before it raises.

        Raises:
            WrongLoop: The group's tasks are on another event loop that runs.
        """
        self._require_loop()
        cancelled: asyncio.CancelledError | None = None
        while self._active:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            try:
                await idle
            except asyncio.CancelledError as exc:
                cancelled = exc
                self._ctx.cancel()
        ended = self._ctx.err() if self._cut else None
        self._ctx.cancel(self._errors[0] if self._errors else None)
        if self._stop is not None:
            self._stop()
        if cancelled is not None:
            raise cancelled
        if self._errors:
            raise self._errors[0]
        if ended is not None:
            raise ended.with_traceback(None)

    def statistics(self) -> ErrGroupStatistics:
        """Return the group's state at this instant."""
        return ErrGroupStatistics(self._active, self._limit, len(self._slots), len(self._errors))

    def __repr__(self) -> str:
        """Return ``<ErrGroup 2/4 [1 waiting, 1 failed]>``."""
        notes = [f"{n} {what}" for n, what in ((len(self._slots), "waiting"), (len(self._errors), "failed")) if n]
        limit = "" if self._limit is None else f"/{self._limit}"
        tail = f" [{', '.join(notes)}]" if notes else ""
        return f"<ErrGroup {self._active}{limit}{tail}>"

    async def __aenter__(self) -> Self:
        """Return the group."""
        self._body = asyncio.current_task()
        self._base = self._body.cancelling() if self._body is not None else 0
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for all tasks; a failure of the block itself ends the context first.

        What is raised: the first error of a task, else the block's own, else the end of the context if that has
        cancelled a task.
        """
        body, self._body = self._body, None
        own = False
        if self._interrupted and body is not None:
            own = body.uncancel() <= self._base and isinstance(exc, asyncio.CancelledError)
        if exc is not None and not own:
            self._ctx.cancel(exc if isinstance(exc, Exception) else None)
            if self._errors and isinstance(exc, Exception):
                exc = None
        try:
            await self.wait()
        except Exception:
            # A task that fails because the block has failed does not hide why; the first error is raised.
            if exc is None or own:
                raise

    # -- inside ----------------------------------------------------------------------------------------------

    def _require_loop(self) -> None:
        require_same_loop(self, self._loop if self._active else None)

    def _start(self, fn: Callable[..., Awaitable[object] | object], args: tuple[Any, ...]) -> None:
        loop = require_loop("ErrGroup.go")
        self._loop = loop
        if self._stop is None:
            self._stop = on_end(self._ctx, self._ended)
        task = loop.create_task(self._run(fn, args), name=f"ErrGroup.go {getattr(fn, '__qualname__', fn)}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        if self._ctx.err() is not None:
            # Too late: it runs up to its first wait, as a function does that looks at its context there.
            loop.call_soon(task.cancel)

    async def _run(self, fn: Callable[..., Awaitable[object] | object], args: tuple[Any, ...]) -> None:
        try:
            result = fn(*args)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._errors.append(exc)
            if len(self._errors) == 1:
                self._ctx.cancel(exc)
                if self._body is not None and self._body is not asyncio.current_task():
                    call_first(asyncio.get_running_loop(), self._interrupt_body)
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                raise  # the loop stops for these

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and self._ctx.err() is not None:
            self._cut = True
        self._free()

    def _free(self) -> None:
        """Hand the slot of an ended task to the first who waits for one."""
        while self._slots:
            slot, _ = self._slots.popitem(last=False)
            if not slot.done():
                slot.set_result(None)
                return
        self._active -= 1
        if not self._active:
            idle, self._idle = self._idle, []
            for future in idle:
                if not future.done():
                    future.set_result(None)

    def _ended(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:
            call_first(loop, self._interrupt)
        else:
            loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _interrupt_body(self) -> None:
        if self._body is not None and not self._interrupted:
            self._interrupted = True
            self._body.cancel()
