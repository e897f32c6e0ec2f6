"""Go's concurrency for Python: channels, select, context and all that goes with them."""

from __future__ import annotations

from fairway.concurrency.binding import Binding, after_func
from fairway.concurrency.cases import Case, RecvCase, SendCase
from fairway.concurrency.chan import Chan
from fairway.concurrency.context import (
    CancelContext,
    Context,
    ContextStatistics,
    InvalidContext,
    InvalidKey,
    background,
    with_cancel,
    with_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)
from fairway.concurrency.errors import (
    Canceled,
    Closed,
    CloseOfClosed,
    CloseOfNil,
    ConcurrencyError,
    DeadlineExceeded,
    Deadlock,
    NegativeWaitGroup,
    SendOnClosed,
    TimedOut,
    WrongArgument,
    WrongLoop,
)
from fairway.concurrency.nil import nil
from fairway.concurrency.select import select
from fairway.concurrency.shared import SharedChan
from fairway.concurrency.views import ChanStatistics, RecvChan, RecvView, SendChan

__all__ = [
    "Binding",
    "CancelContext",
    "Canceled",
    "Case",
    "Chan",
    "ChanStatistics",
    "CloseOfClosed",
    "CloseOfNil",
    "Closed",
    "ConcurrencyError",
    "Context",
    "ContextStatistics",
    "DeadlineExceeded",
    "Deadlock",
    "InvalidContext",
    "InvalidKey",
    "NegativeWaitGroup",
    "RecvCase",
    "RecvChan",
    "RecvView",
    "SendCase",
    "SendChan",
    "SendOnClosed",
    "SharedChan",
    "TimedOut",
    "WrongArgument",
    "WrongLoop",
    "after_func",
    "background",
    "nil",
    "select",
    "with_cancel",
    "with_cause",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]
