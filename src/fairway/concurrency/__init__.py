"""Go's concurrency for Python: channels, select, context and all that goes with them."""

from __future__ import annotations

from fairway.concurrency.cases import Case, RecvCase, SendCase
from fairway.concurrency.chan import Chan
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
    WrongArgument,
    WrongLoop,
)
from fairway.concurrency.nil import nil
from fairway.concurrency.select import select
from fairway.concurrency.views import ChanStatistics, RecvChan, RecvView, SendChan

__all__ = [
    "Canceled",
    "Case",
    "Chan",
    "ChanStatistics",
    "CloseOfClosed",
    "CloseOfNil",
    "Closed",
    "ConcurrencyError",
    "DeadlineExceeded",
    "Deadlock",
    "NegativeWaitGroup",
    "RecvCase",
    "RecvChan",
    "RecvView",
    "SendCase",
    "SendChan",
    "SendOnClosed",
    "WrongArgument",
    "WrongLoop",
    "nil",
    "select",
]
