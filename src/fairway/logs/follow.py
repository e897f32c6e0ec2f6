"""Follows files without a daemon and without an event loop: what `fairway logs -f` does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from fairway.logs.line import Lister, LogFile, LogLine, file_name
from fairway.logs.query import Query, line_start, to_line
from fairway.logs.tail import Tail

POLL = 0.1
SCAN = 1.0
PARTIAL_AFTER = 1.0


@dataclass(slots=True)
class Followed:
    """One followed file, told apart into lines with arrival times.

    Attributes:
        file: The file.
        tail: Its reader.
        grown_at: Monotonic time at which it was last seen to grow.
        seen_until: Unix time of the last write that was read.
    """

    file: LogFile
    tail: Tail
    grown_at: float = 0.0
    seen_until: float = 0.0

    def read(self, now: float) -> list[LogLine]:
        """Return the lines that have come since the last call, at most one block's worth.

        Args:
            now: Monotonic time: a line without a newline is given out as partial a second after it last grew.
        """
        try:
            written = os.stat(self.file.path).st_mtime
        except FileNotFoundError:
            written = time.time()
        position = self.tail.position
        lines = self.tail.read()
        if self.tail.position != position:
            self.grown_at = now
        elif not lines and now - self.grown_at >= PARTIAL_AFTER:
            rest = self.tail.flush()
            lines = [rest] if rest is not None else []
        if not lines:
            return []
        bounds = (self.seen_until, max(written, self.seen_until))
        self.seen_until = bounds[1]
        return [to_line(self.file, raw, bounds) for raw in lines]


def end_of_lines(file: LogFile) -> int:
    """Return the offset at which the unfinished last line of a file begins; its size where there is none."""
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return line_start(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def ends_of(files: Lister, query: Query) -> dict[str, int]:
    """Return, by file name, where history ends and following begins."""
    return {file_name(file): end_of_lines(file) for file in files() if query.wants_file(file)}


def follow(
    files: Lister, query: Query, ends: dict[str, int], *, wait: Callable[[float], None] = time.sleep
) -> Iterator[list[LogLine]]:
    """Yield what the files grow by, each time ascending by time; never ends.

    Args:
        files: Lists the files; asked once a second, so that new instances join.
        query: Which lines; its `tail` does not matter here.
        ends: File name to the offset to begin at; files that are not named begin at 0.
        wait: Waits between two looks, seconds.
    """
    followed: dict[str, Followed] = {}
    scanned = float("-inf")
    while True:
        now = time.monotonic()
        if now - scanned >= SCAN:
            scanned = now
            _rescan(files, query, ends, followed)
        found = [line for one in list(followed.values()) for line in one.read(now) if query.wants(line)]
        if found:
            yield sorted(found, key=attrgetter("time"))
        else:
            wait(POLL)


def _rescan(files: Lister, query: Query, ends: dict[str, int], followed: dict[str, Followed]) -> None:
    there = {file_name(file): file for file in files() if query.wants_file(file)}
    for name, file in there.items():
        if name not in followed:
            followed[name] = Followed(file, Tail(file.path, ends.get(name, 0)))
    for name in followed.keys() - there.keys():
        followed.pop(name).tail.close()
