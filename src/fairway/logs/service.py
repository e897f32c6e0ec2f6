"""Follows every log file in the daemon: one watcher, one follower a file that somebody reads, one fan-in channel.

::

    watcher ──wake──> follower web.1 ──┐
       │    ──wake──> follower web.2 ──┼── channel ──> collector ──> bounded queue a subscriber
       └─ index of arrival times       │               (drops its oldest when full)
            ──wake──> follower …     ──┘

The watcher looks at sizes: ten times a second while somebody subscribes, else once, which costs an idle daemon a few
system calls. Without subscribers no file is read at all; the index of arrival times needs sizes only. Files are the
durable buffer: a subscriber that lost lines reads them again from its cursor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.concurrency import Chan, RecvChan, select
from fairway.logs.follow import Followed, end_of_lines
from fairway.logs.line import Lister, LogFile, LogLine, file_name, format_cursor, parse_cursor
from fairway.logs.query import Query, history
from fairway.logs.tail import Tail, unlink_quietly
from fairway.logs.times import TimesWriter, index_path
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context

_FAN_IN = 64


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Now: `files`, `followed`, `subscribers`. Ever: `lines` delivered, `dropped` by full queues, `bytes` of growth."""

    files: int
    followed: int
    subscribers: int
    lines: int
    dropped: int
    bytes: int


@dataclass(slots=True)
class _Watched:
    """One file as the watcher knows it."""

    file: LogFile
    path: str  # a text: it is looked at every second
    size: int = -1
    mtime_ns: int = 0
    index: TimesWriter | None = None
    followed: Followed | None = None
    wake: Chan[None] | None = None


class LogSubscription:
    """One reader's lines, live: ``async for batch in subscription``; as a context manager it ends with the block.

    Attributes:
        query: Which lines.
        begins: File name to the offset at which live lines begin; `LogService.history` gives what is before.
        dropped: Lines lost because the reader was slower than its queue is long.
    """

    def __init__(self, service: LogService, query: Query, begins: dict[str, int], queue: int) -> None:
        self.query = query
        self.begins = begins
        self.dropped = 0
        self._service = service
        self._chan: Chan[list[LogLine]] = Chan(queue)
        self._positions = dict(begins)

    @property
    def batches(self) -> RecvChan[list[LogLine]]:
        """The channel itself, for `select`; whoever receives from it calls `seen` with what came."""
        return self._chan.receiver

    @property
    def cursor(self) -> str:
        """The position behind the last line that was received, to resume from."""
        return format_cursor(self._positions)

    def seen(self, lines: list[LogLine]) -> None:
        """Move the cursor behind `lines`."""
        for line in lines:
            self._positions[line.file] = line.end

    def close(self) -> None:
        """End the subscription; a second time does nothing."""
        self._service._unsubscribe(self)

    def __enter__(self) -> LogSubscription:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __aiter__(self) -> LogSubscription:
        return self

    async def __anext__(self) -> list[LogLine]:
        batch, ok = await self._chan.recv_ok()
        if not ok or batch is None:
            raise StopAsyncIteration
        self.seen(batch)
        return batch

    def _offer(self, lines: list[LogLine]) -> int:
        """Queue the lines that are asked for; returns how many older ones had to go."""
        wanted = [line for line in lines if line.offset >= self.begins.get(line.file, 0) and self.query.wants(line)]
        if not wanted or self._chan.try_send(wanted):
            return 0
        oldest = self._chan.try_recv()
        lost = len(oldest[0]) if oldest is not None and oldest[0] is not None else 0
        self._chan.try_send(wanted)
        self.dropped += lost
        return lost


class LogService:
    """Every log file of the platform: history from the files, live lines through channels.

    Args:
        files: Lists the files that there are now.
        clock: Where time comes from.
        busy: Seconds between two looks while somebody subscribes.
        idle: Seconds between two looks otherwise.
        write_index: Keep the index of arrival times; exactly one process may.
    """

    def __init__(
        self,
        files: Lister,
        *,
        clock: Clock = SYSTEM_CLOCK,
        busy: float = 0.1,
        idle: float = 1.0,
        write_index: bool = True,
    ) -> None:
        self._files = files
        self._clock = clock
        self._busy, self._idle = busy, idle
        self._write_index = write_index
        self._watched: dict[str, _Watched] = {}
        self._subscriptions: set[LogSubscription] = set()
        self._fan_in: Chan[list[LogLine]] = Chan(_FAN_IN)
        self._kick: Chan[None] = Chan(1)
        self._group: asyncio.TaskGroup | None = None
        self._followers: set[asyncio.Task[None]] = set()
        self._scanned = float("-inf")
        self._listed: tuple[LogFile, ...] | None = None
        self._lines = self._dropped = self._bytes = 0

    def history(
        self, query: Query, *, ends: dict[str, int] | None = None, after: str | None = None
    ) -> Iterator[LogLine]:
        """Yield what the files hold; blocking reads, so call it in a thread from a loop.

        Args:
            query: Which lines.
            ends: Where to stop, as `LogSubscription.begins`.
            after: A cursor: only what is behind it. A file that it does not name is new and read from its start.
        """
        files = [file for file in self._files() if query.wants_file(file)]
        starts = None
        if after:
            known = parse_cursor(after)
            starts = {file_name(file): known.get(file_name(file), 0) for file in files}
        return history(files, query, ends=ends, starts=starts)

    def subscribe(self, query: Query, *, queue: int = 256) -> LogSubscription:
        """Return the lines from now on.

        Args:
            query: Which lines; `tail` does not matter here.
            queue: Batches that may wait; a reader that falls behind further loses the oldest, counted in `dropped`.
        """
        begins = {}
        for file in self._files():
            if query.wants_file(file):
                watched = self._watched.get(file_name(file))
                live = watched.followed if watched is not None else None
                begins[file_name(file)] = live.tail.checkpoint if live is not None else end_of_lines(file)
        subscription = LogSubscription(self, query, begins, max(1, queue))
        self._subscriptions.add(subscription)
        self._scanned, self._listed = float("-inf"), None
        self._kick.try_send(None)
        return subscription

    def statistics(self) -> LogStatistics:
        """Return counters since the start."""
        followed = sum(1 for watched in self._watched.values() if watched.followed is not None)
        return LogStatistics(
            len(self._watched), followed, len(self._subscriptions), self._lines, self._dropped, self._bytes
        )

    def __repr__(self) -> str:
        return f"<LogService [{len(self._watched)} files, {len(self._subscriptions)} subscribers]>"

    async def run(self, ctx: Context) -> None:
        """Watch until `ctx` is done, then end every subscription. To be run once."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            collector = group.create_task(self._collect(), name="log-collector")
            try:
                while True:
                    self._look()
                    pause = self._busy if self._subscriptions else self._idle
                    chosen, _, _ = await select(ctx.done().on_recv(), self._kick.on_recv(), timeout=pause)
                    if chosen == 0:
                        break
            finally:
                self._group = None
                self._look()  # what came last has its time, too
                for watched in self._watched.values():
                    self._close_index(watched)
                for follower in list(self._followers):
                    follower.cancel()
                for subscription in list(self._subscriptions):
                    self._unsubscribe(subscription)
                collector.cancel()

    def _unsubscribe(self, subscription: LogSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            self._listed = None
            subscription._chan.close()

    # -- the watcher -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._scanned >= self._idle:
            self._scanned = now
            self._scan()
        for name, watched in list(self._watched.items()):
            try:
                stat = os.stat(watched.path)
            except FileNotFoundError:
                self._forget(name, watched)
                continue
            if (stat.st_size, stat.st_mtime_ns) != (watched.size, watched.mtime_ns):
                self._bytes += max(0, stat.st_size - max(0, watched.size))
                watched.size, watched.mtime_ns = stat.st_size, stat.st_mtime_ns
                self._index(watched)
            elif watched.followed is None or watched.followed.tail.position == watched.followed.tail.checkpoint:
                continue
            if watched.wake is not None:
                watched.wake.try_send(None)

    def _scan(self) -> None:
        files = self._files()
        if files is self._listed:  # nothing new, and nobody new who reads it
            return
        self._listed = files if isinstance(files, tuple) else None  # a list may be another one's to change
        there = {file_name(file): file for file in files}
        for name, file in there.items():
            watched = self._watched.get(name)
            if watched is None:
                watched = self._watched[name] = _Watched(file, os.fspath(file.path))
            wanted = any(subscription.query.wants_file(file) for subscription in self._subscriptions)
            if wanted and watched.followed is None:
                self._follow(name, watched)
            elif not wanted and watched.followed is not None:
                self._unfollow(watched)
        for name in self._watched.keys() - there.keys():
            self._forget(name, self._watched[name])

    def _index(self, watched: _Watched) -> None:
        if not self._write_index:
            return
        try:
            if watched.index is None:
                watched.index = TimesWriter(watched.file.path)
            watched.index.record(watched.size, watched.mtime_ns)
        except OSError as error:
            # A full disk costs the exactness of times, never the daemon; the next growth tries again.
            self._close_index(watched)
            log.get("logs").warning("no index of arrival times", file=str(watched.file.path), error=str(error))

    def _close_index(self, watched: _Watched) -> None:
        if watched.index is not None:
            watched.index.close()
            watched.index = None

    def _forget(self, name: str, watched: _Watched) -> None:
        self._watched.pop(name, None)
        self._unfollow(watched)
        self._close_index(watched)
        if self._write_index:
            unlink_quietly(index_path(watched.file.path))

    # -- followers and the collector -------------------------------------------------------------------------

    def _follow(self, name: str, watched: _Watched) -> None:
        if self._group is None:
            return
        # Every subscriber says where its live lines begin; the follower begins where the first of them does.
        begins = [
            subscription.begins.get(name, 0)
            for subscription in self._subscriptions
            if subscription.query.wants_file(watched.file)
        ]
        watched.followed = Followed(watched.file, Tail(watched.file.path, min(begins, default=0)))
        watched.wake = Chan(1)
        task = self._group.create_task(self._read(watched.followed, watched.wake), name=f"log-follower {name}")
        self._followers.add(task)
        task.add_done_callback(self._followers.discard)

    def _unfollow(self, watched: _Watched) -> None:
        if watched.wake is not None:
            watched.wake.close()  # the follower reads to the end of its file, then ends
        watched.followed = watched.wake = None

    async def _read(self, followed: Followed, wake: Chan[None]) -> None:
        try:
            open_still = True
            while True:
                lines = followed.read(self._clock.monotonic())
                if lines:
                    await self._fan_in.send(lines)
                elif not open_still:
                    return
                else:
                    _, open_still = await wake.recv_ok()
        finally:
            followed.tail.close()

    async def _collect(self) -> None:
        async for lines in self._fan_in:
            self._lines += len(lines)
            for subscription in self._subscriptions:
                if subscription.query.wants_app(lines[0].app):
                    self._dropped += subscription._offer(lines)
