"""Ends the daemon of a project by its signal and waits for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time

from fairway.cli.project import Project
from fairway.errors import FairwayError

_POLL = 0.05


class NotStopped(FairwayError):
    """The daemon was told to end and has not."""

    code = "daemon.not_stopped"


def stop_daemon(project: Project, timeout: float) -> bool:
    """Send SIGTERM to the daemon that holds the project's lock and wait until it is gone.

    Args:
        project: Whose daemon.
        timeout: Seconds to wait.

    Returns:
        Whether there was one.

    Raises:
        NotStopped: It still runs, or belongs to another user.
    """
    pid = holder(project)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    except PermissionError:
        raise NotStopped(f"The daemon (pid {pid}) belongs to another user.", hint="Run this as that user.") from None
    deadline = time.monotonic() + timeout
    while holder(project) == pid:
        if time.monotonic() > deadline:
            raise NotStopped(
                f"The daemon (pid {pid}) still runs after {timeout:g} s.",
                hint=f"`fairway logs _fairway` says what it waits for; `kill -9 {pid}` ends it at once.",
            )
        time.sleep(_POLL)
    return True


def holder(project: Project) -> int | None:
    """Return the pid of the daemon that holds the project's lock, or None where none does."""
    try:
        fd = os.open(project.layout.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None  # nobody holds it: what the file says is of a daemon that is gone
        word = os.read(fd, 64).split()
        return int(word[0]) if word and word[0].isdigit() else None
    finally:
        os.close(fd)
