"""A lock between processes on one machine, held through a file."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_POLL = 0.05


@asynccontextmanager
async def locked(folder: Path, name: str) -> AsyncIterator[None]:
    """Hold the lock `name` of `folder` (made where missing, 0700) for the block.

    Waiting for it can be cancelled. The kernel frees it when its holder ends, however it ends, so none goes stale.
    """
    fd = _open(folder, name)
    try:
        # flock can only be waited for in a thread, which could not be cancelled.
        while not _taken(fd):  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        yield
    finally:
        os.close(fd)


def _open(folder: Path, name: str) -> int:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
