"""The errors of `fairway.concurrency`: what is a panic in Go is an exception here."""

from __future__ import annotations

from typing import ClassVar

from fairway.errors import FairwayError


class ConcurrencyError(FairwayError):
    """Base of the errors of this package."""

    code = "concurrency.error"


class Closed(ConcurrencyError):
    """A receive found the channel closed and drained.

    Control flow rather than a fault: `async for`, `recv_ok` and `try_recv` report the same without raising.
    """

    code = "concurrency.closed"

    def __init__(self, message: str = "receive on a closed and drained channel") -> None:
        super().__init__(message)


class SendOnClosed(ConcurrencyError):
    """A value was sent on a closed channel, or the channel was closed while the sender was blocked.

    Attributes:
        sent: How many values of a `send_many` had been accepted before; 0 for a single send.

    Source: Go, ``panic: send on closed channel``.
    """

    code = "concurrency.send_on_closed"
    default_hint: ClassVar[str] = "let the side that sends close the channel, after its last send"

    def __init__(self, message: str = "send on closed channel", *, sent: int = 0) -> None:
        super().__init__(message)
        self.sent = sent


class CloseOfClosed(ConcurrencyError):
    """A channel was closed a second time. Source: Go, ``panic: close of closed channel``."""

    code = "concurrency.close_of_closed"
    default_hint: ClassVar[str] = "give one owner the duty to close, or close through `with ch.sender as out:`"

    def __init__(self, message: str = "close of closed channel") -> None:
        super().__init__(message)


class CloseOfNil(ConcurrencyError):
    """The `nil` channel was closed. Source: Go, ``panic: close of nil channel``."""

    code = "concurrency.close_of_nil"
    default_hint: ClassVar[str] = "make a channel with Chan(n); nil only ever blocks"

    def __init__(self, message: str = "close of nil channel") -> None:
        super().__init__(message)


class WrongArgument(ConcurrencyError, ValueError):
    """An argument is outside its bounds; the message says what was expected and what came."""

    code = "concurrency.wrong_argument"


class WrongLoop(ConcurrencyError, RuntimeError):
    """What belongs to one event loop was used where none runs, or on another one, in another thread, meanwhile."""

    code = "concurrency.wrong_loop"
    default_hint: ClassVar[str] = "use SharedChan between threads and event loops"


class TimedOut(ConcurrencyError, TimeoutError):
    """A thread waited on a `SharedChan` for as long as it was told to; nothing was sent or received."""

    code = "concurrency.timed_out"


class NegativeWaitGroup(ConcurrencyError):
    """A wait group's counter went below zero. Source: Go, ``panic: sync: negative WaitGroup counter``."""

    code = "concurrency.negative_wait_group"
    default_hint: ClassVar[str] = "call add() before the work starts and done() once for each"

    def __init__(self, message: str = "negative wait group counter") -> None:
        super().__init__(message)


class Canceled(ConcurrencyError):
    """A context was cancelled: an ordinary exception, unlike `asyncio.CancelledError`.

    Source: Go, ``context.Canceled``.
    """

    code = "concurrency.canceled"

    def __init__(self, message: str = "context canceled") -> None:
        super().__init__(message)


class DeadlineExceeded(ConcurrencyError, TimeoutError):
    """A context's deadline passed. Source: Go, ``context.DeadlineExceeded``."""

    code = "concurrency.deadline_exceeded"

    def __init__(self, message: str = "context deadline exceeded") -> None:
        super().__init__(message)


class Deadlock(ConcurrencyError):
    """Every task of the loop is blocked on a channel, select or wait group and nothing can wake one.

    Source: Go, ``fatal error: all goroutines are asleep - deadlock!``.
    """

    code = "concurrency.deadlock"
