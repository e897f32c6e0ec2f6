"""`select`: wait for the first of several channel operations, sends and receives mixed.

Source: Go specification, "Select statements"; ``runtime/select.go``. One future decides a blocked select: its
entries stand in the queues of all its channels, the first passer sets the future, and the others find it done.
Entries are put in place and taken out within one step of the task, so a select never meets itself.
"""

from __future__ import annotations

from asyncio import Future
from random import random
from typing import Any, Literal, TypeVar, overload

from fairway.concurrency.cases import CLOSED, DEFAULT, NOT_READY, Case, RecvCase, SelectEntry, SendCase
from fairway.concurrency.errors import SendOnClosed, WrongArgument
from fairway.concurrency.nil import nil, park_forever
from fairway.concurrency.parking import enter, settle
from fairway.concurrency.shared import SharedChan
from fairway.concurrency.shared_select import select_shared

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
_Nothing = tuple[Literal[-1], None, Literal[False]]


@overload
async def select(*, default: bool = ..., timeout: float | None = ...) -> tuple[Literal[-1], None, Literal[False]]: ...
@overload
async def select(
    c0: Case[A], /, *, default: Literal[False] = ..., timeout: None = ...
) -> tuple[Literal[0], A, bool]: ...
@overload
async def select(
    c0: Case[A], /, *, default: bool = ..., timeout: float | None = ...
) -> tuple[Literal[0], A, bool] | _Nothing: ...
@overload
async def select(
    c0: Case[A], c1: Case[B], /, *, default: Literal[False] = ..., timeout: None = ...
) -> tuple[Literal[0], A, bool] | tuple[Literal[1], B, bool]: ...
@overload
async def select(
    c0: Case[A], c1: Case[B], /, *, default: bool = ..., timeout: float | None = ...
) -> tuple[Literal[0], A, bool] | tuple[Literal[1], B, bool] | _Nothing: ...
@overload
async def select(
    c0: Case[A], c1: Case[B], c2: Case[C], /, *, default: Literal[False] = ..., timeout: None = ...
) -> tuple[Literal[0], A, bool] | tuple[Literal[1], B, bool] | tuple[Literal[2], C, bool]: ...
@overload
async def select(
    c0: Case[A], c1: Case[B], c2: Case[C], /, *, default: bool = ..., timeout: float | None = ...
) -> tuple[Literal[0], A, bool] | tuple[Literal[1], B, bool] | tuple[Literal[2], C, bool] | _Nothing: ...
@overload
async def select(
    c0: Case[A], c1: Case[B], c2: Case[C], c3: Case[D], /, *, default: Literal[False] = ..., timeout: None = ...
) -> (
    tuple[Literal[0], A, bool] | tuple[Literal[1], B, bool] | tuple[Literal[2], C, bool] | tuple[Literal[3], D, bool]
): ...
@overload
async def select(
    c0: Case[A], c1: Case[B], c2: Case[C], c3: Case[D], /, *, default: bool = ..., timeout: float | None = ...
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | _Nothing
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    /,
    *,
    default: Literal[False] = ...,
    timeout: None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    /,
    *,
    default: bool = ...,
    timeout: float | None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | _Nothing
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    c5: Case[F],
    /,
    *,
    default: Literal[False] = ...,
    timeout: None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | tuple[Literal[5], F, bool]
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    c5: Case[F],
    /,
    *,
    default: bool = ...,
    timeout: float | None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | tuple[Literal[5], F, bool]
    | _Nothing
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    c5: Case[F],
    c6: Case[G],
    /,
    *,
    default: Literal[False] = ...,
    timeout: None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | tuple[Literal[5], F, bool]
    | tuple[Literal[6], G, bool]
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    c5: Case[F],
    c6: Case[G],
    /,
    *,
    default: bool = ...,
    timeout: float | None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | tuple[Literal[5], F, bool]
    | tuple[Literal[6], G, bool]
    | _Nothing
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    c5: Case[F],
    c6: Case[G],
    c7: Case[H],
    /,
    *,
    default: Literal[False] = ...,
    timeout: None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | tuple[Literal[5], F, bool]
    | tuple[Literal[6], G, bool]
    | tuple[Literal[7], H, bool]
): ...
@overload
async def select(
    c0: Case[A],
    c1: Case[B],
    c2: Case[C],
    c3: Case[D],
    c4: Case[E],
    c5: Case[F],
    c6: Case[G],
    c7: Case[H],
    /,
    *,
    default: bool = ...,
    timeout: float | None = ...,
) -> (
    tuple[Literal[0], A, bool]
    | tuple[Literal[1], B, bool]
    | tuple[Literal[2], C, bool]
    | tuple[Literal[3], D, bool]
    | tuple[Literal[4], E, bool]
    | tuple[Literal[5], F, bool]
    | tuple[Literal[6], G, bool]
    | tuple[Literal[7], H, bool]
    | _Nothing
): ...
@overload
async def select(*cases: Case[Any], default: bool = ..., timeout: float | None = ...) -> tuple[int, Any, bool]: ...


async def select(*cases: Case[Any], default: bool = False, timeout: float | None = None) -> tuple[int, Any, bool]:
    """Carry out exactly one of `cases`, waiting until one can proceed.

    Args:
        cases: Made by `ch.on_recv()` and `ch.on_send(value)`, at any number; with none it waits for ever.
        default: Do not wait; with nothing ready the result is ``(-1, None, False)``.
        timeout: Seconds to wait at most (>= 0), then the result is ``(-1, None, False)``.

    Returns:
        ``(index, value, ok)``: the position of the case; for a receive the value and True, or None and False if
        the channel was closed; for a send None and True.

    Cancellation: raises `asyncio.CancelledError` only if no case was carried out.

    Raises:
        SendOnClosed: The chosen case sends on a closed channel.
        WrongArgument: A case is no case, or `timeout` is negative or no number.
    """
    if timeout is not None:
        _check_timeout(timeout)
    for case in cases:
        if case.__class__ is not RecvCase and case.__class__ is not SendCase:
            raise WrongArgument(f"expected a case made by on_recv() or on_send(value), got: {case!r}")
        if isinstance(case.chan, SharedChan):
            return await select_shared(cases, default, timeout)
    while True:
        ready = [i for i, case in enumerate(cases) if _is_ready(case)]
        if not ready:
            break
        index = ready[int(random() * len(ready))] if len(ready) > 1 else ready[0]  # noqa: S311  # fairness, no secret
        result = _attempt(cases[index], index)
        if result is not NOT_READY:
            return result  # type: ignore[no-any-return]  # the mark is gone
    if default or timeout == 0:
        return DEFAULT
    return await _block(cases, timeout)


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise WrongArgument(f"expected a select timeout in seconds >= 0 or None, got: {timeout!r}")


def _is_ready(case: Case[Any]) -> bool:
    ready: bool = case.chan._send_ready() if isinstance(case, SendCase) else case.chan._recv_ready()
    return ready


def _attempt(case: Case[Any], index: int) -> Any:
    """Carry the case out now: the select's result, or NOT_READY if it is not ready after all."""
    if isinstance(case, SendCase):
        done = case.chan._put(case.value)
        if done is CLOSED:
            raise SendOnClosed
        return NOT_READY if done is NOT_READY else (index, None, True)
    value = case.chan._take()
    if value is CLOSED:
        return index, None, False
    return NOT_READY if value is NOT_READY else (index, value, True)


async def _block(cases: tuple[Case[Any], ...], timeout: float | None) -> tuple[int, Any, bool]:
    live = [(i, case) for i, case in enumerate(cases) if case.chan is not nil]
    if not live and timeout is None:
        await park_forever("select without a channel that is not nil")
    loop, task, n = enter()
    future: Future[tuple[int, Any, bool]] = Future(loop=loop)
    timer = None if timeout is None else loop.call_later(timeout, _expire, future)
    placed = [_place(case, SelectEntry(future, i, isinstance(case, SendCase))) for i, case in live]
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


def _place(case: Case[Any], entry: SelectEntry) -> tuple[Any, Any, SelectEntry]:
    if isinstance(case, SendCase):
        pair = (entry, case.value)
        case.chan._sendq.append(pair)
        return case.chan, pair, entry
    case.chan._recvq.append(entry)
    return case.chan, entry, entry


def _remove(placed: list[tuple[Any, Any, SelectEntry]], winner: int) -> None:
    """Take the entries out of the queues; the passer has taken out the winner's."""
    for chan, item, entry in placed:
        if entry.index == winner:
            continue
        if entry.is_send:
            chan._drop_send(item)
        else:
            chan._drop_recv(item)
