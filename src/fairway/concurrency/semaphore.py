"""`WeightedSemaphore`: at most so much at once, first come, first served.

Source: Go, ``golang.org/x/sync/semaphore``. A large request at the head of the queue holds the small ones behind
it back; else it would starve under load.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fairway.concurrency.context import Context, on_end, require_context
from fairway.concurrency.errors import ConcurrencyError, WrongArgument
from fairway.concurrency.timing import require_same_loop


class ReleaseWithoutAcquire(ConcurrencyError, ValueError):
    """More was released than was held. Source: Go, ``panic: semaphore: released more than held``."""

    code = "concurrency.release_without_acquire"


@dataclass(frozen=True, slots=True)
class SemaphoreStatistics:
    """A semaphore at one instant.

    Attributes:
        size: What it has to give.
        held: What is given out, 0 to `size`.
        waiters: Tasks blocked in `acquire`.
    """

    size: int
    held: int
    waiters: int


class WeightedSemaphore:
    """A semaphore of `size` units, for the tasks of one event loop: the one that holds some or waits for them.

    Args:
        size: Units to give, >= 0.

    Raises:
        WrongArgument: `size` is no int >= 0.

    Source: Go, ``semaphore.Weighted``.
    """

    __slots__ = ("__weakref__", "_held", "_loop", "_size", "_waiters")

    def __init__(self, size: int) -> None:
        self._size = _units("size", size)
        self._held = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: OrderedDict[asyncio.Future[bool], int] = OrderedDict()

    async def acquire(self, ctx: Context, n: int = 1) -> None:
        """Take `n` units (>= 0), waiting for them behind everyone who came before.

        A request for more than the size waits until `ctx` ends and holds nobody up.

        Cancellation: whoever is cancelled holds nothing.

        Raises:
            Canceled: `ctx` ended, or has ended before, even if the units are free.
            DeadlineExceeded: Likewise, by its deadline.
            WrongLoop: Units are held or waited for on another event loop that runs.
        """
        require_context(ctx)
        _units("n", n)
        self._bind()
        _raise_end(ctx)
        if self._size - self._held >= n and not self._waiters:
            self._held += n
            return
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if n <= self._size:
            self._waiters[ready] = n
        loop = ready.get_loop()

        def ended() -> None:
            if asyncio._get_running_loop() is loop:
                _refuse(ready)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(_refuse, ready)

        stop = on_end(ctx, ended)
        try:
            await ready
            _raise_end(ctx)
        except BaseException:
            self._give_up(ready, n)
            raise
        finally:
            if stop is not None:
                stop()

    def try_acquire(self, n: int = 1) -> bool:
        """Take `n` units if they are free and nobody waits; return whether they were taken.

        Raises:
            WrongLoop: Units are held or waited for on an event loop that runs in another thread.
        """
        _units("n", n)
        self._bind()
        free = self._size - self._held >= n and not self._waiters
        if free:
            self._held += n
        return free

    def release(self, n: int = 1) -> None:
        """Give `n` units back and serve those who wait.

        Raises:
            ReleaseWithoutAcquire: More than is held; nothing changes.
            WrongLoop: The units are held on an event loop that runs in another thread; nothing changes.
        """
        _units("n", n)
        self._bind()
        if n > self._held:
            raise ReleaseWithoutAcquire(f"expected to release at most the {self._held} units held, got: {n}")
        self._held -= n
        self._serve()

    def statistics(self) -> SemaphoreStatistics:
        """Return the semaphore's state at this instant."""
        return SemaphoreStatistics(size=self._size, held=self._held, waiters=len(self._waiters))

    def __repr__(self) -> str:
        """Return ``<WeightedSemaphore 2/3 [1 waiting]>``."""
        waiting = f" [{len(self._waiters)} waiting]" if self._waiters else ""
        return f"<WeightedSemaphore {self._held}/{self._size}{waiting}>"

    def _bind(self) -> None:
        """Make the running loop the semaphore's, unless another one that runs has a hold on it."""
        self._loop = require_same_loop(self, self._loop if self._held or self._waiters else None)

    def _serve(self) -> None:
        while self._waiters:
            ready, n = next(iter(self._waiters.items()))
            if not ready.done():
                if self._size - self._held < n:
                    return
                self._held += n
                ready.set_result(True)
            del self._waiters[ready]

    def _give_up(self, ready: asyncio.Future[bool], n: int) -> None:
        """Undo a request: a grant that came too late goes back, and those behind may be served now."""
        self._waiters.pop(ready, None)
        if ready.done() and not ready.cancelled() and ready.result():
            self._held -= n
        self._serve()


def _refuse(ready: asyncio.Future[bool]) -> None:
    if not ready.done():
        ready.set_result(False)


def _raise_end(ctx: Context) -> None:
    err = ctx.err()
    if err is not None:
        raise err.with_traceback(None)


def _units(what: str, got: Any) -> int:
    if isinstance(got, bool) or not isinstance(got, int) or got < 0:
        raise WrongArgument(f"expected {what} of a semaphore as an int >= 0, got: {got!r}")
    return got
