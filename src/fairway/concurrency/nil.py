"""`nil`: the channel on which every operation blocks for ever.

Source: Go specification, "Receive operator" and "Send statements"; ``test/chan/select3.go``. Its use is to switch
a case of a `select` off: put `nil` where the channel was.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable
from typing import Any, Final, Literal, NoReturn

from fairway.concurrency import registry
from fairway.concurrency.bounds import check_batch
from fairway.concurrency.chan import Chan
from fairway.concurrency.errors import CloseOfNil
from fairway.concurrency.parking import enter
from fairway.concurrency.views import ChanStatistics


async def park_forever(why: str) -> NoReturn:
    """Wait until the task is cancelled. Raises `asyncio.CancelledError` only."""
    loop, _task, _n = enter()
    future: Future[NoReturn] = Future(loop=loop)
    registry.forever[future] = why
    try:
        await future
        raise RuntimeError("a future that nobody holds was set")
    finally:
        del registry.forever[future]


class NilChan(Chan[Any]):
    """The type of `nil`. There is one instance."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0)

    async def send(self, value: Any, /) -> None:
        """Wait for ever."""
        await park_forever("send on nil")

    async def recv(self) -> Any:
        """Wait for ever."""
        await park_forever("receive from nil")

    async def recv_ok(self) -> tuple[Any, Literal[True]] | tuple[None, Literal[False]]:
        """Wait for ever."""
        return await park_forever("receive from nil")

    async def __anext__(self) -> Any:
        """Wait for ever."""
        await park_forever("receive from nil")

    async def recv_many(self, n: int, /) -> list[Any]:
        """Wait for ever."""
        check_batch(n)
        return await park_forever("receive from nil")

    async def send_many(self, items: Iterable[Any], /) -> None:
        """Wait for ever, unless there is nothing to send."""
        for _ in items:
            await park_forever("send on nil")

    def try_send(self, value: Any, /) -> bool:
        """Return False: nothing is ever ready."""
        return False

    def try_recv(self) -> None:
        """Return None: nothing is ever ready."""

    def close(self) -> None:
        """Raise `CloseOfNil`."""
        raise CloseOfNil

    def statistics(self) -> ChanStatistics:
        """Return zeros: nobody queues at nil."""
        return ChanStatistics(0, 0, 0, 0, False)

    def __repr__(self) -> str:
        """Return ``nil``."""
        return "nil"

    def _recv_ready(self) -> bool:
        return False

    def _send_ready(self) -> bool:
        return False

    def __reduce__(self) -> Any:
        """Copy and pickle as the one instance."""
        return "nil"


nil: Final = NilChan()
"""The channel that blocks for ever; as a case of `select` it is never chosen."""
