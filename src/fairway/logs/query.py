"""Answers from the files alone: the last n lines, the lines since a time, those that contain a text.

Nothing is loaded whole: a tail is read backwards in blocks, a span of time forwards from where the index says it
begins, and files are merged as streams.
"""

from __future__ import annotations

import heapq
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

import msgspec

from fairway.errors import FairwayError
from fairway.logs import structured
from fairway.logs.assembler import MAX_LINE, LineAssembler, RawLine
from fairway.logs.line import LogFile, LogLine, file_name
from fairway.logs.tail import next_data
from fairway.logs.times import Times, load

_BLOCK = 64 * 1024
_TICK = 0.02


class LogQueryError(FairwayError):
    """What is asked for cannot be understood."""

    code = "logs.query"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for.

    Attributes:
        apps: Names of apps; empty for all but Fairway's own, whose names start with an underscore.
        since: Only lines that have arrived at or after this Unix time, or None.
        until: Only lines before this Unix time, or None.
        match: Only lines for whose text this is true, or None.
        tail: Only the last so many of them, or None for all.
    """

    apps: frozenset[str] = frozenset()
    since: float | None = None
    until: float | None = None
    match: Callable[[str], bool] | None = None
    tail: int | None = None

    def wants_file(self, file: LogFile) -> bool:
        """Say whether lines of this file are asked for."""
        return self.wants_app(file.app)

    def wants_app(self, app: str) -> bool:
        """Say whether lines of this app are asked for."""
        return app in self.apps if self.apps else not app.startswith("_")

    def wants(self, line: LogLine) -> bool:
        """Say whether this line, of a file that is asked for, is."""
        if self.since is not None and line.time < self.since:
            return False
        if self.until is not None and line.time >= self.until:
            return False
        return self.match is None or self.match(line.text)


def containing(text: str) -> Callable[[str], bool]:
    """Return a matcher for lines that contain `text`, whatever its case: linear, safe to take from a stranger."""
    wanted = text.casefold()
    return lambda line: wanted in line.casefold()


def matching(pattern: str, *, ignore_case: bool = False) -> Callable[[str], bool]:
    """Return a matcher for a regular expression; for the owner's own terminal, as some expressions never end.

    Raises:
        re.error: It is not one.
    """
    found = re.compile(pattern, re.IGNORECASE if ignore_case else 0).search
    return lambda line: found(line) is not None


def parse_since(text: str, now: float) -> float:
    """Return the Unix time that `text` names: an age (``90``, ``30s``, ``10m``, ``2h``, ``1d``), ISO 8601, or itself.

    Args:
        text: As typed; a time without a zone is local.
        now: Unix time that ages count back from.

    Raises:
        LogQueryError: It is none of these.
    """
    text = text.strip()
    if match := re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([smhdw]?)", text):
        number = float(match[1])
        if not match[2] and number >= 1e9:
            return number
        return now - number * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise LogQueryError(
            f"Expected a time or an age, got {text[:80]!r}.",
            hint="Write it like 10m, 2h, 2026-01-31T12:00 or Unix seconds.",
        ) from None


def history(
    files: Iterable[LogFile], query: Query, *, ends: dict[str, int] | None = None, starts: dict[str, int] | None = None
) -> Iterator[LogLine]:
    """Yield the lines that `query` asks for, ascending by time; lines of one file stay in their order.

    Args:
        files: Files to look into.
        query: What is asked for.
        ends: File name to the offset at which to stop, for a reader that follows from there on.
        starts: File name to the offset at which to begin, for a reader that resumes.

    Files that vanish meanwhile are left out. Memory: one block and one line a file, and `tail` lines.
    """
    wanted = [file for file in files if query.wants_file(file)]
    sources = [
        _lines_of(file, query, (ends or {}).get(file_name(file)), (starts or {}).get(file_name(file)))
        for file in wanted
    ]
    merged = heapq.merge(*sources, key=attrgetter("time"))
    yield from deque(merged, maxlen=query.tail) if query.tail is not None else merged


def to_line(file: LogFile, raw: RawLine, arrival: tuple[float, float]) -> LogLine:
    """Return a raw line as a log line; a time that it tells itself counts where it lies within its arrival's bounds."""
    said = structured.read(raw.data)
    earliest, latest = arrival
    # Slack: an app takes its time before it writes, and the kernel stamps files with the clock of its last tick.
    told = said.time if said.time is not None and earliest - 0.5 <= said.time <= latest + _TICK else None
    return LogLine(
        app=file.app,
        instance=f"{file.process}.{file.number}",
        offset=raw.start,
        end=raw.end,
        time=latest if told is None else told,
        text=raw.text,
        level=said.level,
        message=said.message,
        truncated=raw.truncated,
        partial=raw.partial,
    )


def _lines_of(file: LogFile, query: Query, end: int | None, start: int | None) -> Iterator[LogLine]:
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        times = load(file.path)
        size = os.fstat(fd).st_size
        stop = size if end is None else min(end, size)
        if query.tail is not None and start is None:
            yield from _last(fd, file, times, query, stop)
            return
        begin = start if start is not None else 0
        if query.since is not None:
            begin = max(begin, times.start_of(query.since))
        previous = 0.0
        for raw in _forward(fd, begin, stop):
            line = to_line(file, raw, times.arrival(raw.end))
            # Lines of one file keep their order, whatever times they tell.
            if line.time < previous:
                line = msgspec.structs.replace(line, time=previous)
            previous = line.time
            if query.wants(line):
                yield line
    finally:
        os.close(fd)


def _last(fd: int, file: LogFile, times: Times, query: Query, stop: int) -> Iterator[LogLine]:
    """Yield the last `query.tail` lines of one file that are asked for, oldest first."""
    assert query.tail is not None
    found: list[LogLine] = []
    floor = times.start_of(query.since) if query.since is not None else 0
    following = float("inf")
    for raw in _backward(fd, stop):
        if len(found) >= query.tail or raw.end <= floor:
            break
        line = to_line(file, raw, times.arrival(raw.end))
        if line.time > following:
            line = msgspec.structs.replace(line, time=following)
        following = line.time
        if query.wants(line):
            found.append(line)
    yield from reversed(found)


def _forward(fd: int, begin: int, stop: int) -> Iterator[RawLine]:
    """Yield the lines of [begin, stop), the first one whole even where `begin` lies within it."""
    begin = line_start(fd, min(begin, stop))
    assembler = LineAssembler(begin)
    while assembler.position < stop:
        position = assembler.position
        data_at = next_data(fd, position, stop)
        if data_at >= stop:
            return
        if data_at > position:
            assembler.restart(data_at, resync=True)
        data = os.pread(fd, min(_BLOCK, stop - data_at), data_at)
        if not data:
            break
        yield from assembler.feed(data)
    rest = assembler.flush()
    if rest is not None:
        yield rest


def line_start(fd: int, offset: int) -> int:
    """Return the start of the line that holds the byte at `offset`; reads backwards, keeps nothing."""
    at = offset
    while at > 0:
        begin = max(0, at - _BLOCK)
        newline = os.pread(fd, at - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        at = begin
    return 0


def _backward(fd: int, stop: int) -> Iterator[RawLine]:
    """Yield the lines before `stop`, last first, in windows read from the end; ends at a hole.

    A window begins behind a newline. One without any is doubled until it is clear that the line is over the cap.
    """
    end, window = stop, _BLOCK
    while end > 0:
        begin = max(0, end - window)
        data_at = min(next_data(fd, begin, end), end)
        in_hole = data_at > begin
        data = os.pread(fd, end - data_at, data_at)
        skip = 0
        if begin > 0 and not in_hole:
            skip = data.find(b"\n", 0, len(data) - 1) + 1
            if skip == 0 and window < 4 * MAX_LINE:
                window *= 2
                continue
        start = data_at + skip if skip or begin == 0 or in_hole else line_start(fd, begin)
        assembler = LineAssembler(start, resync=in_hole)
        if start < data_at:
            # Far over the cap: its head is all that is wanted, the middle is counted and not kept.
            assembler.feed_long(os.pread(fd, MAX_LINE, start), data_at - start)
        lines = assembler.feed(data[skip:])
        rest = assembler.flush()
        if rest is not None:
            yield rest
        yield from reversed(lines)
        if in_hole:
            return
        end, window = start, _BLOCK
