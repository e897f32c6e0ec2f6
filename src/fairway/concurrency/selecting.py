"""What a `select` does once its cases were looked at: carry one out, or wait in the queues of all.

One future decides a blocked select: its entries stand in the queues of all its channels, the first passer sets
the future, and the others find it done. Entries are put in place and taken out within one step of the task each,
so a select never meets itself.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from random import random
from typing import Any

from fairway.concurrency.cases import CLOSED, DEFAULT, NOT_READY, Case, SelectEntry, SendCase, channel_of
from fairway.concurrency.errors import SendOnClosed
from fairway.concurrency.nil import nil, park_forever
from fairway.concurrency.parking import enter, settle

Selected = tuple[int, Any, bool]


def attempt(case: Any, index: int) -> Any:
    """Carry the case out now: the select's result, or NOT_READY if it is not ready after all."""
    if case.__class__ is SendCase:
        done = case.chan._put(case.value)
        if done is CLOSED:
            raise SendOnClosed
        return NOT_READY if done is NOT_READY else (index, None, True)
    value = case._take()
    if value is CLOSED:
        return index, None, False
    return NOT_READY if value is NOT_READY else (index, value, True)


def attempt_any(cases: Sequence[Case[Any]], candidates: list[int]) -> Any:
    """Carry out one of the cases at the positions `candidates`, chosen at random, that is ready indeed."""
    while candidates:
        index = candidates.pop(int(random() * len(candidates)))  # noqa: S311  # fairness, no secret
        result = attempt(cases[index], index)
        if result is not NOT_READY:
            return result
    return NOT_READY


async def block(cases: Sequence[Case[Any]], timeout: float | None) -> Selected:
    """Wait until a case was carried out, or for `timeout` seconds."""
    live = [(i, case) for i, case in enumerate(cases) if channel_of(case) is not nil]
    if not live and timeout is None:
        await park_forever("select without a channel that is not nil")
    if len(live) > 1:  # a channel may stand in several cases, and whoever comes takes the first of them
        start = int(random() * len(live))  # noqa: S311  # fairness, no secret
        live = live[start:] + live[:start]
    loop, task, n = enter()
    for _, case in live:
        chan = channel_of(case)
        if chan._home.loop is not loop:
            chan._bind(loop)
    future: Future[Selected] = Future(loop=loop)
    timer = None if timeout is None else loop.call_later(timeout, _expire, future)
    placed = [_place(case, SelectEntry(future, i, case.__class__ is SendCase)) for i, case in live]
    try:
        result = await future
    except BaseException as exc:
        if not settle(future, task, n, exc):
            _remove(placed, -1)
            raise
        result = future.result()
    finally:
        if timer is not None:
            timer.cancel()
    _remove(placed, result[0])
    if result[1] is CLOSED:
        raise SendOnClosed
    return result


def _expire(future: Future[tuple[int, Any, bool]]) -> None:
    if not future.done():
        future.set_result(DEFAULT)


def _place(case: Any, entry: SelectEntry) -> tuple[Any, Any, SelectEntry]:
    if entry.is_send:
        pair = (entry, case.value)
        case.chan.add_sender(pair)
        return case.chan, pair, entry
    case.add_receiver(entry)
    return case, entry, entry


def _remove(placed: list[tuple[Any, Any, SelectEntry]], winner: int) -> None:
    """Take the entries out of the queues; the passer has taken out the winner's."""
    for chan, item, entry in placed:
        if entry.index == winner:
            continue
        if entry.is_send:
            chan._drop_send(item)
        else:
            chan._drop_recv(item)
