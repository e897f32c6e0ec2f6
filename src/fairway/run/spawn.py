"""Starts a process in a session of its own, and knows how to find it again; watching it is `fairway.run.process`'s.

No event loop is needed here, nor loaded: the daemon starts what it hosts before it has imported the rest of itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from pathlib import Path

import msgspec

from fairway.command import Command
from fairway.errors import FairwayError
from fairway.run import proctable
from fairway.run.cgroup import Cgroup


class SpawnError(FairwayError):
    """A process could not be started: the program is missing or not executable, or its folder is gone."""

    code = "process.spawn"


class Launch(msgspec.Struct, frozen=True):
    """What to start.

    Attributes:
        command: Program, arguments, working directory; its `env` is the whole environment (`environment.compose`).
        output: Log file that gets standard output and error, made 0600 where missing, only ever appended to.
        marker: Value of the marker variable, unique for the instance.
        cgroup: Control groups it joins, or None.
    """

    command: Command
    output: Path
    marker: str
    cgroup: Cgroup | None = None


class ProcessRecord(msgspec.Struct, frozen=True):
    """What has to be remembered to find a process again after the daemon was killed."""

    pid: int
    started: int
    boot: str
    marker: str
    cgroups: tuple[str, ...] = ()
    limits: str = "none"


class Spawned(msgspec.Struct, frozen=True):
    """A process that was started and that nobody watches yet: it stays a zombie when it ends, until `Process` reaps it.

    Attributes:
        pid: Leader's pid, which is the id of its group and session too.
        started: Leader's start time in ticks since boot.
        marker: What its members carry in their environment.
        cgroup: Its control groups.
    """

    pid: int
    started: int
    marker: str
    cgroup: Cgroup

    def record(self) -> ProcessRecord:
        """Return what `Process.adopt` needs."""
        folders = tuple(str(f) for f in self.cgroup.folders)
        return ProcessRecord(self.pid, self.started, proctable.boot_id(), self.marker, folders, self.cgroup.limits)

    def kill(self) -> None:
        """SIGKILL it with its group, and reap it: for a start that is given up before anybody has watched it.

        One that somebody else has reaped meanwhile is gone already, and its pid may be a stranger's by now.
        """
        self.cgroup.kill()
        entry = proctable.read_entry(self.pid)
        if entry is None or entry.started == self.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS, of a group of zombies
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self.cgroup.remove()


def spawn(launch: Launch) -> Spawned:
    """Start a process in a session of its own; returns once its program is executed.

    Raises:
        SpawnError: Its program, folder or log file cannot be used.
    """
    command = _resolved(launch.command)
    cgroup = launch.cgroup or Cgroup((), "none")
    launch.output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = os.open(launch.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        pid = _start(command, cgroup, out)
    except OSError as error:
        raise SpawnError(f"expected to start {command.argv[0]!r}, got: {error.strerror}") from error
    finally:
        os.close(out)
    entry = proctable.read_entry(pid)
    if entry is None:  # a child that is not reaped can always be read
        raise SpawnError(f"expected to find {command.argv[0]!r} running as pid {pid}, it is not to be seen")
    return Spawned(pid, entry.started, launch.marker, cgroup)


def _start(command: Command, cgroup: Cgroup, out: int) -> int:
    if cgroup.can_kill and len(cgroup.folders) == 1:
        from fairway.run.birth import start_inside

        pid = start_inside(cgroup.folders[0], command, out)
        if pid is not None:
            return pid
    import subprocess

    wrapped = cgroup.enter(command)
    popen = subprocess.Popen(  # noqa: S603  # argv of a planner, never a shell line with data in it
        wrapped.argv,
        env=dict(wrapped.env),
        cwd=wrapped.cwd,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
    )
    # Popen would poll, and so reap, the child whenever a Popen object is made or deleted: it must believe that
    # the child is gone. Reaping is ours alone.
    popen.returncode = 0
    return popen.pid


def _resolved(command: Command) -> Command:
    """Return the command with its program as a path, or say plainly why there is none."""
    program = command.argv[0]
    if command.cwd is not None and not command.cwd.is_dir():
        raise SpawnError(f"expected the folder {command.cwd} to start {program!r} in, it is missing")
    if os.sep in program:
        path = Path(program) if command.cwd is None else command.cwd / program
        if not path.is_file():
            raise SpawnError(f"expected a program at {path}, got: {os.strerror(errno.ENOENT)}")
        if not os.access(path, os.X_OK):
            raise SpawnError(f"expected a program at {path}, got: {os.strerror(errno.EACCES)}")
        return Command((str(path), *command.argv[1:]), command.env, command.cwd)
    import shutil

    found = shutil.which(program, path=command.env.get("PATH"))
    if found is None:
        raise SpawnError(f"expected the program {program!r} on PATH, it is not there")
    return Command((found, *command.argv[1:]), command.env, command.cwd)
