"""Time as a value that can be handed in, so that no test waits for it."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Where a component reads the time and waits for it. `fairway.testing.FakeClock` is the other implementation."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point; never goes backwards."""
        ...

    def time(self) -> float:
        """Return seconds since the Unix epoch; may jump when the machine's clock is set."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` (>= 0). Raises `asyncio.CancelledError` when the task is cancelled."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def time(self) -> float:
        """Return `time.time()`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        import asyncio  # loaded by whoever runs a loop; who only asks for the time need not

        await asyncio.sleep(seconds)

    def __repr__(self) -> str:
        return "SystemClock()"


SYSTEM_CLOCK = SystemClock()
