"""`Timer`, `Ticker` and `after`: time as receive channels.

Source: Go, ``time/sleep.go`` and ``time/tick.go``, with the guarantee of Go 1.23: after `stop` or `reset` nobody
receives a value from before. The loop holds a ticker's channel weakly: a ticker that was dropped without `stop`
ends by itself.
"""

from __future__ import annotations

import asyncio
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fairway.concurrency.chan import Chan
from fairway.concurrency.errors import WrongArgument
from fairway.concurrency.timing import Alarm, now, require_loop
from fairway.concurrency.views import RecvChan, RecvView

if TYPE_CHECKING:
    from typing import Self

# Further ahead than any program runs; loops do not take infinity.
_FOREVER = 10 * 365 * 86_400.0


class _Timed(RecvView[float]):
    """What timers and tickers share: a channel with room for one value and the timer that fills it."""

    __slots__ = ("_buffer", "_cell", "_loop")

    def __init__(self) -> None:
        self._buffer: Chan[float] = Chan(1)
        super().__init__(self._buffer)
        self._loop = require_loop(type(self).__name__)
        self._buffer._bind(self._loop)
        # The loop's callback may outlive this object: what it has to share with it lives in the cell.
        self._cell = _Cell()

    def _halt(self) -> bool:
        """Stop the timer and take out what nobody has received; return whether there was anything to stop."""
        pending = self._cell.handle is not None
        self._cell.clear()
        return self._buffer.try_recv() is not None or pending

    def __enter__(self) -> Self:
        """Return the channel itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop it."""
        self._halt()


class _Cell:
    """The pending callback of a timer, shared by the timer and the callback."""

    __slots__ = ("handle",)

    def __init__(self) -> None:
        self.handle: asyncio.TimerHandle | Alarm | None = None

    def clear(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None


class Timer(_Timed):
    """A receive channel that gets one value after `seconds`: the monotonic time at which it fired.

    Args:
        seconds: Time to wait; 0 or less fires at the loop's next turn.

    In a `with` block it is stopped on exit.

    Raises:
        WrongLoop: No event loop is running.

    Source: Go, ``time.Timer``.
    """

    __slots__ = ()

    def __init__(self, seconds: float) -> None:
        delay = _check("a timer's", seconds)
        super().__init__()
        self._start(delay)

    def stop(self) -> bool:
        """Keep the timer from firing; return False if its value was received or it was stopped before.

        The channel stays open: a receive blocks until `reset`.
        """
        return self._halt()

    def reset(self, seconds: float) -> bool:
        """Let it fire once more, after `seconds` from now; return what `stop` would return."""
        delay = _check("a timer's", seconds)
        active = self._halt()
        self._start(delay)
        return active

    @property
    def pending(self) -> bool:
        """Whether it has not fired yet."""
        return self._cell.handle is not None

    def __repr__(self) -> str:
        """Return ``<Timer pending>``, ``<Timer fired>`` or ``<Timer idle>``."""
        return f"<Timer {'pending' if self.pending else 'fired' if len(self._buffer) else 'idle'}>"

    def _start(self, delay: float) -> None:
        cell, buffer = self._cell, self._buffer

        def fire() -> None:
            cell.handle = None
            buffer.try_send(now())

        cell.handle = Alarm(self._loop, delay, fire)


class Ticker(_Timed):
    """A receive channel that gets the monotonic time every `seconds`.

    One tick waits at most; those that come while one waits are dropped. The rhythm is kept: a late tick does
    not move the next one.

    Args:
        seconds: Period, > 0.

    In a `with` block it is stopped on exit.

    Raises:
        WrongArgument: `seconds` is no number > 0.
        WrongLoop: No event loop is running.

    Source: Go, ``time.Ticker``.
    """

    __slots__ = ("_period",)

    def __init__(self, seconds: float) -> None:
        self._period = _check_period(seconds)
        super().__init__()
        self._start()

    def stop(self) -> None:
        """Stop ticking; a tick that waits is dropped. The channel stays open, and `reset` starts it again."""
        self._halt()

    def reset(self, seconds: float) -> None:
        """Tick every `seconds` (> 0), counted from now; a tick that waits is dropped."""
        self._period = _check_period(seconds)
        self._halt()
        self._start()

    @property
    def period(self) -> float:
        """Seconds between two ticks."""
        return self._period

    def __repr__(self) -> str:
        """Return ``<Ticker 0.5 s>``, or ``<Ticker stopped>``."""
        return "<Ticker stopped>" if self._cell.handle is None else f"<Ticker {self._period:g} s>"

    def _start(self) -> None:
        loop, cell, period = self._loop, self._cell, self._period
        target = weakref.ref(self._buffer)
        when = loop.time() + period

        def tick() -> None:
            nonlocal when
            buffer = target()
            if buffer is None:
                cell.handle = None
                return
            buffer.try_send(now())
            late = loop.time() - when
            when += period * (1 + max(0.0, late // period))
            cell.handle = loop.call_at(when, tick)

        cell.handle = loop.call_at(when, tick)


def after(seconds: float) -> RecvChan[float]:
    """Return a channel that gets the monotonic time once, after `seconds`; 0 or less: at the next turn.

    Source: Go, ``time.After``.
    """
    return Timer(seconds)


def _check(whose: str, seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != seconds:  # noqa: PLR0124  # NaN
        raise WrongArgument(f"expected {whose} delay in seconds, got: {seconds!r}")
    return min(max(0.0, float(seconds)), _FOREVER)


def _check_period(seconds: Any) -> float:
    period = _check("a ticker's", seconds)
    if not period > 0:
        raise WrongArgument(f"expected a ticker's period in seconds > 0, got: {seconds!r}")
    return period
