"""`SingleFlight`: callers who ask for the same thing at the same time share one call.

Source: Go, ``golang.org/x/sync/singleflight``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from fairway.concurrency.flight import Flight

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SingleFlightStatistics:
    """A group at one instant.

    Attributes:
        in_flight: Keys with a call under way.
        waiting: Callers who wait for one of them.
    """

    in_flight: int
    waiting: int


class SingleFlight:
    """Duplicate calls, by key, are suppressed while one is under way. For the tasks of one event loop.

    Source: Go, ``singleflight.Group``.
    """

    __slots__ = ("_flights", "_shared")

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[Any]] = {}
        self._shared: set[Flight[Any]] = set()

    async def do(self, key: Hashable, fn: Callable[..., Awaitable[T] | T], *args: Any) -> tuple[T, bool]:
        """Call `fn(*args)` unless a call for `key` is under way; then wait for that one's outcome.

        Args:
            key: What is asked for; hashable.
            fn: A plain or a coroutine function; the latter runs in a task of its own.
            args: Its arguments.

        Returns:
            ``(value, shared)``: `shared` says whether the value was given to more than one caller.

        Cancellation: a caller who is cancelled stops waiting; the call goes on for the others and is cancelled
        only when none is left.

        Raises:
            Canceled: The call itself was cancelled.
            Deadlock: `fn` asks for its own key.
        """
        flight = self._flights.get(key)
        if flight is None or flight.finished:
            flight = self._flights[key] = Flight(abandon=True)
            flight.start(fn, *args)
        else:
            self._shared.add(flight)
        try:
            value = await flight.join()
            return value, flight in self._shared
        finally:
            if (flight.finished or not flight.waiting) and self._flights.get(key) is flight:
                del self._flights[key]
            if not flight.waiting:
                self._shared.discard(flight)

    def forget(self, key: Hashable) -> None:
        """Let the next `do` for `key` call its function, even while an earlier call is under way."""
        self._flights.pop(key, None)

    def statistics(self) -> SingleFlightStatistics:
        """Return the group's state at this instant."""
        waiting = sum(flight.waiting for flight in self._flights.values())
        return SingleFlightStatistics(in_flight=len(self._flights), waiting=waiting)

    def __len__(self) -> int:
        """Return the number of keys with a call under way."""
        return len(self._flights)

    def __bool__(self) -> bool:
        """Return True: an idle group is no less a group."""
        return True

    def __repr__(self) -> str:
        """Return ``<SingleFlight [2 in flight]>``."""
        return f"<SingleFlight [{len(self._flights)} in flight]>"
