"""Learns of a process's exit from the kernel, without SIGCHLD, threads or polling: pidfd on Linux, kqueue on macOS.

Both work for processes that are not children, which is what makes adoption possible, and neither reaps: the pid and
with it the group id stay taken until whoever owns the process says so.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import sys
from collections.abc import Callable
from typing import Any


class ExitWatch:
    """Calls `on_exit` once, on the running event loop, when process `pid` has exited.

    Args:
        pid: A process that exists, or a zombie.
        on_exit: Called without arguments; not after `close`.

    Raises:
        ProcessLookupError: There is no such process.
    """

    __slots__ = ("_ended", "_fd", "_loop", "_on_exit", "_queue", "pid")

    def __init__(self, pid: int, on_exit: Callable[[], None]) -> None:
        self.pid = pid
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._queue: Any = None
        self._ended: asyncio.Handle | None = None  # of a zombie, which a kqueue does not take
        if sys.platform == "linux":
            self._fd = os.pidfd_open(pid)
        else:
            self._fd = self._watch_by_kqueue(pid)
        if self._ended is None:
            self._loop.add_reader(self._fd, self._fire)

    @property
    def fd(self) -> int:
        """The pidfd (Linux) or kqueue; -1 once closed, and of a zombie on macOS."""
        return self._fd

    def close(self) -> None:
        """Stop watching; may be called again."""
        if self._ended is not None:
            self._ended.cancel()
        if self._fd < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        fd, self._fd = self._fd, -1
        if self._queue is not None:
            self._queue.close()
        else:
            os.close(fd)

    def _fire(self) -> None:
        self._loop.remove_reader(self._fd)  # level-triggered: it would fire in every turn from here on
        self._on_exit()

    def _watch_by_kqueue(self, pid: int) -> int:
        kqueue: Any = vars(select)["kqueue"]
        kevent: Any = vars(select)["kevent"]
        names: dict[str, Any] = vars(select)
        self._queue = kqueue()
        event = kevent(
            pid,
            filter=names["KQ_FILTER_PROC"],
            flags=names["KQ_EV_ADD"] | names["KQ_EV_ONESHOT"],
            fflags=names["KQ_NOTE_EXIT"],
        )
        try:
            self._queue.control([event], 0)
        except OSError as error:
            self._queue.close()
            if error.errno != errno.ESRCH:
                raise
            # Gone, or a zombie, which macOS says the same of: a signal still reaches that one.
            os.kill(pid, 0)
            self._ended = self._loop.call_soon(self._on_exit)
            return -1
        return int(self._queue.fileno())

    def __repr__(self) -> str:
        return f"<ExitWatch pid={self.pid} {'closed' if self._fd < 0 else 'watching'}>"


def signal_exact(pid: int, started: int, number: int) -> bool:
    """Send signal `number` to process `pid` only if it is still the one that started at `started`; False if not.

    With a pidfd held, the pid cannot be given to another process between the look and the signal.
    """
    import signal

    from fairway.run.proctable import read_entry

    fd = -1
    try:
        if sys.platform == "linux":
            fd = os.pidfd_open(pid)
        entry = read_entry(pid)
        if entry is None or entry.started != started:
            return False
        if sys.platform == "linux":
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True
