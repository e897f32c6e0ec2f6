"""A clock that only moves when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count


class FakeClock:
    """`fairway.clock.Clock` for tests: `advance` moves it and wakes what is due.

    Args:
        start: Both clocks' first reading, seconds.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._monotonic = start
        self._wall = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def monotonic(self) -> float:
        """Return the fake monotonic reading."""
        return self._monotonic

    def time(self) -> float:
        """Return the fake wall-clock reading."""
        return self._wall

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved the clock by `seconds`; cancellable."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move both clocks forward, waking sleepers in the order they are due and letting each run."""
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._move(max(0.0, due - self._monotonic))
            if not future.done():
                future.set_result(None)
            await self._settle()
        self._move(end - self._monotonic)
        await self._settle()

    def jump(self, seconds: float) -> None:
        """Set the wall clock by `seconds`, forward or back, as an administrator would; monotonic time stands still."""
        self._wall += seconds

    @property
    def sleeping(self) -> int:
        """How many tasks wait on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def _move(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds

    async def _settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def __repr__(self) -> str:
        return f"<FakeClock {self._monotonic:.3f} [{self.sleeping} sleeping]>"
