"""The commands against a daemon of their own: a project with one small app, from `add` to `down`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

APP = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"service": os.environ["FAIRWAY_APP"], "path": self.path}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(json.dumps({"level": "info", "msg": "request", "path": self.path}), flush=True)

    def log_message(self, *args):
        pass

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("listening", flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Project:
    """A project folder and the command line in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.door, self.api, self.grpc = _free_ports(3)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_")}
        self.env |= {"NO_COLOR": "1", "XDG_CONFIG_HOME": str(root / ".config")}

    @property
    def listen(self) -> list[str]:
        return [f"--listen=127.0.0.1:{self.door}", f"--api=127.0.0.1:{self.api}", f"--grpc=127.0.0.1:{self.grpc}"]

    def fairway(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fairway", *arguments],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.fairway(*arguments, "--json", status=status))

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.door}{path}", headers={"Host": "hello.localhost"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def add(self, name: str, source: str = APP) -> None:
        folder = self.root / name
        folder.mkdir()
        (folder / "main.py").write_text(source)
        (folder / "Procfile").write_text("web: python main.py\n")
        (folder / "requirements.txt").touch()
        self.fairway("add", f"./{name}")

    @property
    def daemon(self) -> int:
        return int((self.root / ".fairway/run/daemon.lock").read_text().split()[0])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.fairway("down")


def test_from_an_empty_folder_to_a_served_app_and_back(project: Project) -> None:
    project.add("hello")
    shown = project.fairway("up", "-d", *project.listen)
    assert f"http://hello.localhost:{project.door}" in shown
    assert project.get("/x") == {"service": "hello", "path": "/x"}

    (app,) = project.json("ps")
    assert (app["name"], app["state"], app["ready"]) == ("hello", "running", 1)
    assert "hello" in project.fairway("ps")
    assert "web.1" in project.fairway("ps", "-a", "hello")
    _until(lambda: project.json("health")["targets"][0]["state"] == "healthy")
    assert project.json("health")["healthy"]

    _until(lambda: "path=/x" in project.fairway("logs"))
    assert "listening" in project.fairway("logs", "hello", "--grep", "^listening$", "--raw")
    assert (
        project.fairway("run", "hello", "--", "python", "-c", "import os; print(os.environ['FAIRWAY_APP'])")
        == "hello\n"
    )

    assert project.json("deploy", "hello", "--plan")["planned"]
    assert not project.json("deploy", "hello")["changed"]
    (project.root / "hello" / "main.py").write_text(APP.replace('"path": self.path}', '"path": "new"}', 1))
    first = project.json("releases", "hello")[0]["id"]
    assert project.json("deploy", "hello")["changed"]
    assert project.get("/x")["path"] == "new"
    assert project.json("rollback", "hello")["release"] == first
    assert project.get("/x")["path"] == "/x"
    assert project.json("scale", "hello", "2")["action"] == "scale"
    assert project.json("ps")[0]["ready"] == 2
    project.fairway("stop", "hello")
    assert project.json("ps")[0]["state"] == "stopped"
    project.fairway("start", "hello")
    project.fairway("restart", "hello")
    project.fairway("deploy", "nobody", status=4)
    assert (project.root / ".fairway/run/api.sock").stat().st_mode & 0o777 == 0o600
    assert (project.root / ".fairway/token").stat().st_mode & 0o777 == 0o600

    _check_tcp(project)
    project.fairway("up", *project.listen, status=5)  # a second daemon
    assert project.fairway("down") == "Stopped.\n"
    project.fairway("ps", status=3)
    assert project.fairway("down").startswith("Nothing runs")


def test_a_broken_app_fails_loudly_and_alone(project: Project) -> None:
    project.add("hello")
    project.add("broken", "import sys; print('about to', flush=True); sys.exit('no database')")
    shown = project.fairway("up", "-d", *project.listen, status=1)
    assert "| no database" in shown
    told = project.json("up", "-d", *project.listen, status=1)
    assert {app["name"]: app["state"] for app in told["apps"]} == {"hello": "running", "broken": "failed"}
    assert project.get("/")["service"] == "hello"


def test_killed_and_started_again_no_line_is_lost_and_down_finds_the_orphans(project: Project) -> None:
    project.add("hello")
    project.fairway("up", "-d", *project.listen)
    pid = project.daemon
    os.kill(pid, signal.SIGKILL)
    for n in range(20):
        assert project.get(f"/gap-{n}")["path"] == f"/gap-{n}"
    seen = [line for line in project.fairway("logs", "--json", "--since", "1m").splitlines() if "/gap-" in line]
    assert len(seen) == 20
    project.fairway("up", "-d", *project.listen)
    assert project.daemon != pid
    assert project.json("ps", "-a")[0]["instances"][0]["number"] == 1
    seen = [
        json.loads(line)["text"]
        for line in project.fairway("logs", "--json", "--since", "1m", "--grep", "gap").splitlines()
    ]
    assert [json.loads(text)["path"] for text in seen] == [f"/gap-{n}" for n in range(20)]
    os.kill(project.daemon, signal.SIGKILL)
    assert "an earlier one left behind" in project.fairway("down")


def test_the_foreground_drains_at_the_first_interrupt(project: Project) -> None:
    project.add("hello")
    command = [sys.executable, "-m", "fairway", "up", *project.listen]
    up = subprocess.Popen(
        command, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert up.stdout is not None
    lines = []
    for line in up.stdout:
        lines.append(line)
        if "Ctrl-C stops everything" in line:
            break
    else:
        pytest.fail("".join(lines))
    assert project.get("/")["service"] == "hello"
    up.send_signal(signal.SIGINT)
    rest = up.stdout.read()
    assert up.wait(30) == 0, rest
    assert "Draining and stopping" in rest
    assert rest.endswith("Stopped.\n")
    up.stdout.close()
    assert project.fairway("down").startswith("Nothing runs")


def test_a_second_interrupt_kills_what_does_not_end(project: Project) -> None:
    project.add("hello", APP.replace("lambda *_: os._exit(0)", "signal.SIG_IGN"))
    command = [sys.executable, "-m", "fairway", "up", *project.listen]
    up = subprocess.Popen(
        command, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert up.stdout is not None
    for awaited in ("Ctrl-C stops everything", "Ctrl-C again stops at once"):
        line = next((line for line in up.stdout if awaited in line), None)
        assert line is not None, f"it never said {awaited!r}"
        up.send_signal(signal.SIGINT)
    assert "Killed" in up.stdout.read()
    assert up.wait(30) == 130
    up.stdout.close()
    assert project.fairway("down").startswith("Nothing runs")


def _check_tcp(project: Project) -> None:
    """The API over TCP: a token is needed; logs follow as events; health and metrics answer."""
    base = f"http://127.0.0.1:{project.api}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{base}/v1/apps", timeout=5)
    token = (project.root / ".fairway/token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(f"{base}/metrics", headers=headers), timeout=5) as answer:
        text = answer.read().decode()
    assert 'fairway_app_ready{app="hello"} 2.0' in text
    follow = urllib.request.Request(f"{base}/v1/logs?follow&app=hello&tail=0", headers=headers)
    with urllib.request.urlopen(follow, timeout=10) as events:
        while not events.readline().startswith(b"event: live"):
            pass
        project.get("/followed")
        for line in events:
            if line.startswith(b"data:") and b"followed" in line:
                break


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
