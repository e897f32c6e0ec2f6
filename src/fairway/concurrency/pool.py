"""`WorkerPool`: a fixed number of workers behind a channel, in tasks, threads or processes.

The workers receive from one channel, Go's idiom for a pool; a dispatcher that numbers the items stands before
them only where results have to come in order. A failure of an item is a value, never the end of a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from fairway.concurrency.chan import Chan
from fairway.concurrency.context import CancelContext, Context
from fairway.concurrency.errgroup import ErrGroup
from fairway.concurrency.errors import Canceled, DeadlineExceeded, SendOnClosed, WrongArgument
from fairway.concurrency.runners import Runner, TaskRunner, ThreadRunner, is_coroutine_function
from fairway.concurrency.select import select
from fairway.concurrency.timing import require_loop, require_same_loop
from fairway.concurrency.views import RecvChan

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
R = TypeVar("R")
Mode = Literal["auto", "async", "thread", "process"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result(Generic[T, R]):
    """What became of one item.

    Attributes:
        item: The item.
        value: What the function returned; None if it failed.
        error: What it raised, `DeadlineExceeded` if it took too long, or None.
    """

    item: T
    value: R | None
    error: Exception | None

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None

    def unwrap(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast(R, self.value)


@dataclass(frozen=True, slots=True)
class WorkerPoolStatistics:
    """A pool at one instant.

    Attributes:
        workers: Size of the pool.
        busy: Workers that have an item.
        queued: Items in the buffer.
        succeeded: Items whose function returned.
        failed: Items whose function raised or took too long.
    """

    workers: int
    busy: int
    queued: int
    succeeded: int
    failed: int


class WorkerPool(Generic[T, R]):
    """Runs `fn(item)` for each published item, at most `workers` at once.

    Args:
        fn: A coroutine function, or a plain function for threads and processes; called with the item only. For
            processes it and the items must be picklable.
        workers: How many, >= 1.
        ctx: Ends the pool: running items are cancelled. `background()` if left out.
        buffer: Items that may wait without blocking `publish`, >= 0.
        mode: ``"async"``, ``"thread"`` or ``"process"``; ``"auto"`` takes tasks for a coroutine function and
            threads for any other.
        timeout: Seconds that one item may take. A task is cancelled and a process killed and replaced; a thread
            cannot be stopped, so that its worker takes no other item until the function has returned.
        ordered: Let results come in the order of publication instead of as completed.

    Use it as a block, or with `start` and `stop`. Leaving the block finishes everything that was published. If
    results were asked for, what has not been received by then is given up, as by breaking out of a loop. A block
    that fails cancels the pool.

    A failure goes to `results` if that was asked for, and else to the log and to `statistics()`.

    Raises:
        WrongArgument: An argument is out of bounds.
    """

    __slots__ = (
        "__weakref__",
        "_busy",
        "_done",
        "_failed",
        "_fn",
        "_group",
        "_input",
        "_left",
        "_loop",
        "_next",
        "_ordered",
        "_results",
        "_runner",
        "_started",
        "_succeeded",
        "_timeout",
        "_turns",
        "_workers",
    )  # fmt: skip

    @overload
    def __init__(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        workers: int = 4,
        *,
        ctx: Context | None = None,
        buffer: int = 0,
        mode: Literal["auto", "async"] = "auto",
        timeout: float | None = None,
        ordered: bool = False,
    ) -> None: ...

    @overload
    def __init__(
        self,
        fn: Callable[[T], R],
        workers: int = 4,
        *,
        ctx: Context | None = None,
        buffer: int = 0,
        mode: Mode = "auto",
        timeout: float | None = None,
        ordered: bool = False,
    ) -> None: ...

    def __init__(
        self,
        fn: Callable[[T], Any],
        workers: int = 4,
        *,
        ctx: Context | None = None,
        buffer: int = 0,
        mode: Mode = "auto",
        timeout: float | None = None,
        ordered: bool = False,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise WrongArgument(f"expected a number of workers that is an int >= 1, got: {workers!r}")
        if timeout is not None and not timeout > 0:
            raise WrongArgument(f"expected a timeout in seconds > 0 or None, got: {timeout!r}")
        self._runner: Runner = _make_runner(fn, mode, workers)
        self._fn = fn
        self._workers = workers
        self._timeout = timeout
        self._ordered = ordered
        self._group = ErrGroup(ctx)
        self._input: Chan[T] = Chan(buffer)
        self._results: Chan[Result[T, R]] | None = None
        self._started = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = self._succeeded = self._failed = 0
        self._left = 0
        self._next = 0
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._done = False

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the workers and return the pool; a second call does nothing.

        Raises:
            WrongLoop: No event loop is running.
        """
        if self._started:
            return self
        self._started = True
        self._loop = require_loop("WorkerPool")
        if self._ordered:
            jobs: Chan[tuple[int, T]] = Chan()
            self._group.try_go(self._number, jobs)
            work: Callable[[], Coroutine[Any, Any, None]] = lambda: self._work_in_order(jobs)  # noqa: E731  # two kinds
        else:
            work = self._work
        for _ in range(self._workers):
            self._group.try_go(work)
        return self

    def close(self) -> None:
        """Take no more items: `publish` raises `SendOnClosed`, the workers finish and `results` ends."""
        if not self._input.closed:
            self._input.close()

    async def stop(self) -> None:
        """Close the pool and wait until everything that was published is finished.

        Results that were asked for must be received meanwhile. Returns at once when it was stopped before.

        Cancellation: cancels the pool and waits for the running items to end.
        """
        self.close()
        try:
            # The end of the pool's context is a way to stop, though not everything is finished then.
            with suppress(Canceled, DeadlineExceeded):
                await self._group.wait()
        finally:
            self._finish()
            await self._runner.close()

    def cancel(self, cause: BaseException | None = None) -> None:
        """End the pool's context: running items are cancelled, waiting ones are dropped, `results` ends."""
        self._group.ctx.cancel(cause)

    async def __aenter__(self) -> Self:
        """Start the workers."""
        return self.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop the pool; cancel it first if the block failed or left results behind."""
        unread = self._results is not None and not (self._results.closed and not len(self._results))
        if exc is not None or unread:
            self.cancel(exc)
        await self.stop()

    # -- work ------------------------------------------------------------------------------------------------

    async def publish(self, item: T) -> None:
        """Hand `item` to the pool, waiting while all workers are busy and the buffer is full.

        Cancellation: raises `asyncio.CancelledError` only if the item was not taken.

        Raises:
            SendOnClosed: The pool takes no more items.
            Canceled: The pool's context has ended; `DeadlineExceeded` if by its deadline.
            WrongLoop: The workers run on another event loop.
        """
        require_same_loop(self, self._loop)
        if self._input.closed:
            raise SendOnClosed("expected to publish before the pool was closed")
        err = self.ctx.err()
        if err is None and not self._input.try_send(item):
            index, _, _ = await select(self._input.on_send(item), self.ctx.done().on_recv())
            err = self.ctx.err() if index == 1 else None
        if err is not None:
            raise err.with_traceback(None)

    def try_publish(self, item: T) -> bool:
        """Hand `item` to the pool if that needs no waiting; return whether it was taken.

        Raises:
            SendOnClosed: The pool takes no more items.
            WrongLoop: The workers run on an event loop in another thread.
        """
        require_same_loop(self, self._loop)
        return self.ctx.err() is None and self._input.try_send(item)

    async def dispatch(self, events: AsyncIterable[T] | Iterable[T]) -> None:
        """Publish everything that comes from `events`, a channel or any other iterable, until it ends."""
        if isinstance(events, AsyncIterable):
            async for item in events:
                await self.publish(item)
        else:
            for item in events:
                await self.publish(item)

    def run(self, events: AsyncIterable[T] | Iterable[T]) -> RecvChan[Result[T, R]]:
        """Dispatch `events` in the background, close the pool at their end, and return the results.

        The iterable's own failure is raised when the pool is stopped.
        """
        results = self.results
        self.start()
        self._group.try_go(self._feed, events)
        return results

    @property
    def results(self) -> RecvChan[Result[T, R]]:
        """The channel of results, closed after the last one.

        Ask for it before the first item is published: from then on the workers wait until somebody receives.
        """
        if self._results is None:
            self._results = Chan()
            if self._done:
                self._results.close()
        return self._results.receiver

    @property
    def ctx(self) -> CancelContext:
        """The pool's context."""
        return self._group.ctx

    def statistics(self) -> WorkerPoolStatistics:
        """Return the pool's state at this instant."""
        return WorkerPoolStatistics(self._workers, self._busy, len(self._input), self._succeeded, self._failed)

    def __repr__(self) -> str:
        """Return ``<WorkerPool 3/4 busy [2 queued, 1 failed]>``."""
        notes = [f"{n} {what}" for n, what in ((len(self._input), "queued"), (self._failed, "failed")) if n]
        tail = f" [{', '.join(notes)}]" if notes else ""
        return f"<WorkerPool {self._busy}/{self._workers} busy{tail}>"

    # -- inside ----------------------------------------------------------------------------------------------

    async def _feed(self, events: AsyncIterable[T] | Iterable[T]) -> None:
        try:
            await self.dispatch(events)
        except SendOnClosed:
            # Somebody closed the pool: the rest is not wanted.
            return
        finally:
            self.close()

    async def _number(self, jobs: Chan[tuple[int, T]]) -> None:
        """Number the items in the order in which they were published, and hand them to the workers."""
        with jobs.sender:
            index = 0
            async for item in self._input:
                await jobs.send((index, item))
                index += 1

    async def _work(self) -> None:
        try:
            async for item in self._input:
                result, orphan = await self._process(item)
                await self._report(result)
                await _settle(orphan)
        finally:
            self._leave()

    async def _work_in_order(self, jobs: Chan[tuple[int, T]]) -> None:
        try:
            async for index, item in jobs:
                result, orphan = await self._process(item)
                if self._next != index:
                    turn = self._turns[index] = asyncio.get_running_loop().create_future()
                    await turn
                await self._report(result)
                self._next += 1
                following = self._turns.pop(self._next, None)
                if following is not None and not following.done():
                    following.set_result(None)
                await _settle(orphan)
        finally:
            self._leave()

    async def _process(self, item: T) -> tuple[Result[T, R], asyncio.Future[Any] | None]:
        """Run the function; a thread that has missed its timeout is returned too, for it still runs."""
        self._busy += 1
        call = self._runner.call(item)
        scope: asyncio.Timeout | None = None
        try:
            await call.prepare()
            async with asyncio.timeout(self._timeout) as scope:
                value = await call.wait()
        except Exception as exc:
            return self._failure(item, self._in_time(scope, exc)), call.orphan()
        except asyncio.CancelledError:
            if self.ctx.err() is not None or _is_cancelled():
                raise
            return self._failure(item, Canceled("the item was cancelled by its own function")), None
        finally:
            self._busy -= 1
        self._succeeded += 1
        return Result(item, value, None), None

    def _in_time(self, scope: asyncio.Timeout | None, exc: Exception) -> Exception:
        """Return what went wrong: the item's own exception, or that it took too long."""
        if scope is None or not scope.expired():
            return exc
        return DeadlineExceeded(f"expected the item to take at most {self._timeout:g} s")

    def _failure(self, item: T, error: Exception) -> Result[T, R]:
        self._failed += 1
        if self._results is None:
            _log.error("%s failed: %s: %s", getattr(self._fn, "__qualname__", self._fn), type(error).__name__, error)
        return Result(item, None, error)

    async def _report(self, result: Result[T, R]) -> None:
        if self._results is not None:
            await self._results.send(result)

    def _leave(self) -> None:
        """Count a worker that has ended: the input is drained or the context over. The last one ends the results."""
        self._left += 1
        if self._left == self._workers:
            self._finish()

    def _finish(self) -> None:
        self._done = True
        if self._results is not None and not self._results.closed:
            self._results.close()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _settle(orphan: asyncio.Future[Any] | None) -> None:
    """Wait for a thread that has missed its timeout; what it returns or raises has been reported as a timeout."""
    if orphan is not None:
        await asyncio.wait([orphan])
        orphan.exception()


def _make_runner(fn: Any, mode: str, workers: int) -> Runner:
    """Return the runner of `mode`. Raises `WrongArgument` for one that does not go with `fn`."""
    if not callable(fn):
        raise WrongArgument(f"expected a function for the workers, got: {fn!r}")
    is_async = is_coroutine_function(fn)
    if mode == "auto":
        mode = "async" if is_async else "thread"
    if mode not in ("async", "thread", "process"):
        raise WrongArgument(f"expected mode 'auto', 'async', 'thread' or 'process', got: {mode!r}")
    if is_async and mode != "async":
        raise WrongArgument(f"expected a plain function for mode {mode!r}, got the coroutine function {fn!r}")
    if mode == "thread":
        return ThreadRunner(fn, workers)
    if mode == "process":
        from fairway.concurrency.processes import ProcessRunner

        return ProcessRunner(fn, workers)
    return TaskRunner(fn)
