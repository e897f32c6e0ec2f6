"""What differs on macOS, as far as Linux can play it: no /proc, pidfd, netlink, waitid or control groups; a kqueue."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it plays another system on Linux")

# Libraries are imported while the system is still itself: only Fairway's own code is to believe that it is another.
_DISGUISE = """
import asyncio, importlib, os, pkgutil, select, signal, socket, subprocess, sys, tempfile, traceback, zoneinfo
from pathlib import Path
import aiohttp, apsw, click, httptools, msgspec, psutil, redis.asyncio, starlette, uvicorn, uvloop, watchfiles, yaml

pidfd_open = os.pidfd_open

def state(pid):
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]

class Kqueue:
    fd = -1
    def control(self, events, limit):
        pid = events[0].ident
        try:
            self.fd = pidfd_open(pid)
            if state(pid) == b"Z":  # XNU takes no zombies
                raise ProcessLookupError
        except ProcessLookupError:
            raise OSError(3, "no such process")
    def fileno(self):
        return self.fd
    def close(self):
        if self.fd >= 0:
            os.close(self.fd)

class Kevent:
    def __init__(self, ident, **_):
        self.ident = ident

select.kqueue, select.kevent = Kqueue, Kevent
select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_EV_ONESHOT, select.KQ_NOTE_EXIT = -5, 1, 16, 0x80000000
for module, names in (
    (os, ("pidfd_open", "waitid", "P_PID", "WNOWAIT", "CLD_EXITED", "SEEK_DATA", "SEEK_HOLE", "eventfd", "splice",
          "sched_getaffinity", "memfd_create", "posix_fadvise", "posix_fallocate", "pipe2", "copy_file_range")),
    (signal, ("pidfd_send_signal", "SIGRTMIN", "SIGPWR", "SIGSTKFLT", "sigtimedwait", "sigwaitinfo")),
    (socket, ("AF_NETLINK", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_KEEPIDLE", "TCP_USER_TIMEOUT", "SO_PEERCRED")),
    (select, ("epoll",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
exists = os.path.exists
os.path.exists = lambda path: not str(path).startswith("/proc") and exists(path)
sys.platform = "darwin"
"""

_IMPORTS = """
import fairway
failed = []
for found in pkgutil.walk_packages(fairway.__path__, "fairway."):
    if found.name.startswith("fairway.testing") or found.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(found.name)
    except Exception:
        failed.append(found.name + traceback.format_exc())
assert not failed, failed
print("imported")
"""

_PROCESS = """
from fairway.command import Command
from fairway.platform.logbudget import punch
from fairway.run import cgroup, ports, proctable
from fairway.run.exitwatch import signal_exact
from fairway.run.process import Launch, Process
from fairway.run.reaper import become_subreaper
from fairway.run.spawn import spawn

SERVER = "import socket, time; s = socket.create_server(('127.0.0.1', %d)); print('up', flush=True); time.sleep(60)"

async def main():
    folder = Path(tempfile.mkdtemp())
    port = ports.PortPool().take()
    env = {**os.environ, proctable.MARKER: "test/app/web.1"}
    command = Command((sys.executable, "-c", SERVER % port), env, folder)
    process = Process.start(Launch(command, folder / "log", "test/app/web.1"))
    again = Process.adopt(process.record())
    assert again is not None and again.pid == process.pid
    again.abandon()
    listeners = ports.Listeners()
    async with asyncio.timeout(20):
        while not listeners.has(port):
            await asyncio.sleep(0.02)
    assert process.members() == {process.pid}
    assert ports.listener_among(port, process.members()) is True
    assert ports.listener_among(port, [os.getpid()]) is False
    assert proctable.marker_of(process.pid) == "test/app/web.1"
    assert not signal_exact(process.pid, process.started + 1, signal.SIGTERM)
    ended = await process.stop(5.0)
    assert (ended.signal, process.members()) == (signal.SIGTERM, set()), ended
    command = Command((sys.executable, "-c", "raise SystemExit(3)"), env, folder)
    failing = Process.start(Launch(command, folder / "log", "test/app/web.2"))
    assert (await failing.wait()).code == 3
    await failing.clean(0.1)
    early = spawn(Launch(command, folder / "log", "test/app/web.3"))
    async with asyncio.timeout(20):
        while state(early.pid) != b"Z":  # it ends before anybody watches it
            await asyncio.sleep(0.01)
    watched = Process.watch(early)
    assert (await watched.wait()).code == 3
    await watched.clean(0.1)
    early.kill()  # reaped meanwhile: no error
    assert become_subreaper() is False
    assert punch(folder / "log", 4096) is False
    assert cgroup.discover("fairway-test", mounts="", own="") == cgroup.Hierarchies()

asyncio.run(main())
print("ran")
"""


@pytest.mark.parametrize(("script", "said"), [(_IMPORTS, "imported"), (_PROCESS, "ran")])
def test_fairway_on_another_system(script: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DISGUISE + script], capture_output=True, text=True, check=False, timeout=90
    )
    assert (done.returncode, done.stdout.strip()) == (0, said), done.stderr
