"""A log folder as the platform lays it out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class File(NamedTuple):
    """One log file."""

    path: Path
    app: str
    process: str
    number: int


class LogFolder:
    """Log files that a test writes as apps do."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, name: str) -> File:
        app, _, rest = name.partition("/")
        process, _, number = rest.partition(".")
        return File(self.root / app / f"{rest}.log", app, process, int(number))

    def write(self, name: str, data: bytes | str, *, at: float | None = None) -> Path:
        """Append to a file; `at` sets its modification time."""
        path = self.file(name).path
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if at is not None:
            os.utime(path, (at, at))
        return path

    def list(self) -> list[File]:
        return [self.file(f"{path.parent.name}/{path.stem}") for path in sorted(self.root.glob("*/*.log"))]


@pytest.fixture
def log_folder(tmp_path: Path) -> LogFolder:
    return LogFolder(tmp_path / "logs")


@pytest.fixture
def punch() -> Callable[[Path, int], None]:
    """Return a function that gives the first bytes of a file back to the disk, as the platform's budget does."""
    import ctypes
    import sys

    if sys.platform != "linux":
        pytest.skip("fallocate is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

    def punch_hole(path: Path, size: int) -> None:
        fd = os.open(path, os.O_RDWR)
        try:
            if libc.fallocate(fd, 0x01 | 0x02, 0, size) != 0:
                pytest.skip(f"no holes on this file system: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(fd)

    return punch_hole
