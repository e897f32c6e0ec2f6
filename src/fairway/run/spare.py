"""A worker of the door that is started before it is known what it has to do (`fairway.proxy.orders`).

`fairway up` starts it in its first lines, so this imports nothing that takes time, and no `subprocess`.
"""

from __future__ import annotations

import os
import sys

from fairway.run import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fairway.run.proctable import ProcessEntry

_AWAIT = "--await"  # `fairway.proxy.orders.AWAIT`


class SpareGone(OSError):
    """The spare worker has ended."""


class Spare:
    """A worker that loads itself and waits, in a session of its own; it ends by itself where nothing is ordered.

    Attributes:
        marker: What it is known by.
        pid: Its process id.

    Args:
        marker: What it is to be known by.

    Raises:
        OSError: It cannot be started.
        NotImplementedError: This system has no ``posix_spawn`` that begins a session.
    """

    __slots__ = ("_mine", "_pipe", "marker", "pid")

    def __init__(self, marker: str) -> None:
        self.marker = marker
        reader, self._pipe = os.pipe()
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                # -P: the current folder, which is the user's, is nowhere to import from. The worker leaves it, too.
                [sys.executable, "-P", "-m", "fairway.proxy", _AWAIT],
                environment.of_module(marker),
                file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)],
                setsid=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reader)
        self._mine = True

    def order(self, arguments: Sequence[str], output: Path) -> ProcessEntry:
        """Tell it what to do; from now on it is the caller's to watch and to reap.

        Args:
            arguments: The worker's command line.
            output: Log file that gets what it prints.

        Raises:
            SpareGone: It has ended; it is reaped.
        """
        from fairway.proxy.orders import encode_orders
        from fairway.run.proctable import read_entry

        entry = read_entry(self.pid)
        try:
            os.write(self._pipe, encode_orders(arguments, output))  # far less than a pipe holds
        except BrokenPipeError:
            entry = None
        if entry is None:
            self.close()
            raise SpareGone(f"expected the spare worker {self.pid} to wait, it has ended")
        self._mine = False
        self.close()
        return entry

    def close(self) -> None:
        """End it, if nothing was ordered: it is not needed. Returns when it has gone; a second time does nothing."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._mine:
            import signal

            self._mine = False
            os.kill(self.pid, signal.SIGKILL)  # a child that was not reaped: the pid is its own
            os.waitpid(self.pid, 0)

    def __repr__(self) -> str:
        return f"<Spare {self.marker} pid={self.pid}>"
