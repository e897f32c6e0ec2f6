"""The cases of a `select`: values that say "receive from this channel" or "send this value on that one"."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar

T_co = TypeVar("T_co", covariant=True)


class _Mark:
    """A value that no channel carries."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<{self._name}>"


NOT_READY: Final[Any] = _Mark("not ready")
CLOSED: Final[Any] = _Mark("closed")


class Case(Generic[T_co]):
    """A case of a `select`; `T_co` is the type of the value that the select returns for it."""

    __slots__ = ()


class RecvCase(Case[T_co]):
    """The case "receive from this channel" of a `select`, as `on_recv()` gives it.

    It holds nothing but the channel, and so a channel is its own receive case: a select in a loop makes none.
    """

    __slots__ = ()


class SendCase(Case[None]):
    """The case "send `value` on this channel" of a `select`; made by `on_send(value)`."""

    __slots__ = ("chan", "value")

    def __init__(self, chan: Any, value: object) -> None:
        self.chan: Any = chan  # Chan or SharedChan; select looks which
        self.value: object = value

    def __repr__(self) -> str:
        """Return the case as it would be written in Go."""
        return f"<case {self.chan!r} <- {self.value!r}>"


def channel_of(case: Any) -> Any:
    """Return the channel of a case."""
    return case.chan if case.__class__ is SendCase else case


class SelectEntry:
    """One case of a blocked `select` in a channel's queue.

    Passers treat it as the future of a plain waiter: `done()` says whether the select was decided, and
    `set_result` decides it for this case.
    """

    __slots__ = ("done", "future", "index", "is_send")

    _callbacks = None  # no task is parked on the entry itself, so none is switched to

    def __init__(self, future: Future[tuple[int, Any, bool]], index: int, is_send: bool) -> None:
        self.future: Future[tuple[int, Any, bool]] = future
        self.index: int = index
        self.is_send: bool = is_send
        self.done: Callable[[], bool] = future.done

    def set_result(self, value: Any) -> None:
        """Commit the select to this case with what the passer hands over."""
        if value is CLOSED:
            self.future.set_result((self.index, CLOSED if self.is_send else None, False))
        elif self.is_send:
            self.future.set_result((self.index, None, True))
        else:
            self.future.set_result((self.index, value, True))


Selected = tuple[int, Any, bool]
DEFAULT: Final[tuple[Literal[-1], None, Literal[False]]] = (-1, None, False)
