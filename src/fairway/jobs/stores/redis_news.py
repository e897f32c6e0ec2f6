"""Readers that wait on Redis for the end of a job.

One connection reads the queues' `ended` streams (``XREAD BLOCK`` of two seconds, never for ever) on behalf of all of
them. Nothing can be missed between asking and waiting: whoever asked in vain was told the newest entry of the stream at
that moment, and does not wait if the listener has read on since.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.stores.redis_keys import Keys
from fairway.jobs.stores.redis_link import Link
from fairway.resp import Address
from fairway.telemetry import log

BLOCK_MS = 2000
_MANY_QUEUES = 100
_PAUSE_S = 0.5  # between two tries while Redis is away
Mark = tuple[int, int]


class Woken(enum.Enum):
    """Why a wait ended."""

    NEWS = "news"
    CLOSED = "closed"


class _Waiter:
    __slots__ = ("future", "job")

    def __init__(self, job: tuple[str, bytes]) -> None:
        self.job = job
        self.future: asyncio.Future[Woken | None] = asyncio.get_running_loop().create_future()


def parse_mark(mark: bytes) -> Mark:
    """Return a stream id as something that can be compared."""
    ms, _, n = mark.partition(b"-")
    return int(ms), int(n)


class News:
    """The waiters and their listener. One event loop.

    Args:
        places: Tells where Redis is; the listener has a connection of its own, since it blocks.
        keys: The store's names.
    """

    def __init__(self, places: Callable[[], Sequence[Address]], keys: Keys) -> None:
        self._places = places
        self._keys = keys
        self._seen: dict[str, Mark] = {}
        self._doubted: dict[str, Mark] = {}
        self._waiters: dict[_Waiter, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._ended: set[asyncio.Task[None]] = set()
        self._more = False  # a queue was added that the read under way does not cover
        self._closed = False

    async def wait(self, job: tuple[str, bytes], mark: Mark, timeout_s: float) -> Woken | None:
        """Wait for the end of `job`, queue and seq, in news of its queue newer than `mark`; None after `timeout_s`."""
        if self._closed:
            return Woken.CLOSED
        if self._is_stale(job[0], mark):
            return Woken.NEWS
        waiter = _Waiter(job)
        self._waiters[waiter] = None
        self._listen_on()
        timer = asyncio.get_running_loop().call_later(timeout_s, _settle, waiter, None)
        try:
            return await waiter.future
        finally:
            timer.cancel()
            del self._waiters[waiter]

    def _is_stale(self, queue: str, mark: Mark) -> bool:
        """Whether the listener has read news that came after `mark`; learn the mark of a queue that is new here."""
        seen = self._seen.get(queue)
        if seen is None:
            self._seen[queue] = mark
            self._more = True
        elif mark < seen:
            if self._doubted.get(queue) != mark:
                self._doubted[queue] = mark
                return True
            # Told the same twice: the stream is another one since everything was flushed.
            self._seen[queue] = mark
            self._more = True
        return False

    def _listen_on(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name="redis-news")
            self._more = False
        elif self._more:
            self._more = False
            self._end_listening()
            self._task = asyncio.create_task(self._listen(), name="redis-news")

    async def _listen(self) -> None:
        """Read until cancelled; a connection that blocks is of no use to the next reader and is dropped."""
        link = Link(self._places(), patience=BLOCK_MS / 1000 + 5.0)
        try:
            while True:
                self._forget()
                queues = list(self._seen)
                if not queues:
                    return  # the next wait begins anew
                streams = [self._keys.ended(queue) for queue in queues]
                marks = ["{}-{}".format(*self._seen[queue]) for queue in queues]
                try:
                    news = await link.command("XREAD", "COUNT", 1000, "BLOCK", BLOCK_MS, "STREAMS", *streams, *marks)
                except StoreUnavailable as error:
                    log.get("jobs").warning("cannot listen to redis", error=str(error), again_in_s=_PAUSE_S)
                    await asyncio.sleep(_PAUSE_S)
                    self._wake_all(Woken.NEWS)
                    continue
                named = {self._keys.ended(queue).encode(): queue for queue in queues}
                for stream, entries in news or ():
                    self._take(named[stream], entries)
        finally:
            await link.close()

    def _forget(self) -> None:
        """Stop reading for queues that nobody waits for, once there are many."""
        if len(self._seen) > _MANY_QUEUES:
            wanted = {waiter.job[0] for waiter in self._waiters}
            self._seen = {queue: mark for queue, mark in self._seen.items() if queue in wanted}
            self._doubted.clear()

    def _take(self, queue: str, entries: list[tuple[bytes, list[bytes]]]) -> None:
        self._seen[queue] = parse_mark(entries[-1][0])
        final = {(queue, seq) for _, (_, seq) in entries}
        for waiter in list(self._waiters):
            if waiter.job in final:
                _settle(waiter, Woken.NEWS)

    def _wake_all(self, why: Woken) -> None:
        for waiter in list(self._waiters):
            _settle(waiter, why)

    async def close(self) -> None:
        """End every wait and the listener. Idempotent."""
        self._closed = True
        self._wake_all(Woken.CLOSED)
        self._end_listening()
        await asyncio.gather(*self._ended, return_exceptions=True)

    def _end_listening(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._ended.add(self._task)
            self._task.add_done_callback(self._ended.discard)
            self._task = None

    def __len__(self) -> int:
        return len(self._waiters)

    def __repr__(self) -> str:
        return f"<News [{len(self._waiters)} waiting, {len(self._seen)} queues]>"


def _settle(waiter: _Waiter, why: Woken | None) -> None:
    if not waiter.future.done():
        waiter.future.set_result(why)
