"""A log line as a value, the file it comes from, and what a reader asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

Level = Literal["trace", "debug", "info", "warn", "error", "fatal"]


class LogFile(Protocol):
    """One instance's log file, as the platform's layout lists them."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def app(self) -> str:
        """Name of the app."""
        ...

    @property
    def process(self) -> str:
        """Name of the process, such as ``web``."""
        ...

    @property
    def number(self) -> int:
        """Number of the instance; never used twice for one app and process."""
        ...


Lister = Callable[[], Iterable[LogFile]]


class LogLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line.

    Attributes:
        app: Name of the app.
        instance: ``PROCESS.NUMBER``.
        offset: Index of its first byte in the file; with `app` and `instance` it identifies the line for ever.
        end: Index of the byte after it, the newline included: where a reader that has seen it goes on.
        time: Unix time of its arrival, or the time that the line itself tells where that is more exact.
        text: The line without its newline; bytes that are not UTF-8 became U+FFFD.
        level: Level of a JSON line, or None.
        message: Message of a JSON line, or None.
        truncated: Whether it was longer than the cap and lost its end.
        partial: Whether its newline had not come yet.
    """

    app: str
    instance: str
    offset: int
    end: int
    time: float
    text: str
    level: Level | None = None
    message: str | None = None
    truncated: bool = False
    partial: bool = False

    @property
    def file(self) -> str:
        """Name of the file within the log folder: ``APP/PROCESS.NUMBER``."""
        return f"{self.app}/{self.instance}"


def file_name(file: LogFile) -> str:
    """Return ``APP/PROCESS.NUMBER``, the name under which cursors know a file."""
    return f"{file.app}/{file.process}.{file.number}"


def format_cursor(positions: dict[str, int]) -> str:
    """Return the id of a position in several files: ``go-api/web.1=120,go-api/web.2=0``."""
    return ",".join(f"{name}={offset}" for name, offset in sorted(positions.items()))


def parse_cursor(text: str) -> dict[str, int]:
    """Return the positions in `text`; parts that are not of that form are left out, as from an older server."""
    positions: dict[str, int] = {}
    for part in text.split(","):
        name, _, offset = part.rpartition("=")
        if name and offset.isascii() and offset.isdigit() and len(offset) < 19:
            positions[name] = int(offset)
    return positions
