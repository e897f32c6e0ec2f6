"""The scene of the benchmark: a project with the four samples, built once, and the two ways to start it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import CACHE, ROOT
from fairway.run.environment import inherited
from fairway.run.release import Release, list_releases, with_port

FAIRWAY = Path(sys.executable).parent / "fairway"
_POLL = 0.004
_READY = 120.0


@dataclass(slots=True)
class Scene:
    """The project and its ports.

    Attributes:
        root: Project folder, kept between runs so that everything is built already.
        env: Environment of both starters; a .NET SDK's variables are in it where one was found.
        apps: Samples that could be built.
    """

    root: Path
    env: dict[str, str]
    apps: list[str] = field(default_factory=list)
    door: int = 0
    api: int = 0

    def command(self, *words: str) -> list[str]:
        """Return a `fairway` command on this project."""
        return [str(FAIRWAY), "-C", str(self.root), *words]

    def up(self) -> subprocess.Popen[bytes]:
        """Start `fairway up` in the foreground, on fresh ports."""
        self.door, self.api = free_ports(2)
        argv = self.command("up", "--listen", f"127.0.0.1:{self.door}", "--api", f"127.0.0.1:{self.api}")
        with (self.root / "up.log").open("ab") as out:
            return subprocess.Popen(
                argv,
                stdout=out,
                stderr=out,
                env=self.env,
                start_new_session=True,
            )

    def settled(self, process: subprocess.Popen[bytes]) -> dict[str, str]:
        """Wait until every app has come up or failed; return the states by name."""
        end = time.monotonic() + 300
        token = self.root / ".fairway" / "token"
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                if ask(self.api, "/readyz")[0] == 200:
                    bearer = {"Authorization": f"Bearer {token.read_text().strip()}"}
                    apps = json.loads(ask(self.api, "/v1/apps", bearer)[1])["apps"]
                    return {app["name"]: app["state"] for app in apps}
            time.sleep(0.05)
        raise RuntimeError(f"`fairway up` did not get ready:\n{(self.root / 'up.log').read_text()[-2000:]}")

    def releases(self) -> dict[str, Release]:
        """Return the newest release of every app that was built."""
        return {name: list_releases(self.root / ".fairway", name)[0] for name in self.apps}

    def script(self, ports: Mapping[str, int]) -> Path:
        """Write a shell script that starts the commands of the releases in parallel, as somebody would by hand."""
        lines = ["#!/bin/sh"]
        for name, release in self.releases().items():
            command, port = release.processes["web"], ports[name]
            values = {**inherited(self.env), **release.env, **command.env, "FAIRWAY_RELEASE": release.id}
            values["PORT"] = str(port)
            env = " ".join(f"{k}={shlex.quote(with_port(v, port))}" for k, v in values.items())
            argv = shlex.join(with_port(word, port) for word in command.argv)
            log = shlex.quote(str(self.root / f"{name}.log"))
            lines.append(f"(cd {shlex.quote(str(command.cwd))} && exec env -i {env} {argv}) >{log} 2>&1 </dev/null &")
        path = self.root / "start.sh"
        path.write_text("\n".join([*lines, "wait"]) + "\n")
        path.chmod(0o700)
        return path


def make() -> Scene:
    """Copy registry and samples into the cache, build them by one `fairway up`, and return the scene."""
    root = CACHE / "up" / "project"
    leave = shutil.ignore_patterns("node_modules", "bin", "obj", "__pycache__", ".venv")
    for folder in ("apps", "compose/app-registry"):
        shutil.copytree(ROOT / folder, root / folder, ignore=leave, dirs_exist_ok=True)
    scene = Scene(root, _environment())
    process = scene.up()
    try:
        states = scene.settled(process)
        scene.apps = sorted(name for name, state in states.items() if state == "running")
    finally:
        end(process)
    if not scene.apps:
        raise RuntimeError(f"no sample could be built: {states}")
    return scene


def first_answers(process: subprocess.Popen[bytes], places: Mapping[str, tuple[int, str]], began: float) -> float:
    """Return the seconds since `began` until every place (port, host) has answered a GET with its own name.

    Raises:
        RuntimeError: The starter has ended, or an answer did not come.
    """
    waiting = dict(places)
    while waiting:
        if process.poll() is not None or time.perf_counter() - began > _READY:
            raise RuntimeError(f"no answer from {sorted(waiting)}")
        for name, (port, host) in list(waiting.items()):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                status, body = ask(port, "/", {"Host": host})
                if status == 200 and json.loads(body)["service"] == name:
                    del waiting[name]
        time.sleep(_POLL)
    return time.perf_counter() - began


def ask(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """GET once; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def end(process: subprocess.Popen[bytes], *, group: bool = False) -> None:
    """End a starter as its user would, by Ctrl-C; a script by ending its process group.

    Returns when all that it has started is gone: apps that are still shutting down would be in the way of what is
    measured next. `fairway up` waits for them itself, a shell does not.
    """
    if process.poll() is None:
        if group:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if group:
        _wait_for_group(process.pid, 60.0)


def _wait_for_group(leader: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        time.sleep(_POLL)
    raise RuntimeError(f"the processes of the script did not end within {seconds:g} s")


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _environment() -> dict[str, str]:
    """Return the environment, with a .NET SDK where one is installed or was set up for the tests."""
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling every module at every start is nobody's usual case
    if shutil.which("dotnet") or (ROOT / ".cache" / "dotnet").is_dir():
        script = f'eval "$({shlex.quote(str(ROOT / "scripts" / "setup-dotnet.sh"))})" && env -0'
        done = subprocess.run(["bash", "-c", script], capture_output=True, check=False, timeout=300)
        if done.returncode == 0:
            pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0") if "=" in entry)
            env.update({name: value for name, _, value in pairs})
    return env
