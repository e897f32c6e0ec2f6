"""The clock of timers and deadlines: `time.monotonic`, unless the running loop brings a clock of its own.

A test loop with virtual time (`fairway.testing.loop`) has an attribute `monotonic`; everything in this package that
reads the time asks here, so that deadlines, timers and limiters move with the loop and no test waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# uvloop counts in milliseconds and may call back that much too early.
_EARLY = 0.0015
# What the clock and floats make of "now".
_EXACT = 1e-6


def now() -> float:
    """Return the monotonic time in seconds: of the running loop if it has a clock of its own, else of the machine."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        reading = getattr(loop, "monotonic", None)
        if reading is not None:
            return float(reading())
    return time.monotonic()


class Alarm:
    """Calls `fn` on `loop` once, `delay` seconds from now and never before.

    Of a loop that calls back a moment too early it asks for the rest. More than a moment is taken for a loop with a
    clock of its own.
    """

    __slots__ = ("_due", "_fn", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, fn: Callable[[], None]) -> None:
        self._loop = loop
        self._fn = fn
        self._due = now() + delay
        self._handle = loop.call_later(delay, self._ring)

    def cancel(self) -> None:
        """Keep it from calling; on the loop's thread only."""
        self._handle.cancel()

    def _ring(self) -> None:
        early = self._due - now()
        if _EXACT < early < _EARLY:
            self._handle = self._loop.call_later(max(early, 0.001), self._ring)
        else:
            self._fn()


def require_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the running loop, or raise `WrongLoop` that names `what` needs one."""
    loop = asyncio._get_running_loop()
    if loop is None:
        from fairway.concurrency.errors import WrongLoop

        raise WrongLoop(
            f"expected a running event loop for {what}, found none",
            hint="call it inside a coroutine, for instance under asyncio.run(main())",
        )
    return loop


def require_same_loop(what: object, bound: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop | None:
    """Return the running loop, None for none; raise `WrongLoop` if `what` is bound to another one that runs now."""
    loop = asyncio._get_running_loop()
    if bound is not None and loop is not bound and bound.is_running():
        from fairway.concurrency.errors import WrongLoop

        raise WrongLoop(
            f"expected {what!r} to be used on one event loop, got another thread while that loop runs",
            hint="give each loop one of its own, or ask its owner through a SharedChan",
        )
    return loop
