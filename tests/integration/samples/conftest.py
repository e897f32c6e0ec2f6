"""Builds the samples by their languages' own commands and starts them as processes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
SAMPLES = REPOSITORY / "apps"
BUILDS = REPOSITORY / ".cache" / "samples"
NEVER_COPIED = shutil.ignore_patterns("node_modules", "bin", "obj", "__pycache__", ".venv", "go-api")
LANGUAGES = {"go-api": "go", "fastapi-api": "python", "express-api": "javascript", "csharp-api": "csharp"}


@dataclass(frozen=True)
class Sample:
    """A built sample: what starts it, and where."""

    name: str
    language: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]


@dataclass
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningSample:
    """A sample's process and the two files that hold its output."""

    def __init__(self, sample: Sample, folder: Path, env: Mapping[str, str], port: int) -> None:
        self.sample = sample
        self.port = port
        self.stdout = folder / "stdout"
        self.stderr = folder / "stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                sample.argv,
                cwd=sample.cwd,
                env={**sample.env, "PORT": str(port), **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait_until_it_serves(self, seconds: float = 30.0) -> None:
        self.wait_for(self._serves, seconds, "an answer from /healthz")

    def _serves(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"{self.sample.name} ended with {self.process.returncode}:\n{self.output()}")
        try:
            return self.get("/healthz").status == 200
        except ConnectionError:
            return False

    def wait_for(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Poll `condition` of a foreign process until it holds; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        never = threading.Event()
        while True:
            if value := condition():
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"{self.sample.name}: no {what} within {seconds} s:\n{self.output()}")
            never.wait(0.02)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def get(self, target: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        connection = self.connect()
        try:
            body = b"" if method == "POST" else None
            connection.request(method, target, body=body, headers=dict(headers or {}))
            return read_answer(connection)
        finally:
            connection.close()

    def log(self) -> list[dict[str, Any]]:
        """Every complete line of stdout; one that is no JSON object fails the test."""
        lines = self.stdout.read_text("utf-8").split("\n")[:-1]
        parsed = [json.loads(line) for line in lines]
        assert all(isinstance(line, dict) for line in parsed), lines
        return parsed

    def requests_logged(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get("request_id") == request_id]

    def output(self) -> str:
        return f"stdout: {self.stdout.read_text('utf-8')}\nstderr: {self.stderr.read_text('utf-8')}"

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def read_answer(connection: http.client.HTTPConnection) -> Answer:
    """Read the answer on `connection` whole."""
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(argv: list[str], cwd: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(argv)} in {cwd} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _build_go(folder: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    _run(["go", "build", "-o", "program", "."], folder, env)
    return (str(folder / "program"),)


def _build_python(folder: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    _run([sys.executable, "-m", "venv", "environment"], folder, env)
    python = str(folder / "environment" / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"], folder, env)
    return (python, "main.py")


def _build_node(folder: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    _run(["npm", "ci", "--omit=dev", "--no-audit", "--no-fund"], folder, env)
    return ("node", "server.js")


def _build_csharp(folder: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    _run(["dotnet", "publish", "--configuration", "Release", "--output", "out"], folder, env)
    return ("dotnet", "out/csharp-api.dll")


BUILDERS: dict[str, Callable[[Path, Mapping[str, str]], tuple[str, ...]]] = {
    "go": _build_go,
    "python": _build_python,
    "javascript": _build_node,
    "csharp": _build_csharp,
}
PROGRAMS = {"go": "go", "python": sys.executable, "javascript": "node", "csharp": "dotnet"}


def _content_hash(folder: Path, extra: str) -> str:
    digest = hashlib.sha256(extra.encode())
    ignored = {"node_modules", "bin", "obj", "__pycache__", ".venv"}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not ignored.intersection(relative.parts):
            digest.update(str(relative).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@pytest.fixture(scope="module", params=sorted(LANGUAGES))
def sample(request: pytest.FixtureRequest) -> Sample:
    """A sample, built once for this state of its sources."""
    name = request.param
    language = LANGUAGES[name]
    # What the samples read is the tests' own to set; the rest, proxies and certificates among it, the builds may need.
    own = ("HOST", "PORT", "SHUTDOWN_TIMEOUT", "WORKERS", "QUEUE", "RETENTION")
    env = {key: value for key, value in os.environ.items() if key not in own and not key.startswith("FAIRWAY_")}
    if language == "csharp":
        env.update(request.getfixturevalue("dotnet_env"))
    elif language != "python":
        env.update(request.getfixturevalue("toolchain_env")("go" if language == "go" else "node"))
    found = shutil.which(PROGRAMS[language], path=env.get("PATH"))
    assert found, f"{PROGRAMS[language]} was promised on {env.get('PATH')}"
    folder = BUILDS / name / _content_hash(SAMPLES / name, found + sys.version)
    command = folder.with_suffix(".json")
    if not command.exists():
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(SAMPLES / name, folder, ignore=NEVER_COPIED)
        command.write_text(json.dumps(BUILDERS[language](folder, env)))
    return Sample(name, language, tuple(json.loads(command.read_text())), folder, env)


@pytest.fixture
def start(sample: Sample, tmp_path: Path) -> Iterator[Callable[..., RunningSample]]:
    """A function that starts the sample with more environment; what it started is killed afterwards."""
    started: list[RunningSample] = []

    def starter(port: int | None = None, **env: str) -> RunningSample:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        running = RunningSample(sample, folder, env, port or free_port())
        started.append(running)
        return running

    yield starter
    for running in started:
        running.kill()


@pytest.fixture(scope="module")
def serving(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSample]:
    """One running sample for the tests that leave it as it was; its release is ``r42``."""
    running = RunningSample(sample, tmp_path_factory.mktemp(sample.name), {"FAIRWAY_RELEASE": "r42"}, free_port())
    try:
        running.wait_until_it_serves()
        yield running
    finally:
        running.kill()
