"""Bytes into lines: newlines, a cap on length, holes, and a last line that has no newline yet.

A line keeps the offset of its first byte, so that a reader can go on exactly behind any line it has seen.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LINE = 64 * 1024
# A run of NULs of this length is a hole that the file system has no name for; no app prints that.
_HOLE = 512


class RawLine(NamedTuple):
    """Bytes of one line without its newline, at [start, end) of the file; `end` counts the newline."""

    start: int
    end: int
    data: bytes
    truncated: bool = False
    partial: bool = False

    @property
    def text(self) -> str:
        """The bytes as text; what is not UTF-8 becomes U+FFFD, a carriage return at the end goes."""
        return self.data.removesuffix(b"\r").decode("utf-8", "replace")


class LineAssembler:
    """Takes consecutive pieces of one file and gives its lines.

    Args:
        offset: Where in the file the first piece begins.
        max_line: Bytes of a line that are kept; the rest is dropped up to its newline and the line marked.
        resync: Drop everything up to the first newline: the first piece may begin within a line.
    """

    __slots__ = ("_dropped", "_held", "_max", "_resync", "_start")

    def __init__(self, offset: int = 0, *, max_line: int = MAX_LINE, resync: bool = False) -> None:
        self._max = max_line
        self._start = offset
        self._held = b""
        self._dropped = 0
        self._resync = resync

    @property
    def start(self) -> int:
        """Offset of the first byte of the unfinished line: what a checkpoint has to keep."""
        return self._start

    @property
    def position(self) -> int:
        """Offset of the next byte that `feed` expects."""
        return self._start + len(self._held) + self._dropped

    def feed(self, data: bytes) -> list[RawLine]:
        """Take the next piece and return the lines that it ends."""
        pieces = data.split(b"\n")
        if len(pieces) == 1:
            self._hold(data)
            return []
        lines: list[RawLine] = []
        self._hold(pieces[0])
        self._finish(lines)
        start, limit = self._start, self._max
        for piece in pieces[1:-1]:
            end = start + len(piece) + 1
            if len(piece) > limit or (piece and piece[0] == 0):
                self._start = start
                self._hold(piece)
                self._finish(lines)
            else:
                lines.append(RawLine(start, end, piece))
            start = end
        self._start = start
        self._hold(pieces[-1])
        return lines

    def feed_long(self, head: bytes, length: int) -> None:
        """Take the next `length` bytes, none of them a newline, of which only `head` is known."""
        self._hold(head[:length])
        self._dropped += length - min(len(head), length)

    def flush(self) -> RawLine | None:
        """Return what stands without a newline as a partial line and go on behind it; None where nothing does."""
        position = self.position
        if position == self._start or self._resync:
            return None
        line = RawLine(self._start, position, _cut(self._held), self._dropped > 0, partial=True)
        self.restart(position)
        return line

    def restart(self, offset: int, *, resync: bool = False) -> None:
        """Go on at `offset`; with `resync`, behind the next newline."""
        self._start, self._held, self._dropped, self._resync = offset, b"", 0, resync

    def _hold(self, piece: bytes) -> None:
        room = self._max - len(self._held)
        if self._resync:
            self._dropped += len(piece)
        elif len(piece) <= room:
            self._held += piece
        else:
            self._held += piece[:room]
            self._dropped += len(piece) - room

    def _finish(self, lines: list[RawLine]) -> None:
        end = self.position + 1
        held, was_dropped = self._held, self._dropped > 0
        # What stands between a hole and the next newline is the tail of a line whose head is gone.
        headless = self._resync or held.startswith(b"\0" * _HOLE)
        if not headless:
            data = _cut(held) if was_dropped else held
            lines.append(RawLine(self._start, end, data, was_dropped))
        self.restart(end)


def _cut(data: bytes) -> bytes:
    """Return `data` without a UTF-8 sequence that was cut at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if back >= needed else data[:-back]
    return data
