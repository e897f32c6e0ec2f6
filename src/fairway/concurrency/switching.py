"""Inline switches: a hand-off on an unbuffered channel may run the other task at once, without the event loop.

A turn of the loop costs some 2.4 µs, more than all else in a hand-off, and it is what bounds an unbuffered
channel. So an awaited `send` or `recv` that meets a parked task resumes that task on the spot, as an eager task
would start, and goes on when that task waits again. This is what Go does when it puts the readied goroutine next
in line. Never in `try_send` and `try_recv`, which are no suspension points.

Held in bounds, per loop: at most `BUDGET` switches before the loop turns, at most `DEPTH` within each other.
Order is kept: once a channel woke a waiter through the loop, it switches to nobody until that one has run.

What a switch does is what the loop would do: the waiting task's future is completed and its one callback, the
task's wake-up, is called in the task's context, with the sender's task set aside. If the waiter is anything but a
task parked on its future, it is woken through the loop instead.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from _thread import get_ident
from asyncio import Future, Task, _get_running_loop
from collections.abc import Callable
from typing import Any
from weakref import ref

from fairway.concurrency.runqueue import RunQueue

# Whether the running loop is quickly found: from 3.12 on. Before, each look asks the system for the process too.
QUICK = sys.version_info >= (3, 12)
BUDGET = 128
DEPTH = 6

if sys.version_info < (3, 14):
    # The table that current_task, _leave_task and _enter_task work on, at a fraction of the cost.
    _running: dict[Any, Any] = asyncio.tasks._current_tasks  # type: ignore[attr-defined]  # private, hence the version
    task_on: Callable[[Any], Any] = _running.get
    set_aside: Callable[[Any, None], Any] = _running.pop
    take_up: Callable[[Any, Any], None] = _running.__setitem__
else:
    task_on = asyncio.current_task
    take_up = asyncio.tasks._enter_task

    def set_aside(loop: Any, _none: None) -> Any:
        """Return the task that runs on `loop`, or None, and have none run there."""
        task = task_on(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)
        return task


class Home(RunQueue):
    """One event loop as its channels see it: which task runs, and how much switching is left.

    Attributes:
        credit: Switches left before the loop has to turn.
        depth: How many more switches may be nested in the present one.
        thread: Identifier of the thread in which the loop runs.
    """

    __slots__ = ("_pending", "credit", "depth", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.credit: int = BUDGET
        self.depth: int = DEPTH
        self.thread: int = get_ident()
        self._pending = False

    def exhausted(self) -> None:
        """Have the credit restored when the loop turns."""
        if not self._pending:
            self._pending = True
            self.loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._pending = False
        self.credit = BUDGET


def switch(home: Home, future: Any, result: Any) -> bool:
    """Complete `future`, on which a task is parked, with `result` and run that task at once.

    False, and nothing done, if that may not be: no credit, no task running here, or no task parked there.
    """
    loop = home.loop
    callbacks = future._callbacks  # None once the future is done
    if home.credit <= 0 or home.depth <= 0 or not callbacks or future.get_loop() is not loop:
        return False
    if _get_running_loop() is not loop if QUICK else home.thread != get_ident():  # it runs, but in another thread
        return False
    callback, context = callbacks[0]
    try:
        task: Any = callback.__self__
    except AttributeError:
        return False
    if task.__class__ is not Task:  # what was added first is the wake-up of the task that parked, if one did
        return False
    me = set_aside(loop, None)
    if me is None:
        return False
    home.depth -= 1
    try:
        home.credit -= 1
        if not home.credit:
            home.exhausted()
        future.remove_done_callback(callback)
        future.set_result(result)
        context.run(callback, future)
    except RuntimeError:
        # A context cannot be entered twice: a task that shares ours is woken through the loop. Anything else has
        # begun the step, and is not for us to repeat.
        if task._fut_waiter is not future:  # type: ignore[attr-defined]  # what it waits on, in C
            raise
        loop.call_soon(callback, future, context=context)
    finally:
        take_up(loop, me)
        home.depth += 1
    return True


class Woken:
    """A waiter that was woken through the loop: tells whether it has run since.

    It has when its task no longer waits on the future. Neither is kept alive; should another future of the same
    task get the same address, the answer is the cautious one.
    """

    __slots__ = ("_future", "_task")

    def __init__(self, future: Future[Any]) -> None:
        task = task_behind(future)
        self._task = ref(task) if task is not None else _gone
        self._future = id(future)

    def has_run(self) -> bool:
        """Whether the waiter has run since it was woken."""
        task = self._task()
        return task is None or id(task._fut_waiter) != self._future  # type: ignore[attr-defined]  # C only


def _gone() -> None:
    """Stands for the reference to a task that does not exist."""


def task_behind(future: Future[Any]) -> Task[Any] | None:
    """Return the task that is parked on the pending `future`, if it is a task and nothing else waits there."""
    callbacks = future._callbacks
    if callbacks is None or len(callbacks) != 1:
        return None
    owner = getattr(callbacks[0][0], "__self__", None)
    return owner if isinstance(owner, Task) else None


class _PerThread(threading.local):
    home: Home | None = None


_per_thread = _PerThread()


def home_of(loop: asyncio.AbstractEventLoop) -> Home:
    """Return the `Home` of the loop that runs in the calling thread."""
    home = _per_thread.home
    if home is None or home.loop is not loop:
        home = _per_thread.home = Home(loop)
    return home


def call_first(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have the running `loop` make the call in its next turn, and switch to nobody before that.

    For cancels: a task that goes from one inline switch to the next would see its own only when they run out.
    """
    loop.call_soon(call)
    home = home_of(loop)
    home.credit = 0
    home.exhausted()


class _NoLoop:
    """Stands for the loop before a channel was waited on: no task runs there, nothing can be scheduled."""

    def is_closed(self) -> bool:
        return True

    def is_running(self) -> bool:
        return False


class _NoTask:
    """Stands for the task where a coroutine is driven by hand: it cannot be cancelled."""

    def cancelling(self) -> int:
        return 0


NOWHERE = Home(_NoLoop())  # type: ignore[arg-type]  # only asked what _NoLoop answers
NO_TASK = _NoTask()
