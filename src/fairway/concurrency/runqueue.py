"""`RunQueue`: the tasks that channels woke, resumed by the event loop in its own order but many for one handle.

A future that is completed asks the loop for a callback, and on asyncio's own loop each costs half a microsecond: a
handle, five Python calls to queue and run it, a copy of the context. So a waiter's future is completed with its one
callback, the wake-up of its task, taken off, and the wake-up goes into a `Batch`: a handle of our own at the end of
the loop's queue of ready handles, which calls all its wake-ups one after the other.

The order is the loop's. A wake-up joins a batch only while that batch is the last in the queue; if anything else was
queued behind it, a new one is opened. So tasks and callbacks run in the order in which they were made ready, as
without batches, and a batch that has begun takes in nobody: what its tasks wake comes after all that is ready.

It is done where the loop is known to work so: asyncio's own, not in debug mode, with `call_soon` and the turn of the
loop as asyncio made them. Anywhere else, on uvloop say, a waiter's future is completed and the loop does the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any


class RunQueue:
    """The way in which waiters are resumed on one event loop.

    Attributes:
        loop: The event loop.
        ready: The loop's queue of ready handles; None if it is not for us to look at, and `resume` not to be called.
    """

    __slots__ = ("_spare", "loop", "ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.ready: deque[Any] | None = ready_handles(loop)
        self._spare: list[Batch] = []

    def resume(self, entry: Any, result: Any) -> Any:
        """Commit the waiter `entry` with `result` and have its task resumed, as `entry.set_result(result)` does.

        What does not come from a task that is parked on its own future of this loop is left to that method.
        """
        callbacks = entry._callbacks  # None for a select's entry and once the future is done
        ready = self.ready
        if not callbacks or len(callbacks) > 1 or entry.get_loop() is not self.loop or ready is None:
            return entry.set_result(result)
        if not ready or (batch := ready[-1]).__class__ is not Batch:
            if self.loop.is_closed():
                return entry.set_result(result)  # raises what the loop says to that
            batch = self._spare.pop() if self._spare else Batch(self.loop, self._spare)
            ready.append(batch)
        callback, context = callbacks[0]
        entry.remove_done_callback(callback)
        entry.set_result(result)
        batch.wakeups.append((callback, context, entry))
        return True


class Batch(asyncio.Handle):
    """Wake-ups of tasks that the loop makes in one go; it goes back to `spare` afterwards."""

    __slots__ = ("spare", "wakeups")

    def __init__(self, loop: asyncio.AbstractEventLoop, spare: list[Batch]) -> None:
        super().__init__(self._run, (), loop, Context())
        self.wakeups: list[tuple[Callable[[Any], object], Context, Any]] = []
        self.spare: list[Batch] = spare

    def _run(self) -> None:
        """Make the wake-ups, each in its task's context. Called by the loop, in place of the handle's own."""
        wakeups = iter(self.wakeups)
        try:
            for callback, context, future in wakeups:
                context.run(callback, future)
        except BaseException as exc:
            self._failed(exc, list(wakeups))
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):  # these end the loop, as asyncio has it
                raise
            return
        self.wakeups.clear()
        if not self.spare:
            self.spare.append(self)

    def _failed(self, exc: BaseException, left: list[tuple[Callable[[Any], object], Context, Any]]) -> None:
        """Put the wake-ups that are `left` back to the front, and report `exc` as any callback's."""
        loop: Any = self._loop  # type: ignore[attr-defined]  # the handle's own, private
        self.wakeups = left
        if left:
            loop._ready.appendleft(self)
        if not isinstance(exc, (SystemExit, KeyboardInterrupt)):
            loop.call_exception_handler(
                {"message": "Exception when a task was resumed", "exception": exc, "handle": self}
            )


def ready_handles(loop: Any) -> deque[Any] | None:
    """Return the queue of ready handles of `loop` if the loop is asyncio's own in all that matters, else None."""
    ready = getattr(loop, "_ready", None)
    if ready.__class__ is not deque or loop.get_debug():
        return None
    for name in ("call_soon", "_call_soon", "_run_once"):
        if getattr(getattr(loop, name, None), "__module__", None) != "asyncio.base_events":
            return None  # somebody else's, which may count on seeing every callback
    return ready
