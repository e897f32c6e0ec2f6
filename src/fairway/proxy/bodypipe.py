"""A body on its way through a middleware's channels.

The data path is callbacks, a middleware is coroutines. A pipe joins them: bytes go into a first channel, each stage
receives from one channel and sends into the next, and what comes out of the last is written. Every channel is small
and both ends hold their connection, so that a stage that does not keep up slows the sender down and nothing is
buffered whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from fairway.concurrency import Chan

Stage = Callable[[Chan[bytes], Chan[bytes]], Awaitable[None]]
"""Receives a body from its first channel and sends another into its second, which is closed when it returns."""

CAPACITY: Final = 4
HIGH_BYTES: Final = 64 * 1024


class BodyPipe:
    """One body. `feed` and `finish` never wait; `hold` is called where the sender has to.

    Args:
        hold: Called with True when the sender has to pause and with False when it may go on.
        emit: Takes a piece of the resulting body.
        end: Called once after the last piece, with the trailers.
        fail: Called once if a stage raises.
    """

    def __init__(
        self,
        hold: Callable[[bool], None],
        emit: Callable[[bytes], None],
        end: Callable[[bytes], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._hold = hold
        self._emit = emit
        self._end = end
        self._fail = fail
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._held = False
        self._trailers: bytes | None = None
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<BodyPipe waiting={self._size} ended={self._trailers is not None}>"

    def feed(self, data: bytes) -> None:
        """Take a piece of the original body."""
        self._waiting.append(data)
        self._size += len(data)
        if self._size > HIGH_BYTES and not self._held:
            self._held = True
            self._hold(True)
        self._more.set()

    def finish(self, trailers: bytes) -> None:
        """Take the end of the original body."""
        self._trailers = trailers
        self._more.set()

    def blocked(self, blocked: bool) -> None:
        """Pause or resume the output: the receiver does not keep up, or does again."""
        if blocked:
            self._writable.clear()
        else:
            self._writable.set()

    def start(self, stages: Sequence[Stage]) -> None:
        """Run the stages, or with none pass everything on as it is."""
        self._task = asyncio.get_running_loop().create_task(self._run(stages))

    def cancel(self) -> None:
        """End without a result; idempotent."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, stages: Sequence[Stage]) -> None:
        channels: list[Chan[bytes]] = [Chan(CAPACITY) for _ in range(len(stages) + 1)]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_into(channels[0]))
                for stage, source, sink in zip(stages, channels, channels[1:], strict=False):
                    group.create_task(_run_stage(stage, source, sink))
                async for piece in channels[-1]:
                    await self._writable.wait()
                    if piece:
                        self._emit(bytes(piece))
        except BaseExceptionGroup as group_error:
            self._fail(group_error.exceptions[0])
            return
        self._end(self._trailers or b"")

    async def _send_into(self, first: Chan[bytes]) -> None:
        while True:
            while self._waiting:
                data = self._waiting.popleft()
                await first.send(data)
                self._size -= len(data)
                if self._held and self._size <= HIGH_BYTES // 4:
                    self._held = False
                    self._hold(False)
            if self._trailers is not None:
                first.close()
                return
            self._more.clear()
            await self._more.wait()


async def _run_stage(stage: Stage, source: Chan[bytes], sink: Chan[bytes]) -> None:
    await stage(source, sink)
    if not sink.closed:
        sink.close()
    async for _ in source:  # what a stage leaves unread is read to its end, so that the sender finishes
        continue
