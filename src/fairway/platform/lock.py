"""One daemon a state folder: a lock that the kernel gives back however the daemon ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from fairway.platform.errors import AlreadyRunning, StateDirError


class DaemonLock:
    """Held by the running daemon; a context manager.

    Args:
        path: The lock file; it stays when the lock is given back, and then says nothing.

    Attributes:
        clean: Whether the daemon before this one has ended in order, or there was none; known once it is held.

    Raises:
        AlreadyRunning: On entry, if another daemon holds it; names its pid and URL.
        StateDirError: On entry, if the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clean = False
        self._fd = -1

    def __enter__(self) -> DaemonLock:
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirError(f"expected to write {self.path}, got: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.pread(self._fd, 200, 0).decode("utf-8", "replace").split()
            os.close(self._fd)
            pid = f" (pid {said[0]})" if said else ""
            url = f" at {said[1]}" if len(said) > 1 else ""
            raise AlreadyRunning(
                f"expected no other Fairway on {self.path.parent.parent}, one is running{pid}{url}",
                hint="Use it with `fairway ps` and `fairway deploy`, or end it with `fairway down`.",
            ) from None
        # Whoever ends in order empties the file; whoever is killed leaves the name of its pid there.
        self.clean = not os.pread(self._fd, 1, 0)
        self.write("")
        return self

    def write(self, url: str) -> None:
        """Say who holds the lock: this pid and the URL of its API."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {url}\n".encode(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
        self._fd = -1


def running_daemon(path: Path) -> tuple[int, str] | None:
    """Return pid and URL of the daemon that holds the lock at `path`, or None if there is none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(fd, 200, 0).decode("utf-8", "replace").split()
        return (int(said[0]), said[1] if len(said) > 1 else "") if said and said[0].isdigit() else (0, "")
    else:
        return None
    finally:
        os.close(fd)
