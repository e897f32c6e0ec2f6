"""What the registry's folder looks like from outside: two looks that differ mean that it has to be read again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

Look = tuple[tuple[str, int, int], ...]
SUFFIXES = (".yaml", ".yml")


def look(folder: Path) -> Look:
    """Return name, size and modification time of every registry file: what differs after a change."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = ((e.name, e.stat()) for e in entries if e.name.endswith(SUFFIXES))
        return tuple(sorted((name, s.st_size, s.st_mtime_ns) for name, s in found))
    return ()
