"""Go's concurrency for Python: channels, select, context and all that goes with them.

The core is imported with the package, the rest on first use: a process that wants a channel pays for channels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairway.concurrency.afterfunc import after_func
from fairway.concurrency.binding import Binding
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
from fairway.concurrency.errgroup import ErrGroup, ErrGroupStatistics
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
from fairway.concurrency.flow import Flow
from fairway.concurrency.nil import nil
from fairway.concurrency.pipeline import batch, bridge, fan_in, fan_out, or_done, pipeline, tee
from fairway.concurrency.select import select
from fairway.concurrency.shared import SharedChan
from fairway.concurrency.ticker import Ticker, Timer, after
from fairway.concurrency.views import ChanStatistics, RecvChan, RecvView, SendChan

if TYPE_CHECKING:
    from fairway.concurrency.notify import NotifyContext, SignalReceived, notify_context
    from fairway.concurrency.once import Once, once_func, once_value
    from fairway.concurrency.pool import Result, WorkerPool, WorkerPoolStatistics
    from fairway.concurrency.ratelimit import (
        BurstExceeded,
        RateLimited,
        RateLimiter,
        RateLimiterStatistics,
        Reservation,
        WaitTooLong,
        every,
    )
    from fairway.concurrency.runners import RemoteFailure, WorkerDied
    from fairway.concurrency.semaphore import ReleaseWithoutAcquire, SemaphoreStatistics, WeightedSemaphore
    from fairway.concurrency.shutdown import Shutdown, ShutdownStatistics
    from fairway.concurrency.singleflight import SingleFlight, SingleFlightStatistics
    from fairway.concurrency.waitgroup import WaitGroup, WaitGroupStatistics

_WHERE = {
    "BurstExceeded": "ratelimit",
    "NotifyContext": "notify",
    "Once": "once",
    "RateLimited": "ratelimit",
    "RateLimiter": "ratelimit",
    "RateLimiterStatistics": "ratelimit",
    "ReleaseWithoutAcquire": "semaphore",
    "RemoteFailure": "runners",
    "Reservation": "ratelimit",
    "Result": "pool",
    "SemaphoreStatistics": "semaphore",
    "Shutdown": "shutdown",
    "ShutdownStatistics": "shutdown",
    "SignalReceived": "notify",
    "SingleFlight": "singleflight",
    "SingleFlightStatistics": "singleflight",
    "WaitGroup": "waitgroup",
    "WaitGroupStatistics": "waitgroup",
    "WaitTooLong": "ratelimit",
    "WeightedSemaphore": "semaphore",
    "WorkerDied": "runners",
    "WorkerPool": "pool",
    "WorkerPoolStatistics": "pool",
    "every": "ratelimit",
    "notify_context": "notify",
    "once_func": "once",
    "once_value": "once",
}

__all__ = [
    "Binding",
    "BurstExceeded",
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
    "ErrGroup",
    "ErrGroupStatistics",
    "Flow",
    "InvalidContext",
    "InvalidKey",
    "NegativeWaitGroup",
    "NotifyContext",
    "Once",
    "RateLimited",
    "RateLimiter",
    "RateLimiterStatistics",
    "RecvCase",
    "RecvChan",
    "RecvView",
    "ReleaseWithoutAcquire",
    "RemoteFailure",
    "Reservation",
    "Result",
    "SemaphoreStatistics",
    "SendCase",
    "SendChan",
    "SendOnClosed",
    "SharedChan",
    "Shutdown",
    "ShutdownStatistics",
    "SignalReceived",
    "SingleFlight",
    "SingleFlightStatistics",
    "Ticker",
    "TimedOut",
    "Timer",
    "WaitGroup",
    "WaitGroupStatistics",
    "WaitTooLong",
    "WeightedSemaphore",
    "WorkerDied",
    "WorkerPool",
    "WorkerPoolStatistics",
    "WrongArgument",
    "WrongLoop",
    "after",
    "after_func",
    "background",
    "batch",
    "bridge",
    "every",
    "fan_in",
    "fan_out",
    "nil",
    "notify_context",
    "once_func",
    "once_value",
    "or_done",
    "pipeline",
    "select",
    "tee",
    "with_cancel",
    "with_cause",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        found = globals()[name] = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
