"""Reaps orphans of instances: makes the daemon the parent of whatever escapes, so that nothing turns to zombies.

As a subreaper the daemon inherits processes whose parent has died below it: they stay descendants, where a scan finds
them even if they have cleared their environment. In return it has to wait for them. SIGCHLD is left alone, for libuv
and asyncio need it for their own children; instead `Reaper.sweep` is called now and then, and reaps a stranger that
was a zombie at the sweep before already. Whoever else in this process waits for a child has done so long since.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Container

from fairway.run import proctable

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Make this process the parent of orphaned descendants; False where the system has no such thing."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


class Reaper:
    """Remembers the zombies of the last sweep."""

    __slots__ = ("_last", "reaped")

    def __init__(self) -> None:
        self._last: frozenset[tuple[int, int]] = frozenset()
        self.reaped = 0

    def sweep(self, managed: Container[int]) -> int:
        """Reap children that nobody waits for; call it every few seconds.

        Args:
            managed: Pids of leaders that their `Process` reaps itself.

        Returns:
            How many were reaped.
        """
        zombies = frozenset((e.pid, e.started) for e in _zombie_children() if e.pid not in managed)
        due = zombies & self._last
        self._last = zombies - due
        for pid, _ in due:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self.reaped += len(due)
        return len(due)

    def __repr__(self) -> str:
        return f"<Reaper {self.reaped} reaped, {len(self._last)} waiting>"


def _zombie_children() -> list[proctable.ProcessEntry]:
    own = os.getpid()
    pids: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                pids += [int(p) for p in file.read().split()]
    except OSError:  # no CONFIG_PROC_CHILDREN, no /proc
        pids = [p for p, e in proctable.snapshot().items() if e.ppid == own]
    entries = (proctable.read_entry(p) for p in pids)
    return [e for e in entries if e is not None and e.state == "Z"]
