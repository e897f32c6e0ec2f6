"""The waiters of `SharedChan`: a blocked thread, or a blocked task of any event loop.

A waiter's claim state is a lock that is taken once: `claim.acquire(False)` is an atomic test-and-set, with and
without a global interpreter lock. Whoever takes it decides the operation: a passer commits it with a result, the
owner abandons it. A passer holds the lock of the channel from the claim until the result is set, so an owner that
lost the claim sees the result after taking that lock once.

A task is woken through the mailbox of its loop: results pile up in a queue, and one `call_soon_threadsafe` is
under way at a time, however many there are. That call writes to a socket and lets other threads run meanwhile, so
it is made after the lock of the channel was released: the woken task would run straight into that lock.

A thread that waits to send to a large buffer may be admitted first and woken late: a task that receives moves its
value into the buffer, and the thread is woken when the loop turns. Until the task waits, the thread could do nothing
but contend with it for the interpreter, and be put to sleep a second time. So that it depends on no turn of any loop,
which may stop or be blocked, such a waiter is patient for `PATIENCE` seconds only: then it looks by itself whether it
was admitted, and if not, whoever serves it wakes it at once. Both sides hold the channel's lock where they look at
`patient` and change it, so a thread leaves its wait at the latest `PATIENCE` seconds after it was admitted.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import Future
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

from fairway.concurrency.cases import CLOSED

# How long a thread that waits to send leaves it to others when it is woken: as long as the interpreter, by default,
# lets a thread wait for its turn.
PATIENCE = 0.005


class Mailbox:
    """The way into one event loop from other threads, and out of it to threads, with wake-ups coalesced."""

    __slots__ = ("_late", "_notified", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._waiting: deque[TaskWaiter] = deque()
        self._late: list[ThreadWaiter] = []
        self._notified = False

    def post(self, waiter: TaskWaiter) -> None:
        """Have the committed `waiter` resumed on its loop, by the next `ring_doorbells` if that is another one."""
        if asyncio._get_running_loop() is self.loop:
            waiter.resume()
            return
        # Append, then look at the flag; the drain lowers the flag, then empties the queue. Whichever way the two
        # interleave, nothing stays behind; at worst the loop is notified twice.
        self._waiting.append(waiter)
        if not self._notified:
            self._notified = True
            doorbells.append(self)

    def ring(self) -> None:
        """Notify the loop; nothing happens if it was closed since."""
        try:
            self.loop.call_soon_threadsafe(self._drain)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def _drain(self) -> None:
        self._notified = False
        waiting = self._waiting
        while waiting:
            waiting.popleft().resume()

    def wake_late(self, threads: list[ThreadWaiter]) -> None:
        """Have `threads`, which were admitted, woken when the loop turns; to be called on the loop."""
        if not self._late:
            self.loop.call_soon(self._wake_threads)
        self._late += threads

    def _wake_threads(self) -> None:
        late, self._late = self._late, []
        for waiter in late:
            waiter.wake()


# Mailboxes whose loops are still to be notified. Whoever put one here rings after it has released the channel's
# lock, unless another thread came first.
doorbells: deque[Mailbox] = deque()


def ring_doorbells() -> None:
    """Notify the loops of the tasks that were committed; to be called without any channel's lock."""
    while doorbells:
        try:
            mailbox = doorbells.popleft()
        except IndexError:  # another thread was faster
            return
        mailbox.ring()


class _PerThread(threading.local):
    mailbox: Mailbox | None = None


_per_thread = _PerThread()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Return the mailbox of the loop that runs in the calling thread."""
    mailbox = _per_thread.mailbox
    if mailbox is None or mailbox.loop is not loop:
        mailbox = _per_thread.mailbox = Mailbox(loop)
    return mailbox


class ThreadWaiter:
    """A thread that is blocked in `send_sync`, `recv_sync` or `recv_many_sync`.

    Attributes:
        patient: Whether the thread may be woken some time after it was served. Changes under the channel's lock.
    """

    __slots__ = ("_wake", "abandoned", "claim", "patient", "result", "thread")

    def __init__(self, *, patient: bool = False) -> None:
        self.claim: Lock = Lock()
        self.patient: bool = patient
        self.result: Any = None
        self.abandoned: bool = False
        self.thread: int = threading.get_ident()
        self._wake = Lock()
        self._wake.acquire()

    def done(self) -> bool:
        """Whether the operation was committed or abandoned."""
        return self.claim.locked()

    def set_result(self, result: Any) -> bool:
        """Commit with `result` and wake the thread; False if it was decided before."""
        if not self.admit(result):
            return False
        self.wake()
        return True

    def admit(self, result: Any) -> bool:
        """Commit with `result`, to be followed by `wake`; False if it was decided before."""
        if not self.claim.acquire(False):
            return False
        self.result = result
        return True

    def wake(self) -> None:
        """Wake the thread, which was committed."""
        self._wake.release()

    def wait(self, timeout: float | None, lock: Lock) -> bool:
        """Wait until the operation is committed; False if `timeout` seconds pass and it is abandoned.

        `lock` is the channel's. Another exception raised here, such as KeyboardInterrupt, abandons the operation too.
        """
        try:
            if self.patient:
                patience = PATIENCE if timeout is None else min(timeout, PATIENCE)
                if self._wake.acquire(True, patience) or self._admitted(lock):
                    return True
                timeout = None if timeout is None else timeout - patience
            if self._wake.acquire(True, -1 if timeout is None else timeout):
                return True
        except BaseException:
            self.abandoned = self.claim.acquire(False)
            raise
        self.abandoned = self.claim.acquire(False)
        if self.abandoned:
            return False
        self._wake.acquire()  # committed at the last moment: the passer is about to release it
        return True

    def _admitted(self, lock: Lock) -> bool:
        """Whether the operation is committed, its wake-up being late; if not, it will be woken at once."""
        with lock:
            self.patient = False
            return self.claim.locked()


class TaskWaiter:
    """A task that is blocked on a `SharedChan`, or in a select over one."""

    __slots__ = ("_mailbox", "claim", "future", "result")

    def __init__(self, future: Future[Any], mailbox: Mailbox) -> None:
        self.claim: Lock = Lock()
        self.result: Any = None
        self.future: Future[Any] = future
        self._mailbox = mailbox

    def done(self) -> bool:
        """Whether the operation was decided, or the task is about to see its cancellation."""
        return self.claim.locked() or self.future.done()

    def set_result(self, result: Any) -> bool:
        """Commit with `result` and post the wake-up; False if it was decided before or its loop is closed."""
        if self._mailbox.loop.is_closed() or not self.claim.acquire(False):
            return False
        self.result = result
        self._mailbox.post(self)
        return True

    def resume(self) -> None:
        """Complete the task's future; to be called on its loop."""
        if not self.future.done():
            self.future.set_result(None)


class SharedEntry:
    """One case of a blocked `select` that involves a `SharedChan`, in a channel's queue."""

    __slots__ = ("done", "future", "index", "is_send", "waiter")

    _callbacks = None  # as SelectEntry: never switched to

    def __init__(self, waiter: TaskWaiter, index: int, is_send: bool) -> None:
        self.waiter: TaskWaiter = waiter
        self.future: Future[Any] = waiter.future
        self.index: int = index
        self.is_send: bool = is_send
        self.done: Callable[[], bool] = waiter.done

    def set_result(self, value: Any) -> bool:
        """Commit the select to this case with what the passer hands over; False if it was decided before."""
        if value is CLOSED:
            return self.waiter.set_result((self.index, CLOSED if self.is_send else None, False))
        return self.waiter.set_result((self.index, None if self.is_send else value, True))
