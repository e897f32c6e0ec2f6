"""Who waits for a store to change, on one event loop."""

from __future__ import annotations

import asyncio

from fairway.events.errors import BusClosed


class Wakeups:
    """Futures of the tasks that wait, and a counter that tells a task whether it missed something.

    Attributes:
        changes: How often `wake` was called.
    """

    __slots__ = ("_closed", "_waiters", "changes")

    def __init__(self) -> None:
        self.changes = 0
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._waiters)

    def wake(self) -> None:
        """Let every waiting task go on."""
        self.changes += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def close(self) -> None:
        """Let every waiting task raise `BusClosed`, and each that comes."""
        self._closed = True
        self.wake()

    def check_open(self) -> None:
        """Raise `BusClosed` after `close`."""
        if self._closed:
            raise BusClosed("the event store is closed")

    async def wait(self, timeout: float, changes: int) -> None:
        """Wait for the next `wake`, at most `timeout` seconds; not at all if `self.changes` is not `changes` any more.

        Raises:
            BusClosed: The store was closed meanwhile.
        """
        self.check_open()
        if changes != self.changes:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)
        self.check_open()

    def __repr__(self) -> str:
        return f"<Wakeups [{len(self._waiters)} waiting, {self.changes} changes]>"
