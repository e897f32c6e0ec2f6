"""`Once`, `once_func` and `once_value`: what happens at most once, however many ask.

Source: Go, ``sync/once.go`` and ``sync/oncefunc.go``.
"""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from functools import update_wrapper
from typing import Any, Generic, TypeVar

from fairway.concurrency.flight import Flight

T = TypeVar("T")


class Once:
    """Runs one function once; it counts as done after a failure too.

    Source: Go, ``sync.Once``.
    """

    __slots__ = ("_flight", "_lock", "_reported")

    def __init__(self) -> None:
        self._flight: Flight[object] | None = None
        self._reported = False
        self._lock = threading.RLock()

    async def do(self, fn: Callable[[], Awaitable[object] | object]) -> None:
        """Call `fn` if this is the first call for this `Once`; else wait until the first call's `fn` has ended.

        What `fn` raises is raised to the first caller or, if that one was cancelled meanwhile, to the next who
        waits; all others return. `fn` may be a plain or a coroutine function.

        Cancellation: a caller who is cancelled stops waiting; `fn` runs on, for the others and for later calls.

        Raises:
            Deadlock: Called from inside `fn`.
        """
        flight = self._flight
        if flight is None:
            with self._lock:
                flight = self._flight
                if flight is None:
                    flight = self._flight = Flight(abandon=False)
                    flight.start(fn)
        elif flight.finished and self._reported:
            return
        try:
            await flight.join()
        except CancelledError:
            raise  # of this caller: the function's own comes as `Canceled`
        except BaseException:
            if flight.finished and self._reported:
                return
            self._reported = flight.finished
            raise
        self._reported = True

    @property
    def finished(self) -> bool:
        """Whether the function has run to its end."""
        return self._flight is not None and self._flight.finished

    def __repr__(self) -> str:
        """Return ``<Once done>``, ``<Once running>`` or ``<Once new>``."""
        if self._flight is None:
            return "<Once new>"
        return "<Once done>" if self._flight.finished else "<Once running>"


class _OnceCall(Generic[T]):
    """The function that `once_func` and `once_value` return."""

    def __init__(self, fn: Callable[[], Awaitable[T] | T]) -> None:
        self._fn: Callable[[], Awaitable[T] | T] | None = fn
        self._flight: Flight[T] | None = None
        self._lock = threading.RLock()
        update_wrapper(self, fn)

    async def __call__(self) -> T:
        """Run the function if nobody has, wait for its end, and return or raise what it did."""
        flight = self._flight
        if flight is None:
            with self._lock:
                flight = self._flight
                if flight is None:
                    flight = self._flight = Flight(abandon=False)
                    fn, self._fn = self._fn, None  # what it closes over is free again
                    assert fn is not None
                    flight.start(fn)
        return await flight.join()

    def __repr__(self) -> str:
        """Return the name of the function and whether it has run."""
        state = "new" if self._flight is None else "done" if self._flight.finished else "running"
        return f"<once {getattr(self, '__name__', 'function')} {state}>"


def once_func(fn: Callable[[], Awaitable[object] | object]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a coroutine function that calls `fn` once, at its first call; later calls wait for that one's end.

    If `fn` raises, every call raises the same error. `fn` may be a plain or a coroutine function; a cancelled
    caller stops waiting without stopping `fn`.

    Source: Go, ``sync.OnceFunc``.
    """
    call = _OnceCall(fn)

    async def run() -> None:
        await call()

    return update_wrapper(run, call)


def once_value(fn: Callable[[], Awaitable[T] | T]) -> Callable[[], Coroutine[Any, Any, T]]:
    """Return a coroutine function that calls `fn` once and returns its value every time.

    If `fn` raises, every call raises the same error. Otherwise as `once_func`.

    Source: Go, ``sync.OnceValue``.
    """
    return _OnceCall(fn)
