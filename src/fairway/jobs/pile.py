"""`Pile`: what one task hands to several in one go, and the bell for those that have nothing to do.

A channel wakes one receiver a value. Where most values are dealt with in a microsecond that is the dearest part, so
here a taker that was woken takes on as long as there is something, and the others are left alone until it stops
coming back for more.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from fairway.concurrency import Chan

T = TypeVar("T")


class Pile(Generic[T]):
    """A queue for the tasks of one event loop; its takers pop from `items` themselves and `wait` where it is empty.

    Args:
        takers: Tasks that take, at most.

    Attributes:
        items: The values, oldest first.
        parked: Takers that wait and were not rung for.
    """

    __slots__ = ("_bell", "items", "parked")

    def __init__(self, takers: int) -> None:
        self.items: deque[T] = deque()
        self.parked = 0
        self._bell: Chan[None] = Chan(takers)

    def ring(self, takers: int = 1) -> None:
        """Wake up to `takers` of those that wait; does nothing where none does. Not after `close`."""
        for _ in range(min(takers, self.parked)):
            self.parked -= 1
            self._bell.try_send(None)

    async def wait(self) -> None:
        """Wait for the bell; somebody else may have taken everything by then: look at `items` again.

        Cancellation: a taker that was rung for before returns normally, as a receive does.

        Raises:
            Closed: The pile was closed.
        """
        self.parked += 1
        try:
            await self._bell.recv()
        except BaseException:
            self.parked -= 1
            raise

    def close(self) -> None:
        """Wake all who wait, for good. What is left in `items` stays there."""
        self._bell.close()

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"<Pile {len(self.items)} [{self.parked} parked]>"
