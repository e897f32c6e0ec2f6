"""Follows one file from an offset: what it has grown by, as lines; told apart from another file of the same name.

Fairway's own log files are never renamed or truncated (`fairway.platform.layout`), files of others are. Identity is
device, inode and a fingerprint of the first bytes: an inode alone is reused and then swallows the new file's head.

- Renamed and made anew: the old descriptor is read to its end, and once more at the next look, then the new file from
  its start.
- Truncated: smaller than the position, or the first bytes differ: from the start. What was written between the last
  look and a copy-and-truncate is gone; no reader can get it back.
- Head given back to the disk (a hole): what is left is read from its first whole line on.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from fairway.logs.assembler import MAX_LINE, LineAssembler, RawLine

BLOCK = 256 * 1024
FINGERPRINT = 256


class Tail:
    """One file that is followed.

    Args:
        path: The file; it need not exist yet.
        offset: Where to begin; None for its end as it is now.
        max_line: Bytes of a line that are kept.
    """

    __slots__ = ("_assembler", "_fd", "_fingerprint", "_identity", "_leaving", "_start_at", "generation", "path")

    def __init__(self, path: Path, offset: int | None = 0, *, max_line: int = MAX_LINE) -> None:
        self.path = path
        self.generation = 0
        self._start_at = offset
        self._assembler = LineAssembler(max_line=max_line)
        self._fd = -1
        self._identity = (0, 0)
        self._fingerprint = b""
        self._leaving = False
        self._open()

    @property
    def position(self) -> int:
        """Offset of the next byte to read."""
        return self._assembler.position

    @property
    def checkpoint(self) -> int:
        """Offset from which another reader has to begin to miss nothing: the start of the unfinished line."""
        return self._assembler.start

    def read(self) -> list[RawLine]:
        """Return the lines that have been finished since the last call, at most one block's worth; [] for none.

        Call again until it returns nothing. `generation` counts up whenever another file has taken the name.
        """
        if self._fd < 0 and not self._open():
            return []
        size = os.fstat(self._fd).st_size
        if self._was_rewritten(size):
            self.generation += 1
            self._assembler.restart(0)
            self._fingerprint = b""
        if size > self.position:
            self._leaving = False
            return self._read_block(size)
        if self._was_replaced():
            if not self._leaving:
                # Whoever renamed it may still write to it: one more look before it is left.
                self._leaving = True
                return []
            # Nothing more came through the old descriptor: what stood without a newline is all there will be.
            rest = self._assembler.flush()
            self.close()
            self.generation += 1
            self._start_at = 0
            self._open()
            return [rest] if rest is not None else self.read()
        return []

    def flush(self) -> RawLine | None:
        """Return what stands without a newline, marked partial, and go on behind it; None where nothing does."""
        return self._assembler.flush()

    def close(self) -> None:
        """Close the file; `read` opens it again by its name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __repr__(self) -> str:
        return f"<Tail {self.path.name} at {self.position}>"

    def _open(self) -> bool:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        stat = os.fstat(fd)
        self._fd = fd
        self._leaving = False
        self._identity = (stat.st_dev, stat.st_ino)
        self._fingerprint = os.pread(fd, FINGERPRINT, 0)
        start = stat.st_size if self._start_at is None else min(self._start_at, stat.st_size)
        within = start > 0 and os.pread(fd, 1, start - 1) != b"\n"
        # Begun at its end, a line that is half written belongs to before; begun at an offset, to whoever gave it.
        self._assembler.restart(start, resync=within and self._start_at is None)
        return True

    def _was_rewritten(self, size: int) -> bool:
        if size < self.position:
            return True
        if len(self._fingerprint) < FINGERPRINT:
            grown = os.pread(self._fd, FINGERPRINT, 0)
            same = grown.startswith(self._fingerprint) or not grown.strip(b"\0")
            self._fingerprint = grown if same else self._fingerprint
            return not same
        if size == self.position:
            return False
        head = os.pread(self._fd, FINGERPRINT, 0)
        if head == self._fingerprint:
            return False
        if not head.strip(b"\0"):
            self._fingerprint = head  # the head became a hole; the rest is the same file
            return False
        return True

    def _was_replaced(self) -> bool:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (stat.st_dev, stat.st_ino) != self._identity

    def _read_block(self, size: int) -> list[RawLine]:
        position = self.position
        data_at = next_data(self._fd, position, size)
        if data_at > position:
            self._assembler.restart(data_at, resync=True)
            position = data_at
        data = os.pread(self._fd, BLOCK, position)
        return self._assembler.feed(data) if data else []


def next_data(fd: int, offset: int, size: int) -> int:
    """Return the first offset >= `offset` that is not in a hole, `size` where only a hole follows.

    Where the file system cannot tell, `offset` itself.
    """
    seek_data = getattr(os, "SEEK_DATA", None)
    if seek_data is None:
        return offset
    try:
        return os.lseek(fd, offset, seek_data)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset


def unlink_quietly(path: Path) -> None:
    """Delete a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
