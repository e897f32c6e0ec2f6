"""The log of one build: plain text without terminal sequences and without secrets, its last lines kept at hand."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 32 << 20
TAIL_LINES = 30
_LINE_CAP = 4000
_TAIL_CAP = 500
_SHORTEST_SECRET = 6
# CSI, OSC (ended by BEL or ST) and two-byte escapes, then whatever control characters are left.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(line: str) -> str:
    """Return a line as text: terminal sequences, control and direction characters removed.

    A carriage return starts the line over, as a progress bar does: what stood last is kept.

    >>> plain("\\x1b[32mok\\x1b[0m 1%\\r 100%")
    ' 100%'
    """
    text = _ESCAPES.sub("", line.rstrip("\r\n"))
    return _CONTROL.sub("", text.rpartition("\r")[2])[:_LINE_CAP]


class BuildLog:
    """Writes a build log, 0600; use as a context manager.

    Args:
        path: The file; made anew.
        secrets: Values that are replaced by ``***`` wherever they stand; those under six characters are left, for they
            would blank out half of the log without hiding anything.
    """

    def __init__(self, path: Path, secrets: Iterable[str] = ()) -> None:
        self.path = path
        self._secrets = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._written = 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> BuildLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, line: str) -> str:
        """Write one line and return it as it was written: plain, without secrets."""
        text = self.redact(plain(line))
        self._tail.append(text)
        data = f"{text}\n".encode("utf-8", "replace")
        if self._written <= MAX_BYTES:
            self._written += len(data)
            over = self._written > MAX_BYTES
            os.write(self._fd, b"fairway: the log is cut off here, it is over its limit\n" if over else data)
        return text

    def redact(self, text: str) -> str:
        """Return `text` with every known secret replaced by ``***``."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, blank ones left out, overlong ones cut."""
        return tuple(f"{line[:_TAIL_CAP]}…" if len(line) > _TAIL_CAP else line for line in self._tail if line.strip())

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __repr__(self) -> str:
        return f"<BuildLog {self.path} {self._written} bytes>"
