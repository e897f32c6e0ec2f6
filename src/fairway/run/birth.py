"""Starts a process inside its control group, so that it need not be moved there: moving waits for the kernel.

A process that is moved (``echo 0 > cgroup.procs``) makes the kernel wait until every processor has passed through a
quiet state, which takes 8 to 20 ms where nobody has moved lately, and holds up whoever makes a group meanwhile. One
that is born there (``clone3`` with ``CLONE_INTO_CGROUP``, Linux 5.7) waits for nothing, and is in the group from its
first instruction on.

`clone3` is called past the C library, whose locks another thread might hold at that moment: this is for a process with
one thread alone, as the daemon is in its opening. Later ones join by a line of shell (`Cgroup.enter`).

Source: clone(2); cgroups(7).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fairway.command import Command

_CLONE3 = 435  # the same number on every architecture that came with a table of its own to Linux 5.3
_INTO_CGROUP = 0x2_0000_0000
_FILES = 1 << 20  # above any number that a file has
_REFUSED = 127


def start_inside(folder: Path, command: Command, output: int) -> int | None:
    """Start `command` in a session of its own and in the control group `folder`; returns once its program is executed.

    Args:
        folder: A group of the v2 hierarchy.
        command: Its program as a path; its `env` is the whole environment.
        output: File that gets standard output and error; standard input is the null device.

    Returns:
        Its pid, or None where a process cannot be born into a group (another system, an older kernel, a sandbox, other
        threads) or its program is none that the kernel knows, such as a script without ``#!``.

    Raises:
        OSError: Its program or folder cannot be used.
    """
    if sys.platform != "linux" or len(os.listdir("/proc/self/task")) != 1:
        return None
    reader, writer = os.pipe()
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    handled = [n for n in signal.valid_signals() if callable(signal.getsignal(n))]
    # A signal that met the child before it is its own program would run this program's handler.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = _clone(group)
        if pid == 0:
            _become(command, (null, output, writer), handled, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for file in (writer, group, null):
            os.close(file)
        with open(reader, "rb") as answer:
            said = answer.read()
    if pid < 0:
        return None
    if not said:
        return pid
    os.waitpid(pid, 0)
    reason = int(said)
    if reason == errno.ENOEXEC:
        return None
    raise OSError(reason, os.strerror(reason))


def _clone(group: int) -> int:
    """Return the child's pid, 0 in the child, -1 where this kernel cannot."""
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup. Without a stack and CLONE_VM it returns twice, as fork(2) does.
    arguments = struct.pack("=11Q", _INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    # A `PyDLL` keeps the interpreter's lock: the child goes on where the parent stands.
    return int(ctypes.PyDLL(None).syscall(_CLONE3, ctypes.c_char_p(arguments), ctypes.c_size_t(len(arguments))))


def _become(command: Command, files: tuple[int, int, int], handled: Iterable[int], mask: Iterable[int]) -> NoReturn:
    """Turn the child into its program, or tell the parent why not. Everything of the parent's is a copy here."""
    writer = files[2]
    try:
        # Above the three that are about to be replaced: a parent without them may have got their numbers.
        null, output, writer = (fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3) for file in files)
        for source, place in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, place)
        os.closerange(3, writer)
        os.closerange(writer + 1, _FILES)
        os.setsid()
        if command.cwd is not None:
            os.chdir(command.cwd)
        for number in (*handled, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores the last two
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execve(command.argv[0], command.argv, dict(command.env))  # noqa: S606  # there is no shell in it, as is meant
    except BaseException as error:  # whatever it is, this process must not go on as the daemon
        reason = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        os.write(writer, str(reason).encode())
    finally:
        os._exit(_REFUSED)
