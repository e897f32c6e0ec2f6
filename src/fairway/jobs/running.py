"""One job in a worker's hands: its handler is run, interrupted, and its ending named.

`execute` is the way of a job through a worker: arguments decoded, handler called (on the loop, in a thread or in a
process, inside the middleware), ending turned into an `Outcome`. It never raises for what a handler does: one that
calls `sys.exit`, or is cancelled by itself or by what it waited for, has failed like any other.
"""

from __future__ import annotations

import asyncio
import functools
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from fairway.jobs.context import Discard, JobContext, Retry, Snooze
from fairway.jobs.errors import InvalidJob, JobError, LeaseLost, UnknownTask
from fairway.jobs.job import Completed, Failed, Lease, Outcome, Released, Snoozed, Stopped
from fairway.jobs.tasks import Next, Task, Tasks, call_in_process

if TYPE_CHECKING:
    from fairway.concurrency.processes import ProcessRunner
    from fairway.jobs.store import Store

CANCELLED, LOST, TIMED_OUT, DRAINED = "cancelled", "lost", "timed out", "drained"

_NULL = Raw(b"null")
_encode = msgspec.json.encode


class Attempt:
    """A running attempt that can be interrupted.

    Args:
        lease: The job.
        task: Which the handler runs in, and may cancel.
        owner: Which only the worker cancels; default is `task`.

    Attributes:
        lease: The job.
        reason: Why the handler is being interrupted, or an empty string.
    """

    __slots__ = ("_context", "_owner", "_task", "_timer", "lease", "orphan", "reason")

    def __init__(self, lease: Lease, task: asyncio.Task[Any], owner: asyncio.Task[Any] | None = None) -> None:
        self.lease = lease
        self.reason = ""
        self.orphan: asyncio.Future[Any] | None = None
        self._task = task
        self._owner = task if owner is None else owner
        self._context: JobContext | None = None
        self._timer: asyncio.TimerHandle | None = None

    def interrupt(self, reason: str) -> None:
        """Cancel the handler; the first reason counts."""
        if not self.reason:
            self.reason = reason
            if self._context is not None:
                self._context.stop()
            self._task.cancel()

    def watch(self, context: JobContext) -> None:
        """Have `context` told of an interruption."""
        self._context = context
        if self.reason:
            context.stop()

    def arm(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        """Begin the attempt's time limit."""
        self._timer = loop.call_later(timeout_s, self.interrupt, TIMED_OUT)

    @property
    def abandoned(self) -> bool:
        """Whether the worker itself is being cancelled."""
        return self._owner.cancelling() > 0

    def end(self) -> None:
        """No interruption comes any more; takes back the cancellation of a handler that was interrupted."""
        if self._timer is not None:
            self._timer.cancel()
        if self.reason:
            while self._task.cancelling():
                self._task.uncancel()
        else:
            self.reason = "ended"


class Executor:
    """Runs attempts for one worker.

    Args:
        tasks: Their functions and middleware.
        store: For the context.
        concurrency: Threads and processes at most, each.
    """

    def __init__(self, tasks: Tasks, store: Store, concurrency: int) -> None:
        self._tasks = tasks
        self._store = store
        self._concurrency = concurrency
        self._loop = asyncio.get_running_loop()
        self._threads: ThreadPoolExecutor | None = None
        self._processes: ProcessRunner | None = None
        self.orphans = 0

    async def execute(self, attempt: Attempt) -> Outcome | None:
        """Run the handler and return how it ended; None when the lease was lost and nothing is to be said.

        Raises:
            asyncio.CancelledError: The worker's own task was cancelled, not the attempt.
        """
        lease = attempt.lease
        try:
            task = self._tasks.get(lease.kind)
            if lease.timeout_s is not None:
                attempt.arm(self._loop, lease.timeout_s)
            if task.takes_context or self._tasks.middleware or task.mode != "async":
                context = JobContext(lease, self._store, self._loop)
                attempt.watch(context)
                result = await self._call(task, context, attempt)
            else:
                result = await task.call(None, lease.args)
            encoded = _NULL if result is None else Raw(_encode(result))
        except asyncio.CancelledError:
            if attempt.reason:
                return self._interrupted(attempt)
            if attempt.abandoned:
                raise
            # By the handler, or by a future that it waited for: no reason for the worker to end.
            return Failed(lease.id, lease.fence, "the handler was cancelled, and not by its worker")
        except LeaseLost:
            return None
        except (Snooze, Discard, Retry, UnknownTask, InvalidJob) as ending:
            return _named_ending(lease, ending)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # this process is to end
        except BaseException as error:  # `sys.exit` too: one bad job must not end worker after worker
            return Failed(lease.id, lease.fence, _describe(error))
        finally:
            attempt.end()
        return Completed(lease.id, lease.fence, encoded)

    def _interrupted(self, attempt: Attempt) -> Outcome | None:
        lease = attempt.lease
        if attempt.reason == CANCELLED:
            return Stopped(lease.id, lease.fence)
        if attempt.reason == TIMED_OUT:
            return Failed(lease.id, lease.fence, f"ran out of time: {lease.timeout_s:g} s")
        if attempt.reason == DRAINED:
            return Released(lease.id, lease.fence)
        return None

    async def _call(self, task: Task[..., Any], context: JobContext, attempt: Attempt) -> Any:
        """Call through the middleware, wherever the task runs."""
        if not self._tasks.middleware:
            return await self._call_bare(task, context, attempt)
        call: Next = functools.partial(self._call_bare, task, context, attempt)
        for middleware in reversed(self._tasks.middleware):
            call = functools.partial(middleware, context, call)
        return await call()

    async def _call_bare(self, task: Task[..., Any], context: JobContext, attempt: Attempt) -> Any:
        if task.mode == "async":
            return await task.call(context, attempt.lease.args)
        if task.mode == "process":
            if self._processes is None:
                from fairway.concurrency.processes import ProcessRunner

                self._processes = ProcessRunner(call_in_process, self._concurrency)
            values = task.positional(attempt.lease.args)
            call = self._processes.call((task.fn.__module__, task.fn.__qualname__, values))
            await call.prepare()
            return await call.wait()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="fairway-job")
        thread = self._loop.run_in_executor(self._threads, task.call, context, attempt.lease.args)
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            # A thread cannot be stopped. It has been told (`context.stopped`); its slot stays taken until it ends.
            attempt.orphan = thread
            if attempt.reason in {CANCELLED, LOST}:
                await self._bury(attempt)
            raise

    async def _bury(self, attempt: Attempt) -> None:
        """Wait for the thread of an interrupted attempt; a further cancellation ends the wait."""
        orphan, attempt.orphan = attempt.orphan, None
        if orphan is not None:
            self.orphans += 1
            try:
                await asyncio.wait((orphan,))
            finally:
                self.orphans -= 1
                if orphan.done() and not orphan.cancelled():
                    orphan.exception()  # what an abandoned thread raises interests nobody any more

    async def bury(self, attempt: Attempt) -> None:
        """Wait until a thread that an attempt left behind has ended."""
        await self._bury(attempt)

    async def close(self) -> None:
        """End idle threads and processes."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            await self._processes.close()


def _named_ending(lease: Lease, ending: Exception) -> Outcome:
    if isinstance(ending, Snooze):
        return Snoozed(lease.id, lease.fence, max(0.0, ending.delay_s))
    if isinstance(ending, Retry):
        return Failed(lease.id, lease.fence, _text_of(ending), retry_in_s=max(0.0, ending.delay_s))
    # Arguments that do not fit and kinds nobody knows may be right for a newer worker: those are tried again.
    return Failed(lease.id, lease.fence, _text_of(ending), retry=not isinstance(ending, Discard))


def _text_of(error: BaseException) -> str:
    """Return what an error says: its own code may fail, and what it says need not be text that a store can take."""
    try:
        said = str(error)
    except Exception as second:
        said = f"(its text could not be made: {type(second).__name__})"
    return _as_text(said)


def _as_text(said: str) -> str:
    """Return `said` with its lone surrogates, such as those in a file's name of undecodable bytes, written out."""
    return said.encode(errors="backslashreplace").decode()


def _describe(error: BaseException) -> str:
    """Return an error as one line and its traceback, innermost frames last and kept."""
    name = error.code if isinstance(error, JobError) else type(error).__name__
    frames = "".join(traceback.format_exception(error))
    return f"{name}: {_text_of(error)}\n{_as_text(frames[-6_000:])}"
