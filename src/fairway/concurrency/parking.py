"""How a task waits: who parks, and what happens when a cancel meets a completed hand-off.

Rule: **commit wins**. The future of a blocked operation is its claim state: pending, committed (it has a result)
or abandoned (cancelled), changed once. A `CancelledError` that arrives over a committed operation does not throw
the value away: the operation returns normally and the cancel is delivered again, by `loop.call_soon`, through
`uncancel(); cancel()`, if by then the task is not done and `cancelling() >= n`, where n is `cancelling()` at the
moment the operation parked, plus one.

Alternatives that lose something: `uncancel(); cancel()` at once gives a spurious `CancelledError` after
`asyncio.timeout()` on 3.11 and 3.12; n taken at deferral loses an outside cancel that comes in the same turn as a
timeout; swallowing the cancel makes a worker immortal; putting the value back overflows the buffer, breaks FIFO
and strands the value after close. A task that commits in every turn could defer its cancel for ever, so a
deferred cancel is raised at the task's next park.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task, get_running_loop
from typing import Any

# Tasks that have a cancel still to be delivered, for one turn of their loop; empty almost always.
deferred: dict[asyncio.Task[Any], Deferred] = {}


class Deferred:
    """A cancel that came over a committed operation of `task` and is still to be delivered."""

    __slots__ = ("args", "handle", "threshold")

    def __init__(self, task: asyncio.Task[Any], threshold: int, args: tuple[Any, ...]) -> None:
        self.threshold: int = threshold
        self.args: tuple[Any, ...] = args
        self.handle: asyncio.Handle = get_running_loop().call_soon(self._redeliver, task)

    def _redeliver(self, task: asyncio.Task[Any]) -> None:
        if deferred.get(task) is self:
            del deferred[task]
        if not task.done() and task.cancelling() >= self.threshold:
            task.uncancel()
            task.cancel(*self.args)


def enter() -> tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None, int]:
    """Return (loop, task, n) for an operation that is about to park.

    Raises `asyncio.CancelledError` if the task has a deferred cancel that still stands.
    """
    loop = get_running_loop()
    task = current_task(loop)
    if task is None:
        return loop, None, 1
    if deferred:
        raise_deferred(task)
    return loop, task, task.cancelling() + 1


def raise_deferred(task: asyncio.Task[Any]) -> None:
    """Deliver a deferred cancel of `task` here, where it is about to park."""
    late = deferred.pop(task, None)
    if late is None:
        _forget_closed_loops()
        return
    late.handle.cancel()
    if task.cancelling() >= late.threshold:
        raise asyncio.CancelledError(*late.args)


def _forget_closed_loops() -> None:
    """Drop what a loop that was closed will never deliver."""
    for task in list(deferred):
        if task.get_loop().is_closed():
            deferred.pop(task, None)


def settle(future: asyncio.Future[Any], task: asyncio.Task[Any] | None, n: int, exc: BaseException) -> bool:
    """Decide what `exc`, raised at ``await future``, means: True if the operation is committed and goes on.

    False means that the operation is abandoned: its future can no longer be claimed, and the caller takes it out
    of its queues and raises `exc`.
    """
    if not future.done():
        future.cancel()
        return False
    if future.cancelled() or not isinstance(exc, asyncio.CancelledError):
        return False
    defer(task, n, exc)
    return True


def defer(task: Any, n: int, exc: asyncio.CancelledError) -> None:
    """Deliver `exc`, which came over a committed operation of `task`, again; n as `enter` gave it."""
    if hasattr(task, "uncancel"):  # NO_TASK and a coroutine driven by hand have nothing to deliver to
        deferred[task] = Deferred(task, n, exc.args)
