"""The whole of Fairway as its users run it: a project on disk, the daemon as a process, and clients at the door."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# An app of the standard library alone: answers with its release and the request's nonce, writes one line a request,
# finishes what is in flight at SIGTERM. What it does differently is told by files and variables.
APP = """
import asyncio, json, os, signal, sys
VERSION = open("VERSION").read().strip() if os.path.exists("VERSION") else "0"
FAIL = os.environ.get("FAIL", "")
if FAIL == "exit":
    print("cannot find my settings", flush=True)
    sys.exit(3)
STATUS = os.environ.get("STATUS", "200")

async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode("latin-1")
            line, *fields = head.split("\\r\\n")
            path = line.split()[1]
            nonce = next((f[9:] for f in fields if f.lower().startswith("x-nonce: ")), "")
            if path.startswith("/slow"):
                await asyncio.sleep(0.3)
            sick = FAIL == "health" or os.path.exists(f"sick-{os.getpid()}")
            status = STATUS if path != "/healthz" else "500" if sick else "200"
            answer = {"version": VERSION, "pid": os.getpid(), "nonce": nonce, "colour": os.environ.get("COLOUR")}
            body = json.dumps(answer).encode()
            if nonce:
                print("served", nonce, flush=True)
            writer.write(b"HTTP/1.1 %s X\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status.encode(), len(body)) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    if FAIL != "silent":
        await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    print("started", VERSION, flush=True)
    await end.wait()
    print("stopped", VERSION, flush=True)

asyncio.run(main())
"""


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Project:
    """A folder with a registry."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / "compose" / "app-registry"
        self.registry.mkdir(parents=True, exist_ok=True)

    def entry(self, name: str, text: str) -> None:
        (self.registry / f"{name}.yaml").write_text(textwrap.dedent(text))

    def app(self, name: str, more: str = "", *, version: str = "1") -> None:
        """Write the little app and its entry; `more` is further YAML."""
        folder = self.root / "apps" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server").write_text(APP)  # no *.py: nothing has to be built, no environment to be made
        self.version(name, version)
        more = textwrap.dedent(more)
        health = "" if "health:" in more else "health: {path: /healthz}\n"
        self.entry(
            name, f"name: {name}\nsource: ../../apps/{name}\ncommand: [{sys.executable}, server]\n{health}{more}\n"
        )

    def version(self, name: str, version: str) -> None:
        (self.root / "apps" / name / "VERSION").write_text(version)


class Daemon:
    """`fairway up` in the foreground, on ports of its own."""

    def __init__(self, project: Project, *, env: dict[str, str] | None = None, options: tuple[str, ...] = ()) -> None:
        self.project = project
        self.door_port, self.api_port = free_ports(2)
        self.options = options
        self.env = {**os.environ, **(env or {})}
        self.output = project.root / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.project.root / ".fairway"

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "fairway", "-C", str(self.project.root), *words]

    def start(self, *, wait: bool = True) -> Daemon:
        words = ("--listen", f"127.0.0.1:{self.door_port}", "--api", f"127.0.0.1:{self.api_port}")
        argv = self.words("up", *words, *self.options)
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=out, env=self.env, start_new_session=True)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon has ended:\n{self.said()}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready within {seconds} s:\n{self.said()}")

    def said(self) -> str:
        log = self.state / "logs" / "_fairway" / "daemon.0.log"
        own = log.read_text()[-3000:] if log.exists() else ""
        return self.output.read_text(errors="replace")[-3000:] + own

    def kill(self) -> None:
        """SIGKILL, and nothing else."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        if self.process is None or self.process.poll() is not None:
            return -1 if self.process is None else int(self.process.returncode)
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the daemon does not end:\n{self.said()}") from None

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = 90.0) -> tuple[int, Any]:
        """One request to the HTTP API."""
        token = self.state / "token"
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def do(self, app: str, verb: str, body: Any = None) -> Any:
        """An operation on an app that has to succeed."""
        status, answer = self.call("POST", f"/v1/apps/{app}:{verb}", body)
        assert status == 200, answer
        return answer

    def app(self, name: str) -> Any:
        status, answer = self.call("GET", f"/v1/apps/{name}")
        assert status == 200, answer
        return answer

    def get(self, app: str, path: str = "/", *, nonce: str = "") -> tuple[int, Any]:
        """One request through the door."""
        connection = http.client.HTTPConnection("127.0.0.1", self.door_port, timeout=30)
        try:
            headers = {"Host": f"{app}.localhost"}
            if nonce:
                headers["X-Nonce"] = nonce
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text.decode("utf-8", "replace")

    def logged(self, app: str) -> list[str]:
        """Every line of every instance of an app."""
        files = sorted((self.state / "logs" / app).glob("*.log"))
        return [line for file in files for line in file.read_text(errors="replace").splitlines()]


def until(condition: Callable[[], Any], seconds: float = 20.0, *, what: str = "the condition") -> Any:
    """Wait for something that real processes do, within a bound."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.02)


class Load:
    """Keep-alive clients that ask the door without pause; every answer has to be the one to its own question.

    Attributes:
        answered: Nonces of the requests that were answered right.
        failures: What went wrong, by kind.
        versions: Answers by the version that gave them.
        slowest: Seconds of the slowest answer.
    """

    def __init__(self, port: int, app: str, clients: int, *, path: str = "/", pause: float = 0.002) -> None:
        self.port, self.app, self.clients, self.path, self.pause = port, app, clients, path, pause
        self.answered: list[str] = []
        self.failures: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.slowest = 0.0
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client(i)) for i in range(self.clients)]
        await self.more(self.clients)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def more(self, count: int, seconds: float = 30.0) -> None:
        """Wait for so many answers more."""
        wanted = len(self.answered) + count
        async with asyncio.timeout(seconds):
            while len(self.answered) < wanted:
                await asyncio.sleep(0.01)

    async def _client(self, number: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        count = 0
        while not self._stop.is_set():
            count += 1
            nonce = f"{number}-{count}"
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                closing = await asyncio.wait_for(self._ask(reader, writer, nonce), 30)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                self.failures[f"{type(error).__name__}: {error}"] += 1
                closing = True
            if closing and writer is not None:
                writer.close()
                reader = writer = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self.pause)
        if writer is not None:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, nonce: str) -> bool:
        began = time.perf_counter()
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.app}.localhost\r\nX-Nonce: {nonce}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(next(f[16:] for f in head.split("\r\n") if f.startswith("content-length: ")))
        body = await reader.readexactly(length)
        self.slowest = max(self.slowest, time.perf_counter() - began)
        status = head[9:12]
        if status != "200":
            self.failures[f"{status} {body[:120]!r}"] += 1
        else:
            answer = json.loads(body)
            if answer["nonce"] != nonce:
                self.failures["the answer to another question"] += 1
            self.versions[answer["version"]] += 1
            self.answered.append(nonce)
        return "connection: close" in head
