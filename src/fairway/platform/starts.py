"""How long apps took to get ready the last time, so that the slowest is started first: all are ready sooner then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec


class Starts:
    """Seconds from start to ready, by app; kept in a file that may be lost at any time.

    Source: R. L. Graham, "Bounds on Multiprocessing Timing Anomalies" (1969): longest processing time first.

    Args:
        path: The file; its folder exists, or nothing is kept.
    """

    __slots__ = ("_changed", "_path", "_seconds")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._seconds: dict[str, float] = {}
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._seconds = msgspec.json.decode(path.read_bytes(), type=dict[str, float])

    def order(self, names: Iterable[str]) -> list[str]:
        """Return `names`, the slowest first; those that nobody has seen yet come before, in the order given."""
        return sorted(names, key=lambda name: -self._seconds.get(name, float("inf")))

    def note(self, name: str, seconds: float) -> None:
        """Take the time of a start."""
        self._seconds[name] = round(seconds, 3)
        self._changed = True

    def save(self, names: Iterable[str]) -> None:
        """Write what is known of `names`; what is known of other apps is forgotten. A disk that is full is no error."""
        if not self._changed:
            return
        kept = {name: self._seconds[name] for name in names if name in self._seconds}
        staged = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)  # one that was left keeps its mode
            with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(kept))
            os.replace(staged, self._path)
        self._changed = False

    def __repr__(self) -> str:
        return f"<Starts {len(self._seconds)} apps>"
