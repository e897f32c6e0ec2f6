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
from collections.abc import Callable, Sequence
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
        self._closed = False

    async def wait(
        self, streams: dict[str, str], timeout_s: float, command: Sequence[Argument] | None = None
    ) -> Any | None:
        """Wait for an entry after the given one in any of `streams`, or the time; then send `command`.

        Args:
            streams: Key and last entry that is no news; the first is a wake stream.
            timeout_s: Seconds; no more than two are waited.
            command: What Redis is to carry out then.

        Returns:
            Its answer; None without a command, or where nobody could wait, which takes a pause, or Redis refused the
            command: whoever sends it again by the common way is told why.
        """
        link = self._idle.pop() if self._idle else Link(self._places(), patience=BLOCK_S + 5.0)
        self._busy[link] = next(iter(streams))
        block = max(1, math.ceil(1000 * min(timeout_s, BLOCK_S)))
        reading: Sequence[Argument] = ("XREAD", "COUNT", _COUNT, "BLOCK", block, "STREAMS", *streams, *streams.values())
        answers: list[Any] = []
        try:
            answers = await self._send(link, [reading] if command is None else [reading, command])
            for answer in answers:
                if isinstance(answer, StoreUnavailable):
                    raise answer
        except (StoreUnavailable, Refusal) as error:
            log.get("jobs").warning("cannot listen to redis", error=str(error), again_in_s=_PAUSE_S)
            await asyncio.sleep(_PAUSE_S)
            return None
        finally:
            del self._busy[link]
            sound = len(answers) and not any(isinstance(answer, Exception) for answer in answers)
            if sound and len(self._idle) < _IDLE and not self._closed:
                self._idle.append(link)
            else:
                await link.close()
        return await self._judge(answers, command)

    async def _judge(self, answers: list[Any], command: Sequence[Argument] | None) -> Any | None:
        """Return the answer to the command; pause where the reading was refused, which would go round for ever."""
        reading, answer = answers[0], answers[-1] if command is not None else None
        if isinstance(reading, Refusal):
            if not leads_elsewhere(reading):
                log.get("jobs").warning("cannot listen to redis", error=str(reading), again_in_s=_PAUSE_S)
            await asyncio.sleep(_SPLIT_S if leads_elsewhere(reading) else _PAUSE_S)
        return None if isinstance(answer, Refusal) else answer

    async def _send(self, link: Link, commands: list[Sequence[Argument]]) -> list[Any]:
        futures: list[Any] = []
        for command in commands:
            future = link.send(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]  # see `Wire.call`
            if future is None and not futures:
                await link.connect()
                future = link.send(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]  # the same
            if future is None:
                raise StoreUnavailable("the connection to redis was lost")
            futures.append(future)
        with suppress(StoreUnavailable, Refusal):  # they are told below
            await futures[-1]  # answered last, whatever becomes of the others
        return [future.exception() or future.result() for future in futures]

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

    def __len__(self) -> int:
        return len(self._busy)

    def __repr__(self) -> str:
        return f"<Lanes [{len(self._busy)} waiting, {len(self._idle)} idle]>"
