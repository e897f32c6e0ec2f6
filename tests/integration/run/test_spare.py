"""A spare worker of the door: it waits, becomes what it is told to be, and is never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from fairway.platform.config import DaemonConfig
from fairway.platform.layout import Layout
from fairway.platform.opening import opened
from fairway.platform.state import StateStore
from fairway.proxy.control import DoorClient
from fairway.proxy.errors import ControlError
from fairway.proxy.orders import encode_orders
from fairway.run import proctable
from fairway.run.process import Process, find_marked
from fairway.run.spare import Spare, SpareGone

pytestmark = pytest.mark.integration


def lives(pid: int) -> bool:
    entry = proctable.read_entry(pid)
    return entry is not None and entry.state != "Z"


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def no_subreaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no daemon: orphans of other tests' daemons are not its to reap."""
    monkeypatch.setattr("fairway.platform.opening.become_subreaper", lambda: False)


@pytest.fixture
def spare() -> Iterator[Spare]:
    made = Spare(f"test-spare-{os.getpid()}/_fairway/door.0")
    yield made
    if lives(made.pid):
        os.kill(made.pid, signal.SIGKILL)
    made.close()


def test_it_becomes_the_worker_that_it_is_told_to_be(spare: Spare, tmp_path: Path) -> None:
    socket, log = tmp_path / "door.sock", tmp_path / "door.log"
    entry = spare.order(["--listen", "127.0.0.1:0", "--socket", str(socket)], log)
    assert (entry.pid, entry.session, entry.pgrp) == (spare.pid, spare.pid, spare.pid)

    def answers() -> bool:
        try:
            return asyncio.run(DoorClient(socket).statistics()).pid == spare.pid
        except ControlError:
            return False

    until(answers, "answer on its control socket")
    assert proctable.marker_of(spare.pid) == spare.marker
    assert "fairway door listening on 127.0.0.1:" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert os.readlink(f"/proc/{spare.pid}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{spare.pid}/cwd") == "/"
    spare.close()  # ordered: that is nobody's to end but the caller's
    assert lives(spare.pid)
    os.kill(spare.pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(spare.pid, 0)[1]) == 0


_BARE = """
import os
os.close({closed})
from fairway.proxy.orders import await_orders
await_orders()
os.write(1, b"out ")
os.write(2, b"err ")
"""


@pytest.mark.parametrize("closed", [1, 2])
def test_a_worker_that_was_started_without_output_has_one_by_its_orders(tmp_path: Path, closed: int) -> None:
    orders = encode_orders([], tmp_path / "log")
    code = _BARE.format(closed=closed)
    done = subprocess.run([sys.executable, "-c", code], input=orders, capture_output=True, check=False)
    assert (done.returncode, (tmp_path / "log").read_text()) == (0, "out err "), done.stderr


def test_one_that_nobody_needs_ends(spare: Spare) -> None:
    spare.close()
    assert proctable.read_entry(spare.pid) is None
    spare.close()


def test_one_that_has_ended_takes_no_orders(spare: Spare, tmp_path: Path) -> None:
    os.kill(spare.pid, signal.SIGKILL)
    os.waitid(os.P_PID, spare.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(SpareGone, match="has ended"):
        spare.order(["--listen", "127.0.0.1:0"], tmp_path / "log")
    assert proctable.read_entry(spare.pid) is None


def test_it_ends_with_whoever_has_started_it() -> None:
    code = "import os; from fairway.run.spare import Spare; print(Spare('test-spare/x').pid, flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    until(lambda: not lives(int(done.stdout)), "end of the spare worker")


def test_the_opening_makes_it_the_first_worker(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ".fairway")
    spare = Spare(layout.door_marker(0))
    config = DaemonConfig(tmp_path / "registry", layout.root, door_port=0, door_workers=2, api_port=0)
    with opened(config, spare) as opening:
        assert opening.doors[0].pid == spare.pid
        assert opening.doors[1].pid != spare.pid
        row = opening.machine.state.doors()[0]
        assert row.record == opening.doors[0].record()

        async def adopt() -> bool:
            process = Process.adopt(row.record)
            if process is not None:
                process.abandon()
            return process is not None

        until(lambda: asyncio.run(adopt()), "process that a later daemon could adopt")
    assert not lives(spare.pid)
    assert StateStore(layout.database).doors() == []


def test_the_opening_ends_one_of_another_project(tmp_path: Path) -> None:
    spare = Spare("another-project/_fairway/door.0")
    config = DaemonConfig(tmp_path / "registry", tmp_path / ".fairway", door_port=0, api_port=0)
    with opened(config, spare) as opening:
        assert opening.doors[0].pid != spare.pid
        assert not lives(spare.pid)


def test_a_spare_worker_that_has_died_is_replaced(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ".fairway")
    spare = Spare(layout.door_marker(0))
    os.kill(spare.pid, signal.SIGKILL)
    os.waitid(os.P_PID, spare.pid, os.WEXITED | os.WNOWAIT)
    with opened(DaemonConfig(tmp_path / "registry", layout.root, door_port=0, api_port=0), spare) as opening:
        assert opening.doors[0].pid != spare.pid
        assert lives(opening.doors[0].pid)


def test_it_keeps_nothing_of_its_parent(spare: Spare) -> None:
    held = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(held, True)
    second = Spare(spare.marker)
    try:
        until(lambda: os.readlink(f"/proc/{second.pid}/cwd") == "/", "own folder")
        until(lambda: not os.path.exists(f"/proc/{second.pid}/fd/{held}"), "end of what it has inherited")
    finally:
        second.close()
        os.close(held)


@pytest.mark.parametrize("spared", [True, False])
def test_a_worker_that_cannot_be_written_down_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spared: bool
) -> None:
    def full(*_: object) -> None:
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(StateStore, "save_door", full)
    layout = Layout(tmp_path / ".fairway")
    spare = Spare(layout.door_marker(0)) if spared else None
    config = DaemonConfig(tmp_path / "registry", layout.root, door_port=0, api_port=0)
    with pytest.raises(apsw.FullError), opened(config, spare):
        pytest.fail("it opened")
    assert find_marked(layout.owner + "/") == {}


def test_a_worker_that_nobody_has_written_down_gives_its_port_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ".fairway")
    layout.create()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stray = Spare(layout.door_marker(0))  # its daemon was killed as soon as it had told it what to do
    try:
        control = layout.door_socket(0)
        stray.order(["--listen", f"127.0.0.1:{port}", "--socket", str(control), "--await-routes"], tmp_path / "log")
        until(lambda: control.exists(), "door that listens")
        with opened(DaemonConfig(tmp_path / "registry", layout.root, door_port=port, api_port=0)) as opening:
            assert not lives(stray.pid)
            assert lives(opening.doors[0].pid)
    finally:
        os.kill(stray.pid, signal.SIGKILL)  # not reaped yet: the pid is its own
        os.waitpid(stray.pid, 0)
