"""`select`: wait for the first of several channel operations, sends and receives mixed.

Source: Go specification, "Select statements"; ``runtime/select.go``. This file holds the types, one overload for
each number of cases up to eight, so that a checker narrows the value in every ``case`` of a ``match``, and the
pass over the cases that finds one ready. `selecting` holds what happens then.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, overload

from fairway.concurrency.bounds import check_timeout
from fairway.concurrency.cases import DEFAULT, NOT_READY, Case, SendCase
from fairway.concurrency.chan import Chan
from fairway.concurrency.errors import WrongArgument
from fairway.concurrency.selecting import attempt, attempt_any, block
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
_ABSENT: Any = object()
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


async def select(
    one: Any = _ABSENT, two: Any = _ABSENT, /, *more: Case[Any], default: bool = False, timeout: float | None = None
) -> tuple[int, Any, bool]:
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
        timeout = check_timeout(timeout)
    elif one.__class__ is Chan and two.__class__ is Chan and not more:
        # Work beside ctx.done(), by far the most frequent select, with a value waiting for one of the two.
        if one._buf:
            if not (one._sendq or two._buf or two._sendq or two._closed):
                return 0, one._buf.popleft(), True
        elif two._buf and not (two._sendq or one._sendq or one._closed):
            return 1, two._buf.popleft(), True
    cases = (one, two, *more) if two is not _ABSENT else (one,) if one is not _ABSENT else ()
    # One pass in source order; a channel of one loop is looked at here, since calls cost more than the looking.
    first, others, index = -1, None, -1
    for case in cases:
        index += 1
        if case.__class__ is Chan:
            if not (case._buf or case._sendq or case._closed):
                continue
        elif case.__class__ is SendCase:
            chan = case.chan
            if chan.is_shared:
                return await select_shared(cases, default, timeout)
            if not chan._send_ready():
                continue
        elif isinstance(case, SharedChan):
            return await select_shared(cases, default, timeout)
        elif not isinstance(case, Chan):
            raise WrongArgument(f"expected a case made by on_recv() or on_send(value), got: {case!r}")
        elif not case._recv_ready():
            continue
        if first < 0:
            first, chosen = index, case
        elif others is None:
            others = [index]
        else:
            others.append(index)
    if first >= 0:
        if others is not None:
            result = attempt_any(cases, [first, *others])
        elif chosen.__class__ is Chan and chosen._buf and not chosen._sendq:
            return first, chosen._buf.popleft(), True
        else:
            result = attempt(chosen, first)
        if result is not NOT_READY:
            return result  # type: ignore[no-any-return]  # the mark is gone
    if default or timeout == 0:
        return DEFAULT
    return await block(cases, timeout)
