"""The deploy gate: only the instance's own listener is believed, and failure says what was seen."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.command import Command
from fairway.health.probe import ProbeResult, ProbeTarget
from fairway.platform.gate import Gate, GateFailed, wait_ready
from fairway.run import environment
from fairway.run.ports import PortPool
from fairway.run.process import Launch, Process

pytestmark = pytest.mark.integration

SERVER = "import http.server, sys; http.server.test(http.server.BaseHTTPRequestHandler, port=int(sys.argv[1]))"
ECHO = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    c.close()
"""
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {ECHO!r}, sys.argv[1]])"


@pytest.fixture
def port() -> int:
    return PortPool().take()


class Runner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    def __call__(self, program: str, *arguments: object) -> Process:
        marker = f"test-gate-{os.getpid()}-{len(self.started)}"
        argv = (sys.executable, "-S", "-u", "-c", program, *(str(a) for a in arguments))
        command = Command(argv, environment.compose(marker=marker), self.folder)
        process = Process.start(Launch(command, self.folder / "log", marker))
        self.started.append(process)
        return process


@pytest.fixture
async def run(tmp_path):
    runner = Runner(tmp_path)
    yield runner
    for process in runner.started:
        await process.stop(0)


def gate(port: int, timeout: float = 10.0, **changes) -> Gate:
    return Gate(ProbeTarget("127.0.0.1", port, "/", 1.0), timeout, **changes)


async def test_passes_twice_in_a_row(run, port):
    seen: list[bool] = []

    async def prober(target: ProbeTarget) -> ProbeResult:
        ok = len(seen) != 1  # pass, fail, pass, pass
        seen.append(ok)
        return ProbeResult(ok=ok, seconds=0.0, status=200 if ok else 500, error="" if ok else "answered 500")

    await wait_ready(run(ECHO, port), gate(port), prober=prober)
    assert seen == [True, False, True, True]


async def test_a_listener_in_a_grandchild_is_the_instances_own(run, port):
    await wait_ready(run(GRANDCHILD, port), gate(port))


async def test_an_exit_ends_the_wait_at_once(run, port):
    with pytest.raises(GateFailed, match="ended with exit 4 before it was healthy") as caught:
        await wait_ready(run("raise SystemExit(4)"), gate(port, 60.0))
    assert caught.value.code == "deploy.exited"


@pytest.fixture
def stranger(port: int) -> Iterator[int]:
    """Somebody else listens on the port already, and would pass any probe."""
    with socket.create_server(("127.0.0.1", port)):
        yield port


async def test_an_orphan_on_the_port_is_never_believed(run, stranger):
    async def prober(target: ProbeTarget) -> ProbeResult:
        raise AssertionError("a stranger was probed")

    with pytest.raises(GateFailed, match=rf"port {stranger} is held by .*pid {os.getpid()}"):
        await wait_ready(run("import time; time.sleep(60)"), gate(stranger, 0.5), prober=prober)


async def test_without_the_check_a_containers_listener_passes(run, stranger):
    async def prober(target: ProbeTarget) -> ProbeResult:
        return ProbeResult(ok=True, seconds=0.0, status=200)

    await wait_ready(run("import time; time.sleep(60)"), gate(stranger, check_owner=False), prober=prober)


async def test_what_listens_nowhere_or_elsewhere_is_told_so(run, port):
    with pytest.raises(GateFailed, match=rf"nothing listens on port {port}"):
        await wait_ready(run("import time; time.sleep(60)"), gate(port, 0.3))
    other = PortPool().take()
    with pytest.raises(GateFailed, match=rf"listens on {other} instead of \$PORT, which is {port}"):
        await wait_ready(run(ECHO, other), gate(port, 1.5))


async def test_the_last_status_is_in_the_message(run, port):
    with pytest.raises(GateFailed, match=r"within 1.5 s: GET .* answered 501"):
        await wait_ready(run(SERVER, port), gate(port, 1.5))
