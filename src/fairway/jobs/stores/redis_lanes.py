"""Where claims wait on Redis for work: each on a connection of its own, with its claim behind it.

A lane reads the queues' streams from where the claim that found nothing was told they end (``XREAD BLOCK`` of two
seconds, never for ever), and the next claim is sent right behind that: Redis carries it out as soon as there is news,
and what a worker reads are its leases. So a job's way from its enqueue to its worker is one answer, not an answer, a
question and another answer; and nothing can be missed between asking and waiting.

A claim that is not wanted any more is roused by an entry in the wake stream: it is carried out like any other, and who
gave it up hands back what it brings.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import hiredis

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.stores.redis_link import Link
from fairway.resp import Address, Argument, Refusal, leads_elsewhere
from fairway.telemetry import log

BLOCK_S = 2.0
_PAUSE_S = 0.5  # before asking again while a lane cannot wait
_SPLIT_S = 0.05  # the same while the keys are on their way to another node
_COUNT = 1  # entries that a read answers: that there is one is the news
_IDLE = 8  # connections that are kept for the next to wait


class Lanes:
    """The lanes of one store; one event loop.

    Args:
        places: Tells where Redis is.
    """

    def __init__(self, places: Callable[[], Sequence[Address]]) -> None:
        self._places = places
        self._idle: list[Link] = []
        self._busy: dict[Link, str] = {}  # and the wake stream that rouses it
        self._left: set[asyncio.Task[None]] = set()  # connections that are being closed
        self._paused = 0.0  # the loop's time before which nobody waits
        self._closed = False

    async def wait(
        self,
        streams: dict[str, str],
        timeout_s: float,
        command: Sequence[Argument] | None,
        give_up: Callable[[Coroutine[Any, Any, Any | None]], None],
    ) -> Any | None:
        """Wait for an entry after the given one in any of `streams`, or the time; then send `command`.

        Cancellation: `give_up` is called with what is left to be awaited, for the answer to the command, which Redis
        has already.

        Args:
            streams: Key and last entry that is no news; the first is a wake stream.
            timeout_s: Seconds; no more than two are waited.
            command: What Redis is to carry out then.
            give_up: See above; not called where nothing has been sent.

        Returns:
            Its answer; None without a command, or where nobody could wait, which takes a pause, or Redis refused the
            command: whoever sends it again by the common way is told why.
        """
        now = asyncio.get_running_loop().time()
        if now < self._paused:
            await asyncio.sleep(min(self._paused - now, timeout_s))
        link = self._idle.pop() if self._idle else Link(self._places(), patience=BLOCK_S + 5.0)
        self._busy[link] = next(iter(streams))
        block = max(1, math.ceil(1000 * min(timeout_s, BLOCK_S)))
        reading: Sequence[Argument] = ("XREAD", "COUNT", _COUNT, "BLOCK", block, "STREAMS", *streams, *streams.values())
        futures: list[asyncio.Future[Any]] = []
        try:
            futures = await self._send(link, [reading] if command is None else [reading, command])
            with suppress(StoreUnavailable, Refusal):  # they are told below
                await asyncio.shield(futures[-1])  # answered last, whatever becomes of the other
        except asyncio.CancelledError:
            if futures:
                give_up(self._finish(link, futures))
            else:
                self._leave(link)
            raise
        except (StoreUnavailable, Refusal) as error:
            self._leave(link)
            self._pause(_PAUSE_S, error)
            return None
        return await self._finish(link, futures)

    async def _send(self, link: Link, commands: list[Sequence[Argument]]) -> list[asyncio.Future[Any]]:
        await link.connect()
        futures = [link.send(hiredis.pack_command(tuple(command))) for command in commands]  # type: ignore[arg-type]  # see `Wire.call`
        sent = [future for future in futures if future is not None]
        if len(sent) < len(futures):
            raise StoreUnavailable("the connection to redis was lost")
        return sent

    async def _finish(self, link: Link, futures: list[asyncio.Future[Any]]) -> Any | None:
        """Await what was sent and return the answer to the command; see `wait`."""
        with suppress(StoreUnavailable, Refusal):
            await futures[-1]
        failures = [failure for future in futures if (failure := future.exception()) is not None]
        if failures or self._closed or len(self._idle) >= _IDLE:
            self._leave(link)
        else:
            del self._busy[link]
            self._idle.append(link)
        for failure in failures[:1]:
            elsewhere = isinstance(failure, Refusal) and leads_elsewhere(failure)
            # A refused reading would go round for ever; the other command is sent again by the common way.
            self._pause(_SPLIT_S if elsewhere else _PAUSE_S, None if elsewhere else failure)
        return futures[1].result() if len(futures) > 1 and futures[1].exception() is None else None

    def _pause(self, seconds: float, why: BaseException | None) -> None:
        """Have nobody wait before some time has passed."""
        self._paused = asyncio.get_running_loop().time() + seconds
        if why is not None:
            log.get("jobs").warning("cannot listen to redis", error=str(why), again_in_s=seconds)

    def _leave(self, link: Link) -> None:
        self._busy.pop(link, None)
        closing = asyncio.create_task(link.close())
        self._left.add(closing)
        closing.add_done_callback(self._left.discard)

    def wakes(self) -> set[str]:
        """Return the wake streams by which every lane that waits can be roused."""
        return set(self._busy.values())

    async def close(self) -> None:
        """Drop the connections; who waits is told that Redis is away. Idempotent."""
        self._closed = True
        links = [*self._idle, *self._busy]
        self._idle.clear()
        for link in links:
            await link.close()
        await asyncio.gather(*self._left)

    def __len__(self) -> int:
        return len(self._busy)

    def __repr__(self) -> str:
        return f"<Lanes [{len(self._busy)} waiting, {len(self._idle)} idle]>"
