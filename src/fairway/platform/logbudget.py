"""Keeps logs within a budget of disk without losing a line that is being written: decided purely, done at the end.

An instance holds its file itself, so the file can be neither renamed nor truncated under it without a window in which
a line is lost. Instead the head of a file is given back to the disk as a hole: the file's size, its offsets and its
writer notice nothing (docs/adr/0005-logs-are-shortened-by-holes.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from fairway.platform.layout import LogFile

_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_BLOCK = 4096


class Budget(msgspec.Struct, frozen=True):
    """Disk that logs may take.

    Attributes:
        file_bytes: One instance's file.
        app_bytes: All files of one app.
        app_files: Files of ended instances that one app keeps.
    """

    file_bytes: int = 64 * 2**20
    app_bytes: int = 256 * 2**20
    app_files: int = 20


class Usage(msgspec.Struct, frozen=True):
    """One log file: `size` is its end, `disk` what it takes of the disk, `live` whether an instance writes to it."""

    file: LogFile
    size: int
    disk: int
    live: bool


class Relief(msgspec.Struct, frozen=True):
    """What to do about a file: delete it (`upto` is None) or give its first `upto` bytes back."""

    path: Path
    upto: int | None


def decide(usages: Sequence[Usage], budget: Budget) -> list[Relief]:
    """Return what brings one app's files into the budget, and no more than that.

    Files of ended instances go first, oldest first; then the heads of live files, down to three quarters of their
    share, so that the next line does not ask for the next hole. The newest lines are always kept.
    """
    ended = [u for u in usages if not u.live]
    live = [u for u in usages if u.live]
    total = sum(u.disk for u in usages)
    found: list[Relief] = []
    surplus = max(0, len(ended) - budget.app_files)
    for i, usage in enumerate(ended):
        if i < surplus or total > budget.app_bytes:
            found.append(Relief(usage.file.path, None))
            total -= usage.disk
        elif usage.disk > budget.file_bytes:
            found.append(Relief(usage.file.path, _hole(usage, budget.file_bytes)))
            total -= usage.disk - budget.file_bytes
    share = min(budget.file_bytes, budget.app_bytes // max(1, len(live)))
    for usage in live:
        if usage.disk > (share if total > budget.app_bytes else budget.file_bytes):
            found.append(Relief(usage.file.path, _hole(usage, share * 3 // 4)))
    return found


def relieve(files: Sequence[LogFile], live: Collection[Path], budget: Budget) -> int:
    """Bring one app's log files into the budget; returns the bytes of disk that were given back.

    Args:
        files: The app's files, oldest first.
        live: Files that instances write to.
        budget: How much they may take.
    """
    usages: list[Usage] = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            stat = file.path.stat()
            usages.append(Usage(file, stat.st_size, stat.st_blocks * 512, file.path in live))
    freed = 0
    for relief in decide(usages, budget):
        before = next(u.disk for u in usages if u.file.path == relief.path)
        if relief.upto is None:
            relief.path.unlink(missing_ok=True)
            relief.path.with_suffix(".times").unlink(missing_ok=True)
            freed += before
        elif punch(relief.path, relief.upto):
            freed += before - relief.path.stat().st_blocks * 512
    return freed


def punch(path: Path, upto: int) -> bool:
    """Give the first `upto` bytes of a file back to the disk; False where file system or kernel cannot."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_WRONLY)
    try:
        done = libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(upto))
    finally:
        os.close(fd)
    return int(done) == 0


def _hole(usage: Usage, keep: int) -> int:
    return max(0, usage.size - keep) // _BLOCK * _BLOCK
