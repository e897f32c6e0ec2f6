"""The two directions of a channel, Go's ``chan<- T`` and ``<-chan T``, as abstract types and as views.

`Chan` is a subtype of both, so a function that asks for `RecvChan[T]` takes a channel, a view, a `Timer` or a
`Ticker`. A view holds nothing but its channel: it cannot be used in the other direction, even at run time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from fairway.concurrency.errors import CloseOfClosed

if TYPE_CHECKING:
    from typing import Self

    from fairway.concurrency.cases import RecvCase, SendCase

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class ChanStatistics:
    """A channel at one instant.

    Attributes:
        len: Values in the buffer, 0 to `cap`.
        cap: Size of the buffer; 0 for an unbuffered channel.
        blocked_senders: Tasks and threads waiting to send, selects included.
        blocked_receivers: Tasks and threads waiting to receive, selects included.
        closed: Whether `close()` was called.
    """

    len: int
    cap: int
    blocked_senders: int
    blocked_receivers: int
    closed: bool


class _Directed(ABC):
    """What both directions share."""

    __slots__ = ()

    @property
    @abstractmethod
    def cap(self) -> int:
        """Size of the buffer, >= 0."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether the channel was closed; values may still wait in its buffer."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of values in the buffer, 0 to `cap`."""

    def __bool__(self) -> bool:
        """Return True: an empty channel is no less a channel."""
        return True

    @abstractmethod
    def statistics(self) -> ChanStatistics:
        """Return the channel's state at this instant."""


class RecvChan(_Directed, Generic[T_co]):
    """The receiving direction of a channel, Go's ``<-chan T``; covariant in its values."""

    __slots__ = ()

    @abstractmethod
    def recv(self) -> Coroutine[Any, Any, T_co]:
        """Wait for a value and return it; see `Chan.recv`."""

    @abstractmethod
    def recv_ok(self) -> Coroutine[Any, Any, tuple[T_co, Literal[True]] | tuple[None, Literal[False]]]:
        """Wait for a value or the end; see `Chan.recv_ok`."""

    @abstractmethod
    def try_recv(self) -> tuple[T_co, Literal[True]] | tuple[None, Literal[False]] | None:
        """Receive if that needs no waiting; see `Chan.try_recv`."""

    @abstractmethod
    def recv_many(self, n: int, /) -> Coroutine[Any, Any, list[T_co]]:
        """Wait for 1 to `n` values; see `Chan.recv_many`."""

    @abstractmethod
    def on_recv(self) -> RecvCase[T_co]:
        """Return the case "receive from this channel" for `select`."""

    def __aiter__(self) -> Self:
        """Return the channel itself: `async for` receives until it is closed and drained."""
        return self

    @abstractmethod
    def __anext__(self) -> Coroutine[Any, Any, T_co]:
        """Receive the next value, or raise `StopAsyncIteration` once closed and drained."""


class SendChan(_Directed, Generic[T_contra]):
    """The sending direction of a channel, Go's ``chan<- T``; contravariant in its values.

    Used in a `with` block it closes the channel on exit, whether or not the block failed; a channel that was
    closed inside the block stays as it is.
    """

    __slots__ = ()

    @abstractmethod
    def send(self, value: T_contra, /) -> Coroutine[Any, Any, None]:
        """Wait until `value` is accepted; see `Chan.send`."""

    @abstractmethod
    def try_send(self, value: T_contra, /) -> bool:
        """Send if that needs no waiting; see `Chan.try_send`."""

    @abstractmethod
    def send_many(self, items: Iterable[T_contra], /) -> Coroutine[Any, Any, None]:
        """Send every item in order; see `Chan.send_many`."""

    @abstractmethod
    def on_send(self, value: T_contra, /) -> SendCase:
        """Return the case "send `value` on this channel" for `select`."""

    @abstractmethod
    def close(self) -> None:
        """Close the channel; see `Chan.close`."""

    def __enter__(self) -> Self:
        """Return the channel itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the channel unless that was done already."""
        try:
            self.close()
        except CloseOfClosed:
            return


class RecvView(RecvChan[T_co]):
    """A receive-only view of `chan`; base class of `Timer` and `Ticker`."""

    __slots__ = ("__weakref__", "_chan")

    def __init__(self, chan: RecvChan[T_co]) -> None:
        self._chan = chan

    @property
    def cap(self) -> int:
        """Size of the buffer, >= 0."""
        return self._chan.cap

    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
        return self._chan.closed

    def __len__(self) -> int:
        """Return the number of values in the buffer."""
        return len(self._chan)

    def __repr__(self) -> str:
        """Return the channel's own form, marked as receive-only."""
        return f"<recv-only {self._chan!r}>"

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a view of the same kind on the same channel, as in Go."""
        return self._chan is other._chan if isinstance(other, RecvView) else NotImplemented

    def __hash__(self) -> int:
        """Return the hash of the channel."""
        return hash(self._chan)

    def statistics(self) -> ChanStatistics:
        """Return the channel's state at this instant."""
        return self._chan.statistics()

    def recv(self) -> Coroutine[Any, Any, T_co]:
        """Wait for a value and return it; see `Chan.recv`."""
        return self._chan.recv()

    def recv_ok(self) -> Coroutine[Any, Any, tuple[T_co, Literal[True]] | tuple[None, Literal[False]]]:
        """Wait for a value or the end; see `Chan.recv_ok`."""
        return self._chan.recv_ok()

    def try_recv(self) -> tuple[T_co, Literal[True]] | tuple[None, Literal[False]] | None:
        """Receive if that needs no waiting; see `Chan.try_recv`."""
        return self._chan.try_recv()

    def recv_many(self, n: int, /) -> Coroutine[Any, Any, list[T_co]]:
        """Wait for 1 to `n` values; see `Chan.recv_many`."""
        return self._chan.recv_many(n)

    def on_recv(self) -> RecvCase[T_co]:
        """Return the case "receive from this channel" for `select`."""
        return self._chan.on_recv()

    def __anext__(self) -> Coroutine[Any, Any, T_co]:
        """Receive the next value, or raise `StopAsyncIteration` once closed and drained."""
        return self._chan.__anext__()


class SendView(SendChan[T_contra]):
    """A send-only view of `chan`."""

    __slots__ = ("__weakref__", "_chan")

    def __init__(self, chan: SendChan[T_contra]) -> None:
        self._chan = chan

    @property
    def cap(self) -> int:
        """Size of the buffer, >= 0."""
        return self._chan.cap

    @property
    def closed(self) -> bool:
        """Whether the channel was closed."""
        return self._chan.closed

    def __len__(self) -> int:
        """Return the number of values in the buffer."""
        return len(self._chan)

    def __repr__(self) -> str:
        """Return the channel's own form, marked as send-only."""
        return f"<send-only {self._chan!r}>"

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is a view of the same kind on the same channel, as in Go."""
        return self._chan is other._chan if isinstance(other, SendView) else NotImplemented

    def __hash__(self) -> int:
        """Return the hash of the channel."""
        return hash(self._chan)

    def statistics(self) -> ChanStatistics:
        """Return the channel's state at this instant."""
        return self._chan.statistics()

    def send(self, value: T_contra, /) -> Coroutine[Any, Any, None]:
        """Wait until `value` is accepted; see `Chan.send`."""
        return self._chan.send(value)

    def try_send(self, value: T_contra, /) -> bool:
        """Send if that needs no waiting; see `Chan.try_send`."""
        return self._chan.try_send(value)

    def send_many(self, items: Iterable[T_contra], /) -> Coroutine[Any, Any, None]:
        """Send every item in order; see `Chan.send_many`."""
        return self._chan.send_many(items)

    def on_send(self, value: T_contra, /) -> SendCase:
        """Return the case "send `value` on this channel" for `select`."""
        return self._chan.on_send(value)

    def close(self) -> None:
        """Close the channel; see `Chan.close`."""
        self._chan.close()
