"""When which byte of a log file had arrived: a small index beside it, because raw output carries no time.

The index of ``web.1.log`` is ``web.1.times``: a header, then 16-byte records (size, nanoseconds): "so many bytes had
been written by then". The watcher appends one record a look at which the file had grown, with the file's own
modification time, which is that of its last write. A line has arrived between the record before its end and the record
after it.

What fails and what then happens (docs/adr/0002-arrival-times-in-a-sidecar.md has the reasons):

- The daemon is killed, the app writes on: no records for a while. The bytes of that gap lie between the last record
  before and the modification time at the next look, so nothing is lost and ``--since`` errs on the side of showing.
- A record is torn by a kill: its length gives it away, the next start cuts it off.
- The index is missing, belongs to another file or is damaged: it is started over; the file's modification time stands
  in for what it would have said.
- It grows: past 65,536 records (1 MiB) every second record of the older half goes, so old times get coarser.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

_MAGIC = b"FWTIMES1"
_HEADER = struct.Struct("<8sQQQ")  # magic, device, inode, reserved
_RECORD = struct.Struct("<QQ")
MAX_RECORDS = 65_536
_NS = 1e9


def index_path(log: Path) -> Path:
    """Return where the index of a log file lies."""
    return log.with_suffix(".times")


class Times:
    """A loaded index: answers when a byte had arrived and where a time begins.

    Args:
        sizes: File sizes, ascending.
        nanoseconds: When each had been reached, Unix time; as many.
        last: Unix time by which everything behind the last record had arrived.
    """

    __slots__ = ("_last", "_ns", "_sizes")

    def __init__(self, sizes: Iterable[int] = (), nanoseconds: Iterable[int] = (), last: float = 0.0) -> None:
        self._sizes = array("Q", sizes)
        self._ns = array("Q", nanoseconds)
        self._last = last

    def arrival(self, end: int) -> tuple[float, float]:
        """Return Unix times between which the line that ends at `end` has arrived: (earliest, latest)."""
        at = bisect_left(self._sizes, end)
        earliest = self._ns[at - 1] / _NS if at > 0 else 0.0
        latest = self._ns[at] / _NS if at < len(self._ns) else max(self._last, earliest)
        return earliest, latest

    def start_of(self, since: float) -> int:
        """Return an offset before which every byte had arrived before `since`: where a reader has to begin."""
        at = bisect_left(self._ns, int(since * _NS))
        return self._sizes[at - 1] if at > 0 else 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __repr__(self) -> str:
        return f"<Times [{len(self)} records]>"


def load(log: Path) -> Times:
    """Return the index of a log file as it is on disk; an empty one where there is none that fits."""
    try:
        stat = log.stat()
    except FileNotFoundError:
        return Times()
    sizes, ns = _read(index_path(log), stat)
    return Times(sizes, ns, last=stat.st_mtime)


class TimesWriter:
    """Appends to the index of one log file.

    Args:
        log: The log file; it has to exist.

    Raises:
        OSError: The index cannot be written.
    """

    __slots__ = ("_count", "_fd", "_last_ns", "_last_size", "_path")

    def __init__(self, log: Path) -> None:
        self._path = index_path(log)
        stat = log.stat()
        sizes, ns = _read(self._path, stat)
        self._count = len(sizes)
        self._last_size = sizes[-1] if sizes else 0
        self._last_ns = ns[-1] if ns else 0
        whole = _HEADER.size + _RECORD.size * self._count
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if self._count == 0:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, _HEADER.pack(_MAGIC, stat.st_dev, stat.st_ino, 0))
        elif os.fstat(self._fd).st_size != whole:
            os.ftruncate(self._fd, whole)

    def record(self, size: int, nanoseconds: int) -> bool:
        """Say that the file had `size` bytes at that Unix time; returns False where that is nothing new.

        A clock that was set back is held at the last record's time, so that the index stays sorted.
        """
        if size <= self._last_size:
            return False
        self._last_size, self._last_ns = size, max(nanoseconds, self._last_ns)
        os.write(self._fd, _RECORD.pack(size, self._last_ns))
        self._count += 1
        if self._count > MAX_RECORDS:
            self._thin_out()
        return True

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _thin_out(self) -> None:
        data = os.pread(self._fd, _HEADER.size + _RECORD.size * self._count, 0)
        header, body = data[: _HEADER.size], data[_HEADER.size :]
        records = [body[at : at + _RECORD.size] for at in range(0, len(body), _RECORD.size)]
        half = len(records) // 2
        # The later of each pair stays: it is the bound that no line of the two has passed.
        kept = records[1:half:2] + records[half:]
        staged = self._path.with_suffix(".times.new")
        staged.write_bytes(header + b"".join(kept))
        staged.chmod(0o600)
        staged.replace(self._path)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._count = len(kept)


def _read(path: Path, log: os.stat_result) -> tuple[array[int], array[int]]:
    """Return sizes and times of the valid records; none where the index is not that file's."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[:3] != (_MAGIC, log.st_dev, log.st_ino):
        return array("Q"), array("Q")
    whole = (len(data) - _HEADER.size) // _RECORD.size
    flat = array("Q", data[_HEADER.size : _HEADER.size + whole * _RECORD.size])
    if _BIG_ENDIAN:
        flat.byteswap()
    sizes, ns = flat[0::2], flat[1::2]
    valid = len(sizes)
    while valid and (sizes[valid - 1] > log.st_size or sizes[valid - 1] == 0):
        valid -= 1  # a file that shrank, or a tail of zeros after a power cut
    return sizes[:valid], ns[:valid]


_BIG_ENDIAN = struct.pack("=H", 1) == b"\0\1"
