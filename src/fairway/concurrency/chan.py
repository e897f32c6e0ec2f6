"""`Chan`: Go's channel for the tasks of one event loop.

Source: Go, ``runtime/chan.go`` (hand-off to the first waiter past the buffer, refill from the head sender on a
receive from a full buffer, close wakes everyone). No lock: everything between two awaits happens at one instant
on one loop. `SharedChan` is the one for threads.

A blocked receiver is a future in `_recvq`; a blocked sender is a pair (future, value) in `_sendq`; a blocked
select puts a `SelectEntry` in place of the future. Whoever comes by takes the first that is not done. A waiter
that gives up is removed at once if it stands at either end and else left behind, done; the queue is rebuilt
when such entries are the majority, so that removal is O(1) amortised and a loop of selects leaks nothing.

Size: `send` and `recv` are written out with all their cases, because on CPython a call more costs a buffered
operation a third of its speed, and what they share has to stay in sight of both.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from asyncio import Future, InvalidStateError, _get_running_loop
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Literal, TypeVar

from fairway.concurrency import registry
from fairway.concurrency.bounds import check_batch, check_cap
from fairway.concurrency.cases import CLOSED, NOT_READY, RecvCase, SelectEntry, SendCase
from fairway.concurrency.errors import Closed, CloseOfClosed, SendOnClosed, WrongLoop
from fairway.concurrency.parking import deferred, enter, settle
from fairway.concurrency.registry import future_of, raise_unless_dead, wake_all
from fairway.concurrency.switching import NO_TASK, NOWHERE, QUICK, Home, Woken, home_of, switch, task_on
from fairway.concurrency.views import ChanStatistics, RecvChan, RecvView, SendChan, SendView

T = TypeVar("T")

# Below this many entries left behind a queue is not worth rebuilding.
_COMPACT_FROM = 16


class Chan(SendChan[T], RecvChan[T], RecvCase[T], Generic[T]):
    """A channel of capacity `cap` (>= 0, default 0: unbuffered) for the tasks of one event loop.

    Values leave in the order in which they came, and waiters are served in the order in which they came.
    Every operation is atomic with respect to cancellation: it either happened, and then it returns, or it did
    not happen, and then `asyncio.CancelledError` is raised; a cancel that comes too late for an operation is
    delivered at the task's next wait.

    Raises:
        WrongArgument: `cap` is no int >= 0.

    Source: Go specification, "Channel types"; ``runtime/chan.go``.
    """

    __slots__ = (
        "__weakref__",
        "_buf",
        "_cap",
        "_closed",
        "_dead_recv",
        "_dead_send",
        "_home",
        "_recvq",
        "_room",
        "_sendq",
        "_woken",
    )

    is_shared = False

    def __init__(self, cap: int = 0) -> None:
        self._cap = check_cap(cap)
        # The buffer's bound for a send that may go straight into it: -1 when somebody may be waiting to receive
        # and when the channel is closed. One comparison decides the common case.
        self._room = cap
        self._buf: deque[T] = deque()
        self._recvq: deque[Future[Any] | SelectEntry] = deque()
        self._sendq: deque[tuple[Future[Any] | SelectEntry, T]] = deque()
        self._dead_recv = 0
        self._dead_send = 0
        self._closed = False
        self._home: Home = NOWHERE
        self._woken: Woken | None = None  # the last waiter of an unbuffered channel that the loop was to run

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def cap(self) -> int:
        """Size of the buffer, >= 0. Source: Go's ``cap``."""
        return self._cap

    @property
    def closed(self) -> bool:
        """Whether `close()` was called; values may still wait in the buffer."""
        return self._closed

    def __len__(self) -> int:
        """Return the number of values in the buffer, 0 to `cap`. Source: Go's ``len``."""
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
        """Return the channel's state at this instant; O(number of waiters)."""
        return ChanStatistics(
            len=len(self._buf),
            cap=self._cap,
            blocked_senders=sum(1 for entry, _ in self._sendq if registry.is_waiting(entry)),
            blocked_receivers=sum(1 for entry in self._recvq if registry.is_waiting(entry)),
            closed=self._closed,
        )

    def __repr__(self) -> str:
        """Return ``<Chan 3/8 [1 sender blocked]>``."""
        return registry.describe(type(self).__name__, self.statistics())

    # -- without waiting -------------------------------------------------------------------------------------

    def try_send(self, value: T, /) -> bool:
        """Send `value` if that needs no waiting; return whether it was sent.

        Raises:
            SendOnClosed: The channel is closed.
        """
        done = self._put(value)
        if done is CLOSED:
            raise SendOnClosed
        return done is True

    def try_recv(self) -> tuple[T, Literal[True]] | tuple[None, Literal[False]] | None:
        """Receive if that needs no waiting.

        Returns:
            ``(value, True)``; ``(None, False)`` once closed and drained; None if nothing is ready.
        """
        value = self._take()
        if value is NOT_READY:
            return None
        if value is CLOSED:
            return None, False
        return value, True

    def close(self) -> None:
        """Close the channel: buffered values can still be received, every waiter is woken.

        Blocked receivers see the end, blocked senders raise `SendOnClosed`.

        Raises:
            CloseOfClosed: It was closed before.
        """
        if self._closed:
            raise CloseOfClosed
        if (self._recvq or self._sendq) and self._home.thread != get_ident():
            self._require_home()
        self._closed = True
        self._room = -1
        receivers, senders = self._recvq, self._sendq
        self._recvq, self._sendq = deque(), deque()
        self._dead_recv = self._dead_send = 0
        wake_all(receivers, CLOSED)
        wake_all([entry for entry, _ in senders], CLOSED)

    # -- waiting ---------------------------------------------------------------------------------------------
    # send, recv and __anext__ are written out, with the common case first and without a helper's coroutine in
    # between: a call costs as much as the rest of a buffered operation.

    async def send(self, value: T, /) -> None:
        """Wait until a receiver or the buffer has taken `value`.

        Cancellation: raises `asyncio.CancelledError` only if the value was not taken.

        Raises:
            SendOnClosed: The channel is closed, or was closed during the wait.
        """
        if len(self._buf) < self._room:
            self._buf.append(value)
            return
        recvq = self._recvq
        if recvq or self._closed:
            if recvq and not self._cap and (self._woken is None or self._may_switch()):
                future = recvq.popleft()
                if switch(self._home, future, value):
                    return
                recvq.appendleft(future)
            done = self._put(value)
        else:
            done = NOT_READY
        if done is NOT_READY:
            home = self._home
            task = task_on(home.loop)
            if task is None or deferred:
                home, task = self._enter()
            n = task.cancelling() + 1
            future = Future() if QUICK else Future(loop=home.loop)
            if QUICK and future.get_loop() is not home.loop:
                self._bind(future.get_loop())
            pair = (future, value)
            self._sendq.append(pair)
            try:
                done = await future
            except BaseException as exc:
                if not settle(future, task, n, exc):
                    self._drop_send(pair)
                    self._explain(exc)
                    raise
                done = future.result()
        if done is CLOSED:
            raise SendOnClosed

    async def recv(self) -> T:
        """Wait for a value and return it.

        Cancellation: raises `asyncio.CancelledError` only if no value was taken.

        Raises:
            Closed: The channel is closed and drained.
        """
        sendq = self._sendq
        if self._buf and not sendq:
            return self._buf.popleft()
        if sendq:
            if not self._cap and (self._woken is None or self._may_switch()):
                pair = sendq.popleft()
                if switch(self._home, pair[0], True):
                    return pair[1]
                sendq.appendleft(pair)
            value = self._take()
        else:
            value = CLOSED if self._closed else NOT_READY
        if value is NOT_READY:
            home = self._home
            task = task_on(home.loop)
            if task is None or deferred:
                home, task = self._enter()
            n = task.cancelling() + 1
            future: Future[Any] = Future() if QUICK else Future(loop=home.loop)
            if QUICK and future.get_loop() is not home.loop:
                self._bind(future.get_loop())
            self._recvq.append(future)
            self._room = -1
            try:
                value = await future
            except BaseException as exc:
                if not settle(future, task, n, exc):
                    self._drop_recv(future)
                    self._explain(exc)
                    raise
                value = future.result()
        if value is CLOSED:
            raise Closed
        return value  # type: ignore[no-any-return]  # the marks are gone, a T is left

    async def recv_ok(self) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """Wait for a value or the end: ``(value, True)``, or ``(None, False)`` once closed and drained.

        Cancellation: as `recv`.
        """
        value = self._take()
        if value is NOT_READY:
            value = await self._park_recv()
        if value is CLOSED:
            return None, False
        return value, True

    async def __anext__(self) -> T:
        """Receive the next value, or raise `StopAsyncIteration` once closed and drained."""
        if self._buf and not self._sendq:
            return self._buf.popleft()
        value = self._take()
        if value is NOT_READY:
            value = await self._park_recv()
        if value is CLOSED:
            raise StopAsyncIteration
        return value  # type: ignore[no-any-return]  # the marks are gone, a T is left

    async def recv_many(self, n: int, /) -> list[T]:
        """Wait for at least one value and return all that are ready, at most `n` (>= 1).

        Returns:
            1 to `n` values in order, or ``[]`` once closed and drained.

        Cancellation: as `recv`.
        """
        check_batch(n)
        got = self._take_many(n)
        if got or self._closed:
            return got
        first = await self._park_recv()
        if first is CLOSED:
            return []
        return [first] if n == 1 else [first, *self._take_many(n - 1)]

    async def send_many(self, items: Iterable[T], /) -> None:
        """Send every item in order, waiting where there is no room.

        An iterator is asked for its next item only when the one before was sent.

        Cancellation: when `asyncio.CancelledError` is raised, a prefix of the items was sent and no other.

        Raises:
            SendOnClosed: The channel is closed or was closed meanwhile; its `sent` counts the accepted items.
        """
        if not isinstance(items, (list, tuple, range)):
            for sent, value in enumerate(items):
                done = self._put(value)
                if done is NOT_READY:
                    done = await self._park_send(value)
                if done is CLOSED:
                    raise SendOnClosed(sent=sent)
            return
        at, end = 0, len(items)
        while at < end:
            room = self._room - len(self._buf)
            if room > 0:
                self._buf.extend(items[at : at + room])
                at = min(end, at + room)
                continue
            done = self._put(items[at])
            if done is NOT_READY:
                done = await self._park_send(items[at])
            if done is CLOSED:
                raise SendOnClosed(sent=at)
            at += 1

    # -- select ----------------------------------------------------------------------------------------------

    def on_recv(self) -> RecvCase[T]:
        """Return the case "receive from this channel" for `select`."""
        return self

    def on_send(self, value: T, /) -> SendCase:
        """Return the case "send `value` on this channel" for `select`."""
        return SendCase(self, value)

    # -- inside ----------------------------------------------------------------------------------------------

    def _take(self) -> Any:
        """Receive now: a value, CLOSED or NOT_READY."""
        if self._buf:
            value = self._buf.popleft()
            if self._sendq:
                refill = self._from_sender()
                if refill is not NOT_READY:
                    self._buf.append(refill)
            return value
        if self._sendq:
            value = self._from_sender()
            if value is not NOT_READY:
                return value
        return CLOSED if self._closed else NOT_READY

    def _from_sender(self) -> Any:
        """Complete the first live sender and return its value, or NOT_READY."""
        sendq = self._sendq
        if _get_running_loop() is not self._home.loop if QUICK else self._home.thread != get_ident():
            self._require_home()
        home = self._home
        while sendq:
            entry, value = sendq.popleft()
            if not self._cap:
                self._note_woken(entry)
            try:
                if (entry.set_result(True) if home.ready is None else home.resume(entry, True)) is not False:
                    return value
            except InvalidStateError:
                self._dead_send -= 1
            except RuntimeError:
                raise_unless_dead(entry)
        return NOT_READY

    def _put(self, value: T) -> Any:
        """Send now: True, CLOSED or NOT_READY."""
        if self._closed:
            return CLOSED
        recvq = self._recvq
        if recvq and (_get_running_loop() is not self._home.loop if QUICK else self._home.thread != get_ident()):
            self._require_home()
        home = self._home
        while recvq:
            entry = recvq.popleft()
            if not recvq:
                self._room = self._cap
            if not self._cap:
                self._note_woken(entry)
            try:
                if (entry.set_result(value) if home.ready is None else home.resume(entry, value)) is not False:
                    return True
            except InvalidStateError:
                self._dead_recv -= 1
            except RuntimeError:
                raise_unless_dead(entry)
        self._room = self._cap
        if len(self._buf) < self._cap:
            self._buf.append(value)
            return True
        return NOT_READY

    def _note_woken(self, entry: Any) -> None:
        """Note a waiter that an unbuffered channel is about to wake through the loop."""
        if not entry.done():
            self._woken = Woken(future_of(entry))

    def _may_switch(self) -> bool:
        """Whether every waiter that this channel woke through the loop has run."""
        if self._woken is not None:
            if not self._woken.has_run():
                return False
            self._woken = None
        return True

    def _take_many(self, n: int) -> list[T]:
        """Receive up to `n` values now, those of blocked senders included, and refill the buffer from the rest."""
        buf = self._buf
        if n >= len(buf):
            got = list(buf)
            buf.clear()
        else:
            got = [buf.popleft() for _ in range(n)]
        while self._sendq and (len(got) < n or len(buf) < self._cap):
            value = self._from_sender()
            if value is NOT_READY:
                break
            if len(got) < n:
                got.append(value)
            else:
                buf.append(value)
        return got

    def _enter(self) -> tuple[Home, Any]:
        """Return the running loop's home and the current task; raise a cancel of the task that was deferred."""
        loop, task, _ = enter()
        if self._home.loop is not loop:
            self._bind(loop)
        return self._home, task or NO_TASK

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the running `loop` the one whose tasks wait here. Raises `WrongLoop` while the one before runs."""
        if self._home.loop is not loop and self._home.loop.is_running():
            raise WrongLoop(f"expected {self!r} to be used on one event loop, got two that run in different threads")
        self._home = home_of(loop)

    def _require_home(self) -> None:
        """Raise `WrongLoop` if those who wait here are of a loop that runs in another thread: they cannot be woken."""
        loop = self._home.loop
        if _get_running_loop() is loop:
            self._home = home_of(loop)  # the loop goes on in another thread than before
        elif loop.is_running():
            raise WrongLoop(
                f"expected {self!r} to be used on the event loop whose tasks wait there, got another thread"
            )

    def _explain(self, exc: BaseException) -> None:
        """Raise `WrongLoop` if `exc` is what asyncio says to a wait on another loop's future.

        So it comes about while the channel's own loop runs a task of its own: `_enter` was skipped.
        """
        if isinstance(exc, RuntimeError):
            self._require_home()

    def _recv_ready(self) -> bool:
        """Whether `_take` is likely to find something; exact unless only waiters of closed loops are left."""
        if self._buf or self._closed:
            return True
        sendq = self._sendq
        while sendq:
            if not sendq[0][0].done():
                return True
            sendq.popleft()
            self._dead_send -= 1
        return False

    def _send_ready(self) -> bool:
        """Whether `_put` is likely to succeed or to fail for good; see `_recv_ready`."""
        if self._closed or len(self._buf) < self._cap:
            return True
        recvq = self._recvq
        while recvq:
            if not recvq[0].done():
                return True
            recvq.popleft()
            self._dead_recv -= 1
        self._room = self._cap
        return False

    async def _park_recv(self) -> Any:
        home, task = self._enter()
        n = task.cancelling() + 1
        future: Future[Any] = Future(loop=home.loop)
        self._recvq.append(future)
        self._room = -1
        try:
            return await future
        except BaseException as exc:
            if settle(future, task, n, exc):
                return future.result()
            self._drop_recv(future)
            self._explain(exc)
            raise

    async def _park_send(self, value: T) -> Any:
        home, task = self._enter()
        n = task.cancelling() + 1
        future: Future[Any] = Future(loop=home.loop)
        pair = (future, value)
        self._sendq.append(pair)
        try:
            return await future
        except BaseException as exc:
            if settle(future, task, n, exc):
                return future.result()
            self._drop_send(pair)
            self._explain(exc)
            raise

    def add_receiver(self, entry: Any) -> None:
        """Queue a waiter for a value, an entry of a select."""
        self._recvq.append(entry)
        self._room = -1

    def add_sender(self, pair: tuple[Any, T]) -> None:
        """Queue a waiter, an entry of a select, with the value that it sends."""
        self._sendq.append(pair)

    def _drop_recv(self, entry: Future[Any] | SelectEntry) -> None:
        """Take a waiter that gave up out of the queue; it is done already."""
        queue = self._recvq
        if queue and queue[-1] is entry:
            queue.pop()
        elif queue and queue[0] is entry:
            queue.popleft()
        else:
            self._dead_recv += 1
            if self._dead_recv > _COMPACT_FROM and self._dead_recv * 2 > len(queue):
                self._recvq = deque(e for e in queue if not e.done())
                self._dead_recv = min(0, self._dead_recv - len(queue) + len(self._recvq))
        if not self._recvq and not self._closed:
            self._room = self._cap

    def _drop_send(self, pair: tuple[Future[Any] | SelectEntry, T]) -> None:
        """Take a waiter that gave up out of the queue; it is done already."""
        queue = self._sendq
        if queue and queue[-1] is pair:
            queue.pop()
        elif queue and queue[0] is pair:
            queue.popleft()
        else:
            self._dead_send += 1
            if self._dead_send > _COMPACT_FROM and self._dead_send * 2 > len(queue):
                self._sendq = deque(p for p in queue if not p[0].done())
                self._dead_send = min(0, self._dead_send - len(queue) + len(self._sendq))

    def blocked(self) -> Iterator[registry.Blocked]:
        """Yield who waits here, for `fairway.concurrency.debug`."""
        waiting: list[tuple[Any, Literal["recv", "send"]]] = [(entry, "recv") for entry in self._recvq]
        waiting += [(entry, "send") for entry, _ in self._sendq]
        for entry, kind in waiting:
            if registry.is_waiting(entry):
                yield registry.blocked_on(self, entry, kind, in_select=not isinstance(entry, Future))

    def __reduce__(self) -> Any:
        """Refuse to be pickled: a channel lives in one process."""
        raise TypeError(f"{type(self).__name__} cannot be pickled: a channel lives in one process")


registry.channel_kinds.add(Chan)
