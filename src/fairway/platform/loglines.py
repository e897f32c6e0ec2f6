"""Small dealings with instances' log files: the last lines for an error message, and a line of Fairway's own."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

_TAIL_BYTES = 32 * 1024
_LINE_LIMIT = 1000


def size(path: Path) -> int:
    """Return the file's size in bytes, 0 if it is missing."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_lines(path: Path, count: int = 50, *, since: int = 0) -> tuple[str, ...]:
    """Return the last `count` lines that were written from byte offset `since` on, oldest first.

    Lines are cut at 1,000 characters and freed of control characters; a missing file has none.
    """
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(since, end - _TAIL_BYTES)
            file.seek(start)
            data = file.read(end - start)
    except OSError:
        return ()
    lines = data.decode("utf-8", "replace").split("\n")
    if start > since and len(lines) > 1:
        lines = lines[1:]  # its beginning was left out
    shown = [
        "".join(c if c.isprintable() or c == "\t" else "�" for c in line.rstrip("\r"))[:_LINE_LIMIT] for line in lines
    ]
    return tuple([line for line in shown if line][-count:])


def note(path: Path, text: str) -> None:
    """Append one line of Fairway's own to an instance's log, whole even while the instance writes (``O_APPEND``)."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"fairway: {stamp} {text}\n".encode())
    finally:
        os.close(fd)
