"""One supervised process group: how it is started, watched, adopted and ended.

Why it is the way it is:

* **Own session and group**, so that one signal reaches the whole tree and a Ctrl-C of the terminal reaches none of it.
* **The exit comes from the kernel** (pidfd), never from a pipe's end: a grandchild may hold the output open for ever.
* **Reaping is delayed** until the tree is gone. The leader stays a zombie meanwhile, so its pid, which is the group's
  id, cannot be given to a stranger whom ``killpg`` would then hit.
* **Escapees** (setsid, double fork) are found by the control group, or else by the marker in their environment and by
  descent, and are killed one by one through a pidfd, checked against their start time.
* **No PR_SET_PDEATHSIG**: it fires when the *thread* that forked ends, and instances are meant to outlive the daemon.
* **Output goes straight into a file** that the process holds itself: no pipe that fills up, breaks or needs a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.concurrency import Chan
from fairway.errors import FairwayError
from fairway.run import proctable
from fairway.run.cgroup import Cgroup
from fairway.run.exitwatch import ExitWatch, signal_exact
from fairway.run.spawn import Launch, ProcessRecord, Spawned, SpawnError, spawn

if TYPE_CHECKING:
    from fairway.concurrency import RecvChan

__all__ = ["Exit", "Launch", "Process", "ProcessRecord", "SpawnError", "find_marked"]

_POLL_FIRST, _POLL_LAST = 0.004, 0.1
_KILL_PATIENCE = 5.0  # seconds for SIGKILL to work; only a process in uninterruptible sleep takes longer


class Exit(msgspec.Struct, frozen=True):
    """How a process ended.

    Attributes:
        code: Exit status, or None if a signal ended it or nobody knows.
        signal: Number of the signal that ended it, or None.
        out_of_memory: The kernel killed a member for want of memory.
    """

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"{name} (out of memory)" if self.out_of_memory else name
        return "exit unknown" if self.code is None else f"exit {self.code}"


class Process(msgspec.Struct, eq=False):
    """A process group that runs, or has run. Made by `start` or `adopt`.

    Attributes:
        pid: Leader's pid, which is the id of its group and session too.
        started: Leader's start time in ticks since boot.
        marker: What its members carry in their environment.
        cgroup: Its control groups.
        adopted: True if an earlier daemon started it: its exit status cannot be known.
        exit: How the leader ended, or None while it runs.
    """

    pid: int
    started: int
    marker: str
    cgroup: Cgroup
    adopted: bool = False
    exit: Exit | None = None
    _done: Chan[None] = msgspec.field(default_factory=lambda: Chan[None](0))
    _watch: ExitWatch | None = None
    _seen: dict[int, int] = {}
    _reaped: bool = False
    _collected: bool = False

    @classmethod
    def start(cls, launch: Launch) -> Process:
        """Start a process in a session of its own; returns once its program is executed.

        Raises:
            SpawnError: Its program, folder or log file cannot be used.
        """
        return cls.watch(spawn(launch))

    @classmethod
    def watch(cls, spawned: Spawned) -> Process:
        """Watch and own, from now on, a child that `spawn` has started; it may have ended since."""
        process = cls(spawned.pid, spawned.started, spawned.marker, spawned.cgroup)
        process._watch = ExitWatch(process.pid, process._exited)
        return process

    @classmethod
    def adopt(cls, record: ProcessRecord) -> Process | None:
        """Take over a process that an earlier daemon started, or return None if it is gone.

        It is the same one only if pid, start time and boot agree and its environment still carries the marker.
        """
        if record.boot != proctable.boot_id():
            return None
        cgroup = Cgroup(tuple(Path(f) for f in record.cgroups), record.limits)
        process = cls(record.pid, record.started, record.marker, cgroup, adopted=True)
        try:
            process._watch = ExitWatch(record.pid, process._exited)
        except ProcessLookupError:
            return None
        # Looked at after the pidfd is held: from here on the pid cannot become another process's.
        entry = proctable.read_entry(record.pid)
        same = entry is not None and entry.started == record.started and entry.state != "Z"
        if not same or proctable.marker_of(record.pid) not in {record.marker, None}:
            process._watch.close()
            return None
        return process

    @property
    def exited(self) -> RecvChan[None]:
        """A channel that is closed when the leader has exited; `exit` is set before."""
        return self._done.receiver

    def record(self) -> ProcessRecord:
        """Return what `adopt` needs."""
        return Spawned(self.pid, self.started, self.marker, self.cgroup).record()

    async def wait(self) -> Exit:
        """Wait until the leader has exited; cancelling leaves it running."""
        await self._done.recv_ok()
        return self.exit or Exit()

    def members(self, table: proctable.ProcessTable | None = None) -> set[int]:
        """Return the live processes of the tree, escapees too.

        Args:
            table: A look at all processes; None takes one where the control group does not say it cheaper.
        """
        if self._reaped:
            return set()
        pids = self.cgroup.pids() - {os.getpid()}
        if self.cgroup.can_kill:
            return pids
        table = proctable.snapshot() if table is None else table
        seeds = {p for p, marker in proctable.marked(table, self.marker).items() if marker == self.marker} | pids
        seeds |= {p for p, started in self._seen.items() if p in table and table[p].started == started}
        found = proctable.members(table, self.pid if self._owns_group else None, self.started, seeds)
        self._seen = {p: table[p].started for p in found}
        return found

    def signal(self, number: int) -> None:
        """Send a signal to every member: the group at once, escapees one by one. Members that are gone are no error."""
        self._signal(number, self.members())

    async def stop(self, grace: float) -> Exit:
        """End the whole tree: SIGTERM, `grace` seconds, SIGKILL; then reap and give the control groups back.

        Cancelling it sends SIGKILL at once and raises, so that nothing is left half stopped.

        Args:
            grace: Seconds that members have to end by themselves, >= 0.
        """
        if self._reaped:
            return self.exit or Exit()
        try:
            if grace > 0:
                self.signal(signal.SIGTERM)
                await self._gone(grace)
        finally:
            self._kill()
        if not await self._gone(_KILL_PATIENCE):
            left = sorted(self.members())
            raise FairwayError(f"expected SIGKILL to end {self.marker}, still there: pids {left}", code="process.stuck")
        self.release()
        return self.exit or Exit()

    async def clean(self, grace: float) -> Exit:
        """End what a leader that exited by itself has left behind, like `stop`."""
        return await self.stop(grace if self.members() else 0.0)

    def release(self) -> None:
        """Reap the leader, stop watching, remove the control groups; the tree has to be gone. May be called again."""
        if not self._reaped:
            self._reaped = True
            if not self.adopted and not self._collected:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(self.pid, os.WNOHANG)
        if self._watch is not None:
            self._watch.close()
        self.cgroup.remove()

    def abandon(self) -> None:
        """Stop watching and leave the process running, to be adopted by the next daemon."""
        if self._watch is not None:
            self._watch.close()

    def _exited(self) -> None:
        self.exit = self._peek()
        self._done.close()

    def _peek(self) -> Exit:
        if self.adopted:
            return Exit(out_of_memory=self.cgroup.oom_killed())
        if not hasattr(os, "waitid"):  # macOS before Python 3.13 cannot look without reaping
            self._collected = True
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            return Exit(code=code) if code >= 0 else Exit(signal=-code)
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            found = None
        if found is None:
            return Exit()
        if found.si_code == os.CLD_EXITED:
            return Exit(code=found.si_status)
        return Exit(signal=found.si_status, out_of_memory=self.cgroup.oom_killed())

    def _kill(self) -> None:
        if not self.cgroup.kill():
            self._signal(signal.SIGKILL, self.members())
        if self.exit is None and not self._reaped:  # a leader that never joined its control group
            signal_exact(self.pid, self.started, signal.SIGKILL)

    def _signal(self, number: int, pids: set[int]) -> None:
        group: set[int] = set()
        if self._owns_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            group = {p for p in pids if (e := proctable.read_entry(p)) is not None and e.pgrp == self.pid}
        for pid in pids - group:
            entry = proctable.read_entry(pid)
            if entry is not None:
                signal_exact(pid, entry.started, number)

    @property
    def _owns_group(self) -> bool:
        """The leader lives, or is a zombie of ours: the group's id is certainly this instance's."""
        if self._reaped or self._collected:
            return False
        return self.exit is None or not self.adopted

    async def _gone(self, patience: float) -> bool:
        """Wait until no member lives; False after `patience` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        pause = _POLL_FIRST
        while True:
            if self.exit is None:  # the kernel wakes us: nothing to poll for
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await self.wait()
            if self.exit is not None and not self.members():
                return True
            left = until - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 2, _POLL_LAST)

    def __repr__(self) -> str:
        state = "running" if self.exit is None else str(self.exit)
        return f"<Process {self.marker} pid={self.pid} {state}{' adopted' if self.adopted else ''}>"


def find_marked(prefix: str) -> dict[str, set[int]]:
    """Return every live process whose marker begins with `prefix`, by marker: what a killed daemon left running."""
    found: dict[str, set[int]] = {}
    table = proctable.snapshot()
    for pid, marker in proctable.marked(table, prefix).items():
        found.setdefault(marker, set()).add(pid)
    return found
