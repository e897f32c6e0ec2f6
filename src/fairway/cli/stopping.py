"""Ends the daemon of a project by its signal and waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from fairway.cli.project import Project
from fairway.errors import FairwayError
from fairway.platform.lock import running_daemon
from fairway.run import proctable

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
    found = running_daemon(project.layout.lock)
    if found is None:
        return False
    pid = found[0]
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    except PermissionError:
        raise NotStopped(f"The daemon (pid {pid}) belongs to another user.", hint="Run this as that user.") from None
    deadline = time.monotonic() + timeout
    while (holds := running_daemon(project.layout.lock)) is not None and holds[0] in {0, pid}:
        if time.monotonic() > deadline:
            raise NotStopped(
                f"The daemon (pid {pid}) still runs after {timeout:g} s.",
                hint=f"`fairway logs _fairway` says what it waits for; `kill -9 {pid}` ends it at once.",
            )
        time.sleep(_POLL)
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return True


def stop_leftovers(project: Project, grace: float = 10.0) -> int:
    """End the door and the instances that a daemon which was killed has left behind: SIGTERM, `grace`, SIGKILL.

    They are known by the marker in their environment. To be called only while no daemon runs.

    Returns:
        How many processes there were.
    """
    marker = project.layout.owner + "/"
    found = proctable.marked(proctable.snapshot(), marker)
    for pid in found:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left := proctable.marked(proctable.snapshot(), marker):
        if time.monotonic() > deadline:
            for pid in left:
                _signal(pid, signal.SIGKILL)
        time.sleep(_POLL)
    return len(found)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
