"""`SharedChan`: a channel between any number of threads and event loops.

The same queues and rules as `Chan`, under one lock: every step that looks at the channel and changes it holds
the lock, commits at most the waiters that it serves, and wakes them by what `waiters` describes. It never waits
while it holds the lock.

One step goes without: a receive that finds the buffer filled takes the first value, one operation of a deque, and
takes the lock only if a sender is blocked. So under the lock a buffer may become shorter at any time, never
longer; a sender that is queued for a full buffer looks at it once more. What such a receive owes to a blocked
thread, its wake-up, it leaves to the next turn of the loop where the buffer is large: see `waiters`.

Size: `recv` and `__anext__`, `send` and `send_sync` have their common case written out, twice each, because a call
more costs them a quarter of their speed; what they share with the locked ways has to stay in sight.
"""

from __future__ import annotations

import sys
import threading
from asyncio import CancelledError, Future, _get_running_loop
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar

from fairway.concurrency import registry
from fairway.concurrency.bounds import check_batch, check_cap, check_timeout
from fairway.concurrency.cases import CLOSED, NOT_READY, RecvCase, SendCase
from fairway.concurrency.errors import Closed, CloseOfClosed, SendOnClosed, TimedOut
from fairway.concurrency.parking import defer, enter
from fairway.concurrency.views import ChanStatistics, RecvChan, RecvView, SendChan, SendView
from fairway.concurrency.wait_queue import Waiter, WaitQueue
from fairway.concurrency.waiters import SharedEntry, TaskWaiter, ThreadWaiter, doorbells, mailbox_of, ring_doorbells

T = TypeVar("T")
# Whether all threads see the operations on two deques in one order, as they do where a global lock runs them one at
# a time. Then a receive takes from the buffer without the channel's lock, which costs more than all the rest of it.
LOCK_FREE: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
# Capacity from which a blocked thread is woken late. A smaller buffer is drained before the thread is awake, so that it
# contends with nobody; there an early wake-up saves time.
LATE_FROM = 32


class SharedChan(SendChan[T], RecvChan[T], RecvCase[T], Generic[T]):
    """A channel of capacity `cap` (>= 0, default 0) between threads and event loops.

    Tasks use the methods that `Chan` has; threads use `send_sync`, `recv_sync` and `recv_many_sync`, and the
    methods that never wait. Order, close and cancellation are as in `Chan`; a full channel holds senders of
    both kinds back, an empty one receivers. A waiter whose event loop was closed counts as dead.

    Not for handlers set with `signal.signal`: one may interrupt its own thread while that holds the channel's
    lock. `loop.add_signal_handler` and `notify_context` run handlers where that cannot happen.

    Raises:
        WrongArgument: `cap` is no int >= 0.
    """

    __slots__ = ("__weakref__", "_buf", "_cap", "_closed", "_holding", "_receivers", "_room", "_senders", "lock")

    is_shared = True

    def __init__(self, cap: int = 0) -> None:
        self._cap = check_cap(cap)
        # The buffer's bound for a send that may go straight into it: -1 once somebody was queued, until a send that
        # looks closer finds both queues empty, and when the channel is closed. One comparison decides the common case.
        self._room = self._cap
        self._buf: deque[T] = deque()
        self._receivers = WaitQueue()
        self._senders = WaitQueue()
        self._closed = False
        self.lock: threading.Lock = threading.Lock()
        # Each step acquires the lock, so that `for _ in self._holding: try: ... finally: self.lock.release()` is a
        # `with self.lock:` at half its price, and as safe: between the step and the `try` no interrupt is looked for,
        # as there would be after a call of `acquire`. Leave the loop after one round.
        self._holding: Iterator[bool] = iter(self.lock.acquire, None)

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def cap(self) -> int:
        """Size of the buffer, >= 0."""
        return self._cap

    @property
    def closed(self) -> bool:
        """Whether `close()` was called; values may still wait in the buffer."""
        return self._closed

    def __len__(self) -> int:
        """Return the number of values in the buffer, 0 to `cap`."""
        return len(self._buf)

    @property
    def sender(self) -> SendChan[T]:
        """The send-only view; `with ch.sender as out:` closes the channel on exit."""
        return SendView(self)

    @property
    def receiver(self) -> RecvChan[T]:
        """The receive-only view."""
        return RecvView(self)

    def statistics(self) -> ChanStatistics:
        """Return the channel's state at one instant; O(number of waiters)."""
        with self.lock:
            return ChanStatistics(
                len=len(self._buf),
                cap=self._cap,
                blocked_senders=sum(1 for waiter in self._senders if registry.is_waiting(waiter)),
                blocked_receivers=sum(1 for waiter in self._receivers if registry.is_waiting(waiter)),
                closed=self._closed,
            )

    def __repr__(self) -> str:
        """Return ``<SharedChan 3/8 [1 sender blocked]>``."""
        return registry.describe(type(self).__name__, self.statistics())

    # -- without waiting -------------------------------------------------------------------------------------

    def try_send(self, value: T, /) -> bool:
        """Send `value` if that needs no waiting; return whether it was sent. From any thread.

        Raises:
            SendOnClosed: The channel is closed.
        """
        with self.lock:
            done = self.put_locked(value)
        if doorbells:
            ring_doorbells()
        if done is CLOSED:
            raise SendOnClosed
        return done is True

    def try_recv(self) -> tuple[T, Literal[True]] | tuple[None, Literal[False]] | None:
        """Receive if that needs no waiting. From any thread.

        Returns:
            ``(value, True)``; ``(None, False)`` once closed and drained; None if nothing is ready.
        """
        with self.lock:
            value = self.take_locked()
        if doorbells:
            ring_doorbells()
        if value is NOT_READY:
            return None
        if value is CLOSED:
            return None, False
        return value, True

    def close(self) -> None:
        """Close the channel, from any thread: buffered values stay, every waiter is woken.

        Raises:
            CloseOfClosed: It was closed before.
        """
        with self.lock:
            if self._closed:
                raise CloseOfClosed
            self._closed = True
            self._room = -1
            for queue in (self._receivers, self._senders):
                while queue.serve(CLOSED)[0]:
                    continue
        if doorbells:
            ring_doorbells()

    # -- waiting, in tasks -----------------------------------------------------------------------------------

    async def send(self, value: T, /) -> None:
        """Wait until a receiver or the buffer has taken `value`; see `Chan.send`."""
        for _ in self._holding:
            try:
                if len(self._buf) < self._room:
                    self._buf.append(value)
                    return
                break
            finally:
                self.lock.release()
        with self.lock:
            done = self.put_locked(value)
            waiter = self._park(True, value) if done is NOT_READY else None
        if doorbells:
            ring_doorbells()
        if waiter is not None:
            done = await self._wait(*waiter, self._senders)
        if done is CLOSED:
            raise SendOnClosed

    async def recv(self) -> T:
        """Wait for a value and return it; see `Chan.recv`."""
        if LOCK_FREE and self._buf:
            try:
                first = self._buf.popleft()
            except IndexError:  # another thread took the last one in between
                pass
            else:
                if self._senders.items:
                    self._refill()
                return first
        value = await self._recv()
        if value is CLOSED:
            raise Closed
        return value  # type: ignore[no-any-return]  # the marks are gone, a T is left

    async def recv_ok(self) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """Wait for a value or the end: ``(value, True)``, or ``(None, False)`` once closed and drained."""
        value = await self._recv()
        if value is CLOSED:
            return None, False
        return value, True

    async def __anext__(self) -> T:
        """Receive the next value, or raise `StopAsyncIteration` once closed and drained."""
        if LOCK_FREE and self._buf:
            try:
                first = self._buf.popleft()
            except IndexError:  # another thread took the last one in between
                pass
            else:
                if self._senders.items:
                    self._refill()
                return first
        value = await self._recv()
        if value is CLOSED:
            raise StopAsyncIteration
        return value  # type: ignore[no-any-return]  # the marks are gone, a T is left

    async def recv_many(self, n: int, /) -> list[T]:
        """Wait for 1 to `n` values; ``[]`` once closed and drained; see `Chan.recv_many`."""
        check_batch(n)
        with self.lock:
            got = self._take_many(n, [])
            waiter = None if got or self._closed else self._park(False)
        if doorbells:
            ring_doorbells()
        if waiter is None:
            return got
        first = await self._wait(*waiter, self._receivers)
        return [] if first is CLOSED else self._with_more(first, n)

    async def send_many(self, items: Iterable[T], /) -> None:
        """Send every item in order, waiting where there is no room; see `Chan.send_many`."""
        # A list goes in one hold of the lock as far as there is room; of any other iterable each item is fetched
        # without the lock, since fetching may run anything.
        sent = 0
        batches = (items,) if isinstance(items, (list, tuple)) else ((value,) for value in items)
        for batch in batches:
            at = 0
            while at < len(batch):
                waiter = None
                with self.lock:
                    at, done = self._put_run(batch, at)
                    if done is NOT_READY:
                        waiter = self._park(True, batch[at])
                if doorbells:
                    ring_doorbells()
                if waiter is not None:
                    done = await self._wait(*waiter, self._senders)
                    at += done is True
                if done is CLOSED:
                    raise SendOnClosed(sent=sent + at)
            sent += at

    # -- waiting, in threads ---------------------------------------------------------------------------------

    def send_sync(self, value: T, /, timeout: float | None = None) -> None:
        """Block the calling thread until `value` is taken, for `timeout` seconds (>= 0) at most.

        Raises:
            SendOnClosed: The channel is closed, or was closed during the wait.
            TimedOut: The time ran out; the value was not taken. A `TimeoutError`.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        for _ in self._holding:
            try:
                if len(self._buf) < self._room:
                    self._buf.append(value)
                    return
                break
            finally:
                self.lock.release()
        with self.lock:
            done = self.put_locked(value)
            if done is NOT_READY:
                waiter = ThreadWaiter(patient=LOCK_FREE and self._cap >= LATE_FROM)
                self.enqueue_locked(waiter, True, value)
        if doorbells:
            ring_doorbells()
        if done is NOT_READY:
            done = self._wait_sync(waiter, self._senders, timeout)
        if done is CLOSED:
            raise SendOnClosed

    def recv_sync(self, timeout: float | None = None) -> T:
        """Block the calling thread until a value comes, for `timeout` seconds (>= 0) at most; return it.

        Raises:
            Closed: The channel is closed and drained.
            TimedOut: The time ran out. A `TimeoutError`.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        with self.lock:
            value = self.take_locked()
            if value is NOT_READY:
                waiter = ThreadWaiter()
                self.enqueue_locked(waiter, False)
        if doorbells:
            ring_doorbells()
        if value is NOT_READY:
            value = self._wait_sync(waiter, self._receivers, timeout)
        if value is CLOSED:
            raise Closed
        return value  # type: ignore[no-any-return]  # the marks are gone, a T is left

    def recv_many_sync(self, n: int, /, timeout: float | None = None) -> list[T]:
        """Block the calling thread until a value comes; return 1 to `n` values, ``[]`` once closed and drained.

        Raises:
            TimedOut: `timeout` seconds passed without a value. A `TimeoutError`.
        """
        check_batch(n)
        timeout = check_timeout(timeout)
        with self.lock:
            got = self._take_many(n, [])
            waiter = None if got or self._closed else ThreadWaiter()
            if waiter is not None:
                self.enqueue_locked(waiter, False)
        if doorbells:
            ring_doorbells()
        if waiter is None:
            return got
        first = self._wait_sync(waiter, self._receivers, timeout)
        return [] if first is CLOSED else self._with_more(first, n)

    # -- select ----------------------------------------------------------------------------------------------

    def on_recv(self) -> RecvCase[T]:
        """Return the case "receive from this channel" for `select`."""
        return self

    def on_send(self, value: T, /) -> SendCase:
        """Return the case "send `value` on this channel" for `select`."""
        return SendCase(self, value)

    # -- inside, under the lock ------------------------------------------------------------------------------

    def take_locked(self) -> Any:
        """Receive now, the lock being held: a value, CLOSED or NOT_READY."""
        try:
            value = self._buf.popleft()
        except IndexError:  # not looked at before: a receive without the lock may come between
            value = NOT_READY
        if value is not NOT_READY:
            if self._senders.items:
                self.refill_locked()
            return value
        if self._senders.items:
            served, value = self._senders.serve(True)
            if served:
                return value
        return CLOSED if self._closed else NOT_READY

    def put_locked(self, value: T) -> Any:
        """Send now, the lock being held: True, CLOSED or NOT_READY."""
        if self._closed:
            return CLOSED
        if self._receivers.items and self._receivers.serve(value)[0]:
            return True
        if self._senders.items:
            self.refill_locked()
            if self._senders.items:  # room that a receive without the lock makes from here on is theirs
                return NOT_READY
        self._room = self._cap  # nobody is queued
        if len(self._buf) < self._cap:
            self._buf.append(value)
            return True
        return NOT_READY

    def refill_locked(self, late: list[ThreadWaiter] | None = None) -> None:
        """Move values of blocked senders into the buffer as far as there is room, the lock being held.

        To be called where a receive made room, and where a sender was queued: a receive that takes from the
        buffer without the lock looks for senders afterwards, a sender looks for room after it has queued, and so
        at least one of the two sees the other. Threads that need not be woken at once go into `late`, if given.
        """
        while self._senders.items and len(self._buf) < self._cap:
            served, value = self._senders.serve(True, late)
            if served:
                self._buf.append(value)

    def _put_run(self, batch: Sequence[T], at: int) -> tuple[int, Any]:
        """Send ``batch[at:]`` as far as that needs no waiting: where it stopped, and why (True: at the end)."""
        while at < len(batch):
            done = self.put_locked(batch[at])
            if done is not True:
                return at, done
            at += 1
        return at, True

    def _take_many(self, n: int, got: list[T]) -> list[T]:
        """Add ready values to `got` until it holds `n`; return it."""
        while len(got) < n:
            value = self.take_locked()
            if value is NOT_READY or value is CLOSED:
                break
            got.append(value)
        return got

    def enqueue_locked(self, waiter: Waiter, is_send: bool, value: Any = None) -> None:
        """Queue a waiter that found the channel not ready, the lock being held since."""
        self._room = -1
        if is_send:
            self._senders.add(waiter, value)
            self.refill_locked()
        else:
            self._receivers.add(waiter)

    def _park(self, is_send: bool, value: Any = None) -> tuple[TaskWaiter, Any, int]:
        try:
            loop, task, n = enter()
        except BaseException:  # a cancel that was still due: those whom this operation has served are told all the same
            ring_doorbells()
            raise
        waiter = TaskWaiter(Future(loop=loop), mailbox_of(loop))
        self.enqueue_locked(waiter, is_send, value)
        return waiter, task, n

    # -- inside, without the lock ----------------------------------------------------------------------------

    def _refill(self) -> None:
        """Do what a receive that took its value without the lock owes to blocked senders."""
        loop = _get_running_loop()
        late: list[ThreadWaiter] | None = None if loop is None else []
        with self.lock:
            self.refill_locked(late)
        if doorbells:
            ring_doorbells()
        if late and loop is not None:
            mailbox_of(loop).wake_late(late)

    def _with_more(self, first: T, n: int) -> list[T]:
        with self.lock:
            got = self._take_many(n, [first])
        if doorbells:
            ring_doorbells()
        return got

    async def _recv(self) -> Any:
        with self.lock:
            value = self.take_locked()
            waiter = self._park(False) if value is NOT_READY else None
        if doorbells:
            ring_doorbells()
        return value if waiter is None else await self._wait(*waiter, self._receivers)

    async def _wait(self, waiter: TaskWaiter, task: Any, n: int, queue: WaitQueue) -> Any:
        """Wait for the hand-off: what was received, True for a value sent, or CLOSED."""
        try:
            await waiter.future
        except BaseException as exc:
            if waiter.claim.acquire(False):
                self._forget(waiter, queue, exc)
                raise
            if not isinstance(exc, CancelledError):
                raise
            with self.lock:  # the passer sets the result before it lets go of the lock
                defer(task, n, exc)
        return waiter.result

    def _wait_sync(self, waiter: ThreadWaiter, queue: WaitQueue, timeout: float | None) -> Any:
        try:
            committed = waiter.wait(timeout, self.lock)
        except BaseException as exc:
            if waiter.abandoned:
                self._forget(waiter, queue, exc)
            raise
        if not committed:
            with self.lock:
                queue.drop(waiter)
            raise TimedOut(f"nothing happened on {self!r} for {timeout} s")
        return waiter.result

    def _forget(self, waiter: Waiter, queue: WaitQueue, exc: BaseException) -> None:
        """Take an abandoned waiter out of `queue`.

        Only a `CancelledError` comes at a known place. Any other exception may come from the garbage collector
        or a signal, in a thread that holds this very lock; then the entry stays behind, dead, and is dropped by
        the next one to come by.
        """
        if self.lock.acquire(blocking=isinstance(exc, CancelledError)):
            try:
                queue.drop(waiter)
            finally:
                self.lock.release()

    def queue_for(self, is_send: bool) -> WaitQueue:
        """Return the queue of blocked senders or receivers, for `select`."""
        return self._senders if is_send else self._receivers

    def ready_locked(self, is_send: bool) -> bool:
        """Whether a send (or else a receive) can proceed now, the lock being held."""
        if self._closed:
            return True
        if is_send:
            return len(self._buf) < self._cap or self._receivers.any_alive()
        return bool(self._buf) or self._senders.any_alive()

    def blocked(self) -> Iterator[registry.Blocked]:
        """Yield who waits here, for `fairway.concurrency.debug`."""
        with self.lock:
            waiting: list[tuple[Waiter, Literal["recv", "send"]]] = [(w, "recv") for w in self._receivers]
            waiting += [(w, "send") for w in self._senders]
        for waiter, kind in waiting:
            if registry.is_waiting(waiter):
                yield registry.blocked_on(self, waiter, kind, in_select=isinstance(waiter, SharedEntry))

    def __reduce__(self) -> Any:
        """Refuse to be pickled: a channel lives in one process."""
        raise TypeError(f"{type(self).__name__} cannot be pickled: a channel lives in one process")


registry.channel_kinds.add(SharedChan)
