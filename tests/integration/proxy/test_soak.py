"""Mixed load while routes are reloaded, workers killed and upstreams restarted: no wrong answer, no leak."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from door_peers import DoorProcess

from fairway.proxy.control import DoorClient
from fairway.proxy.errors import ControlError
from fairway.proxy.routes import Route, RouteTable, Target

pytestmark = pytest.mark.integration

CLIENTS = 24
KINDS = ("plain", "post", "chunked-post", "chunked", "close", "large", "socket", "poison", "leave")
Failure = (OSError, asyncio.IncompleteReadError, ConnectionError)


class Upstream:
    """One upstream process on a port that stays its own over restarts."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("soak_upstream.py")
        self.process = subprocess.Popen([sys.executable, str(script), str(self.port)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class SoakClient:
    """Asks one thing after the other and checks every byte of every answer."""

    def __init__(self, port: int, counts: Counter[str], nonces: itertools.count[int]) -> None:
        self._port = port
        self._counts = counts
        self._nonces = nonces
        self._random = random.Random(next(nonces))

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(10):
                    await self._session(until)
            except Failure:
                self._counts["interrupted"] += 1

    async def _session(self, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for _ in range(self._random.randrange(1, 40)):
                if time.monotonic() > until or not await self._ask(reader, writer, self._random.choice(KINDS)):
                    return
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str) -> bool:
        nonce = b"n%d." % next(self._nonces)
        head = f"GET /{kind} HTTP/1.1\r\nHost: app.test\r\nX-Nonce: {nonce.decode()}\r\n".encode()
        wanted = nonce
        if kind == "post":
            body = nonce * 500
            writer.write(head.replace(b"GET", b"POST") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wanted += body
        elif kind == "chunked-post":
            writer.write(head.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%b\r\n" % (len(nonce), nonce) * 3 + b"0\r\n\r\n")
            wanted += nonce * 3
        elif kind == "socket":
            writer.write(head + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n" + nonce)
            wanted = nonce * 2
        else:
            writer.write(head + b"\r\n")
            wanted = nonce * {"chunked": 5, "close": 3, "large": 4000}.get(kind, 1)
        if kind == "leave":
            return False
        status, body, keep = await self._answer(reader, len(wanted))
        if status in {200, 101} and body != wanted:
            self._counts["wrong"] += 1
        self._counts[str(status)] += 1
        return keep and status == 200

    async def _answer(self, reader: asyncio.StreamReader, size: int) -> tuple[int, bytes, bool]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ")[1])
        keep = b"connection: close" not in head
        if status == 101:
            return status, await reader.readexactly(size), False
        if b"transfer-encoding: chunked" in head:
            body = b""
            while length := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(length + 2))[:-2]
            await reader.readexactly(2)
            return status, body, keep
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return status, await reader.readexactly(length), keep


async def push(workers: list[DoorClient], version: int, upstreams: list[Upstream]) -> None:
    targets = tuple(Target(id=f"u{index}", host="127.0.0.1", port=each.port) for index, each in enumerate(upstreams))
    table = RouteTable(version=version, routes=(Route(name="app", host="app.test", targets=targets),))
    for worker in workers:
        try:
            await worker.push(table)
        except ControlError:
            continue  # killed a moment ago: it comes up with the table that it kept


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def soak(folder: Path, seconds: float) -> Counter[str]:
    upstreams = [Upstream(), Upstream()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def worker(name: str) -> DoorProcess:
        arguments = ("--listen", f"127.0.0.1:{port}", "--reuse-port", "--socket", str(folder / f"{name}.sock"))
        return DoorProcess(*arguments, "--upstream-timeout", "5")

    doors = [worker("steady"), worker("killed")]
    clients = [DoorClient(folder / f"{name}.sock") for name in ("steady", "killed")]
    await push(clients, 1, upstreams)
    steady = doors[0]
    counts: Counter[str] = Counter()
    nonces = itertools.count()
    before = descriptors(steady.process.pid)
    end = time.monotonic() + seconds
    load = [asyncio.create_task(SoakClient(port, counts, nonces).run(end)) for _ in range(CLIENTS)]
    middle = 0
    version = 1
    try:
        while time.monotonic() < end:
            await asyncio.sleep(1.0)  # the rhythm of the disturbances, not a wait for anything
            version += 1
            await push(clients, version, upstreams if version % 3 else upstreams[:1])
            if version % 4 == 0:
                doors[1].process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(doors[1].stop)
                doors[1] = await asyncio.to_thread(worker, "killed")
            if version % 5 == 0:
                upstreams[1].kill()
                await asyncio.to_thread(upstreams[1].start)
            if not middle and time.monotonic() > end - seconds / 2:
                middle = steady.rss_bytes()
        await asyncio.gather(*load)
        await push(clients, version + 1, [])
        for _ in range(200):
            statistics = await clients[0].statistics()
            if statistics.connections == 0 and statistics.upstream_connections == 0:
                break
            await asyncio.sleep(0.05)
        assert statistics.requests_in_flight == 0
        assert (statistics.connections, statistics.upstream_connections) == (0, 0), "leaked connections"
        assert statistics.tasks <= 4, "leaked tasks"
        assert descriptors(steady.process.pid) <= before + 2, "leaked descriptors"
        assert all(not target.in_flight for target in statistics.targets.values())
        assert steady.rss_bytes() - middle < 4 << 20, "memory grows"
    finally:
        for door in doors:
            await asyncio.to_thread(door.stop)
        for upstream in upstreams:
            upstream.kill()
    for door in doors:
        assert "Traceback" not in door.errors(), door.errors()
    return counts


def judge(counts: Counter[str], seconds: float) -> None:
    assert counts["wrong"] == 0, counts
    assert counts["200"] > 100 * seconds, counts
    assert counts["101"] > seconds, counts
    assert set(counts) <= {"200", "101", "502", "503", "504", "interrupted"}, counts


async def test_twenty_seconds_of_everything(tmp_path: Path) -> None:
    judge(await soak(tmp_path, 20.0), 20.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_soak_ten_minutes_of_everything(tmp_path: Path) -> None:
    seconds = float(os.environ.get("FAIRWAY_SOAK_SECONDS", "600"))
    judge(await soak(tmp_path, seconds), seconds)
