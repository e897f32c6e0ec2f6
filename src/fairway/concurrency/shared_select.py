"""A `select` with a `SharedChan` among its channels.

Source: Go, ``runtime/select.go``: all locks are taken in one order, the cases are looked at, and either one is
carried out or all are enqueued, so that the select acts at one instant. Channels of one loop (`Chan`) take part
without a lock: their other side runs on this loop and cannot come between.
"""

from __future__ import annotations

from asyncio import CancelledError, Future
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import random
from typing import Any

from fairway.concurrency.cases import CLOSED, DEFAULT, NOT_READY, Case, RecvCase, SendCase, channel_of
from fairway.concurrency.errors import SendOnClosed, WrongArgument
from fairway.concurrency.nil import nil
from fairway.concurrency.parking import defer, enter
from fairway.concurrency.shared import SharedChan
from fairway.concurrency.waiters import SharedEntry, TaskWaiter, doorbells, mailbox_of, ring_doorbells

Selected = tuple[int, Any, bool]


@contextmanager
def _locked(cases: Sequence[Case[Any]]) -> Iterator[None]:
    """Hold the locks of all shared channels of `cases`, taken in the order of their addresses."""
    shared = {id(chan): chan for chan in map(channel_of, cases) if isinstance(chan, SharedChan)}
    with ExitStack() as stack:
        for key in sorted(shared):
            stack.enter_context(shared[key].lock)
        yield


def _is_ready(case: Case[Any]) -> bool:
    chan, is_send = channel_of(case), isinstance(case, SendCase)
    if isinstance(chan, SharedChan):
        return chan.ready_locked(is_send)
    ready: bool = chan._send_ready() if is_send else chan._recv_ready()
    return ready


def _attempt(case: Case[Any], index: int) -> Any:
    """Carry the case out now: the select's result, or NOT_READY if it is not ready after all."""
    chan = channel_of(case)
    if isinstance(case, SendCase):
        done = chan.put_locked(case.value) if isinstance(chan, SharedChan) else chan._put(case.value)
        if done is NOT_READY:
            return done
        return index, CLOSED if done is CLOSED else None, done is not CLOSED
    value = chan.take_locked() if isinstance(chan, SharedChan) else chan._take()
    if value is NOT_READY:
        return value
    return (index, None, False) if value is CLOSED else (index, value, True)


def _poll(cases: Sequence[Case[Any]]) -> Any:
    """Carry out a ready case, chosen at random: the select's result, or NOT_READY."""
    while ready := [i for i, case in enumerate(cases) if _is_ready(case)]:
        index = ready[int(random() * len(ready))]  # noqa: S311  # fairness, no secret
        result = _attempt(cases[index], index)
        if result is not NOT_READY:
            return result
    return NOT_READY


def _place(case: Case[Any], entry: SharedEntry) -> tuple[Any, Any, SharedEntry]:
    chan = channel_of(case)
    value = case.value if isinstance(case, SendCase) else None
    if isinstance(chan, SharedChan):
        chan.enqueue_locked(entry, entry.is_send, value)
        return chan, entry, entry
    if entry.is_send:
        pair = (entry, value)
        chan.add_sender(pair)
        return chan, pair, entry
    chan.add_receiver(entry)
    return chan, entry, entry


def _remove(placed: Sequence[tuple[Any, Any, SharedEntry]], winner: int, exc: BaseException) -> None:
    for chan, item, entry in placed:
        if entry.index == winner:
            continue
        if isinstance(chan, SharedChan):
            chan._forget(entry, chan.queue_for(entry.is_send), exc)
        elif entry.is_send:
            chan._drop_send(item)
        else:
            chan._drop_recv(item)


def _expire(waiter: TaskWaiter) -> None:
    waiter.set_result(DEFAULT)


async def select_shared(cases: Sequence[Case[Any]], default: bool, timeout: float | None) -> Selected:
    """Do what `select` does, with at least one `SharedChan` among `cases`."""
    try:
        with _locked(cases):
            for case in cases:
                if not isinstance(case, (SendCase, RecvCase)):
                    raise WrongArgument(f"expected a case made by on_recv() or on_send(value), got: {case!r}")
            result = _poll(cases)
            if result is NOT_READY and not default and timeout != 0:
                loop, task, n = enter()
                waiter = TaskWaiter(Future(loop=loop), mailbox_of(loop))
                live = [(i, case) for i, case in enumerate(cases) if channel_of(case) is not nil]
                for _, case in live:
                    chan = channel_of(case)
                    if not chan.is_shared and chan._home.loop is not loop:
                        chan._bind(loop)
                start = int(random() * len(live))  # noqa: S311  # a channel may stand in several cases: fairness
                live = live[start:] + live[:start]
                placed = [_place(case, SharedEntry(waiter, i, isinstance(case, SendCase))) for i, case in live]
    finally:  # also where a cancel was still due: those whom this select has served are told all the same
        if doorbells:
            ring_doorbells()
    if result is NOT_READY:
        if default or timeout == 0:
            return DEFAULT
        timer = None if timeout is None else loop.call_later(timeout, _expire, waiter)
        try:
            result = await _wait(waiter, task, n, cases, placed)
        finally:
            if timer is not None:
                timer.cancel()
    if result[1] is CLOSED:
        raise SendOnClosed
    return result  # type: ignore[no-any-return]  # the marks are gone


async def _wait(
    waiter: TaskWaiter, task: Any, n: int, cases: Sequence[Case[Any]], placed: Sequence[tuple[Any, Any, SharedEntry]]
) -> Selected:
    try:
        await waiter.future
    except BaseException as exc:
        if waiter.claim.acquire(False):
            _remove(placed, -1, exc)
            raise
        if not isinstance(exc, CancelledError):
            raise
        with _locked(cases):  # the passer sets the result before it lets go of its channel's lock
            defer(task, n, exc)
    result: Selected = waiter.result
    _remove(placed, result[0], CancelledError())
    return result
