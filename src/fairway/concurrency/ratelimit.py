"""`RateLimiter`: a token bucket.

Source: Go, ``golang.org/x/time/rate``. The bucket holds `burst` tokens, is full at first and refills at `limit`
tokens a second; a reservation may take it below zero, which is what makes the next one wait. Time is counted in whole
nanoseconds and waits are cut down to them, as in Go: with floats, a tenth of a second at ten a second would
give 0.99999 of a token.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fairway.concurrency.context import Context, require_context
from fairway.concurrency.errors import ConcurrencyError, DeadlineExceeded, WrongArgument
from fairway.concurrency.select import select
from fairway.concurrency.timing import now as loop_now

_NS = 1_000_000_000
# Further ahead than any program runs; loops do not take infinity.
_FOREVER = 10 * 365 * 86_400.0


class HasMonotonic(Protocol):
    """A clock as the limiter needs it; `fairway.clock.Clock` is one. If it has `sleep(seconds)`, `wait` uses that."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point."""
        ...


class RateLimited(ConcurrencyError):
    """A wait for tokens was refused, at once and without taking any."""

    code = "concurrency.rate_limited"


class BurstExceeded(RateLimited, ValueError):
    """More tokens were asked for than the bucket can ever hold."""

    code = "concurrency.burst_exceeded"


class WaitTooLong(RateLimited, DeadlineExceeded):
    """The tokens would come after the deadline of the context, so that waiting is pointless."""

    code = "concurrency.wait_too_long"


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """A limiter at one instant.

    Attributes:
        limit: Tokens a second; `math.inf` for no limit.
        burst: Size of the bucket.
        tokens: What is in the bucket; negative while reservations wait.
    """

    limit: float
    burst: int
    tokens: float


def every(seconds: float) -> float:
    """Return the limit of one event in `seconds`, in events a second; `math.inf` for 0 or less.

    Source: Go, ``rate.Every``.
    """
    return math.inf if seconds <= 0 else 1 / seconds


class Reservation:
    """Tokens promised for a later moment; made by `RateLimiter.reserve`. Source: Go, ``rate.Reservation``."""

    __slots__ = ("_act", "_limit", "_limiter", "_tokens", "ok")

    def __init__(self, limiter: RateLimiter, tokens: int, act: float | None, limit: float) -> None:
        self._limiter = limiter
        self._tokens = tokens
        self._act = act
        self._limit = limit
        self.ok: bool = act is not None
        """Whether the limiter can provide the tokens at all."""

    @property
    def delay(self) -> float:
        """Seconds from now until the tokens may be used: 0 for at once, `math.inf` if it is not `ok`."""
        if self._act is None:
            return math.inf
        return max(0.0, (self._act - self._limiter._read()) / _NS)

    def cancel(self) -> None:
        """Give the tokens back, as far as no later reservation counts on them.

        Does nothing once the tokens may be used, the second time, or if the reservation is not `ok`.
        """
        if self._act is not None:
            self._limiter._restore(self, self._act)

    def __repr__(self) -> str:
        """Return ``<Reservation 2 tokens in 0.150 s>``."""
        return f"<Reservation {self._tokens} tokens in {self.delay:.3f} s>" if self.ok else "<Reservation refused>"


class RateLimiter:
    """A token bucket of size `burst` that refills at `limit` tokens a second. May be used from any thread.

    Args:
        limit: Tokens a second, >= 0. `math.inf` lets everything through and ignores `burst`; 0 never refills.
        burst: Most tokens at once, >= 0.
        clock: An object with `monotonic()`, such as `fairway.testing.FakeClock`, or a function that returns
            seconds; the running loop's or the machine's monotonic clock if left out.

    Raises:
        WrongArgument: `limit` or `burst` is out of bounds.

    Source: Go, ``rate.Limiter``.
    """

    __slots__ = ("_burst", "_clock", "_last", "_last_event", "_limit", "_lock", "_sleeper", "_tokens")

    def __init__(self, limit: float, burst: int, clock: HasMonotonic | Callable[[], float] | None = None) -> None:
        self._limit = _check_limit(limit)
        self._burst = _check_burst(burst)
        self._tokens = float(burst)
        self._lock = threading.Lock()
        self._sleeper: Any = None
        self._clock: Callable[[], float]
        if clock is None:
            self._clock = loop_now
        elif hasattr(clock, "monotonic"):
            self._clock = clock.monotonic
            self._sleeper = getattr(clock, "sleep", None)
        elif callable(clock):
            self._clock = clock
        else:
            raise WrongArgument(f"expected a clock with monotonic() or a function, got: {clock!r}")
        # Before every reading of any clock: the bucket is full then.
        self._last: float = -math.inf
        self._last_event: float = -math.inf

    @property
    def limit(self) -> float:
        """Tokens a second."""
        return self._limit

    @property
    def burst(self) -> int:
        """Size of the bucket."""
        return self._burst

    def tokens(self) -> float:
        """Return the tokens in the bucket now; negative while reservations wait."""
        at = self._read()
        with self._lock:
            return self._advance(at)

    def allow(self, n: int = 1) -> bool:
        """Take `n` tokens if they are there now; return whether they were taken."""
        _check_tokens(n)
        return self._reserve(self._read(), n, 0).ok

    def reserve(self, n: int = 1) -> Reservation:
        """Take `n` tokens and return when they may be used; the bucket may go below zero.

        Not `ok` if `n` exceeds the burst, or if the limit is 0 and the bucket too empty: they would never come.
        """
        _check_tokens(n)
        return self._reserve(self._read(), n, math.inf)

    async def wait(self, ctx: Context, n: int = 1) -> None:
        """Take `n` tokens and wait until they may be used.

        Cancellation: the tokens go back, as by `Reservation.cancel`.

        Raises:
            BurstExceeded: `n` exceeds the burst; no token is taken.
            WaitTooLong: They would come after the deadline of `ctx`; no token is taken.
            Canceled: `ctx` was cancelled, before or during the wait.
            DeadlineExceeded: `ctx` has passed its deadline.
        """
        require_context(ctx)
        _check_tokens(n)
        if n > self._burst and self._limit != math.inf:
            raise BurstExceeded(f"expected to wait for at most the burst of {self._burst} tokens, got: {n}")
        err = ctx.err()
        if err is not None:
            raise err.with_traceback(None)
        deadline = ctx.deadline()
        patience = math.inf if deadline is None else max(0.0, deadline - loop_now()) * _NS
        start = self._read()
        reservation = self._reserve(start, n, patience)
        if reservation._act is None:
            if patience != math.inf:
                raise WaitTooLong(f"waiting for {n} tokens would exceed the context's deadline")
            # A limit of 0 and no deadline: nothing to wait for but the end of the context.
            await _sleep(ctx, None, None)
            return
        delay = (reservation._act - start) / _NS
        if delay > 0:
            try:
                await _sleep(ctx, delay, self._sleeper)
            except BaseException:
                reservation.cancel()
                raise

    def set_limit(self, limit: float) -> None:
        """Change the tokens a second; what is reserved already keeps its moment."""
        _check_limit(limit)
        at = self._read()
        with self._lock:
            self._tokens = self._advance(at)
            self._last = at
            self._limit = limit

    def set_burst(self, burst: int) -> None:
        """Change the size of the bucket; what is reserved already keeps its moment."""
        _check_burst(burst)
        at = self._read()
        with self._lock:
            self._tokens = self._advance(at)
            self._last = at
            self._burst = burst

    def statistics(self) -> RateLimiterStatistics:
        """Return the limiter's state at this instant."""
        return RateLimiterStatistics(limit=self._limit, burst=self._burst, tokens=self.tokens())

    def __repr__(self) -> str:
        """Return ``<RateLimiter 10/s, burst 3 [2.5 tokens]>``."""
        return f"<RateLimiter {self._limit:g}/s, burst {self._burst} [{self.tokens():.3g} tokens]>"

    # -- inside: moments and durations are nanoseconds ---------------------------------------------------------

    def _read(self) -> float:
        return round(self._clock() * _NS)

    def _advance(self, at: float) -> float:
        """Return the tokens at the moment `at`; a clock that went backwards adds none."""
        elapsed = max(0, at - self._last)
        return float(min(self._burst, self._tokens + _tokens_in(elapsed, self._limit)))

    def _reserve(self, at: float, n: int, patience: float) -> Reservation:
        with self._lock:
            if self._limit == math.inf:
                return Reservation(self, n, at, self._limit)
            tokens = self._advance(at) - n
            wait = _duration_of(-tokens, self._limit) if tokens < 0 else 0
            if n > self._burst or wait > patience or wait == math.inf:
                return Reservation(self, 0, None, self._limit)
            self._last = at
            self._tokens = tokens
            self._last_event = at + wait
            return Reservation(self, n, at + wait, self._limit)

    def _restore(self, reservation: Reservation, act: float) -> None:
        at = self._read()
        with self._lock:
            unlimited = math.inf in (self._limit, reservation._limit)
            if unlimited or reservation._tokens == 0 or act < at:
                return
            tokens, reservation._tokens = reservation._tokens, 0  # a second cancel gives nothing back
            # What was reserved after it counts on its tokens: those are not given back.
            later = _tokens_in(self._last_event - act, reservation._limit)
            restore = tokens - later
            if restore <= 0:
                return
            self._tokens = min(self._burst, self._advance(at) + restore)
            self._last = at
            if act == self._last_event:
                before = act - _duration_of(tokens, reservation._limit)
                if before >= at:
                    self._last_event = before


async def _sleep(ctx: Context, delay: float | None, sleeper: Any) -> None:
    """Wait `delay` seconds (None: for ever) or until `ctx` ends, which raises its error."""
    if sleeper is not None and delay is not None:
        async with ctx.bind():
            slept = sleeper(delay)
            if inspect.isawaitable(slept):
                await slept
        return
    index, _, _ = await select(ctx.done().on_recv(), timeout=None if delay is None else min(delay, _FOREVER))
    err = ctx.err()
    if index == 0 and err is not None:
        raise err.with_traceback(None)


def _tokens_in(duration: float, limit: float) -> float:
    if limit <= 0:
        return 0.0
    if duration == math.inf:
        return math.inf
    # Seconds and nanoseconds apart, as Go's Duration.Seconds: exact for round durations.
    seconds, rest = divmod(duration, _NS)
    return (seconds + rest / _NS) * limit


def _duration_of(tokens: float, limit: float) -> float:
    if limit <= 0:
        return math.inf
    duration = tokens / limit * _NS
    return math.inf if duration == math.inf else int(duration)


def _check_limit(limit: float) -> float:
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0:
        raise WrongArgument(f"expected a limit in tokens a second >= 0, got: {limit!r}")
    return limit


def _check_burst(burst: int) -> int:
    if isinstance(burst, bool) or not isinstance(burst, int) or burst < 0:
        raise WrongArgument(f"expected a burst that is an int >= 0, got: {burst!r}")
    return burst


def _check_tokens(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise WrongArgument(f"expected a number of tokens that is an int >= 0, got: {n!r}")
