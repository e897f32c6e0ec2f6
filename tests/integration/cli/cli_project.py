"""A project folder with small apps, and the command line in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.platform.layout import Layout
from fairway.run import proctable

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
        self.door, self.api = free_ports(2)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_")}
        self.env |= {"NO_COLOR": "1", "XDG_CONFIG_HOME": str(root / ".config"), "XDG_DATA_HOME": str(root / ".data")}

    @property
    def listen(self) -> list[str]:
        return [f"--listen=127.0.0.1:{self.door}", f"--api=127.0.0.1:{self.api}"]

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

    def refused(self, app: str) -> tuple[int, str | None, str]:
        """Ask the door for an app that does not serve; return status, Retry-After and what the page says."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.door}/", headers={"Host": f"{app}.localhost"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        with caught.value as answer:
            return answer.code, answer.headers["Retry-After"], answer.read().decode()

    def get(self, path: str, app: str = "hello") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.door}{path}", headers={"Host": f"{app}.localhost"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def add(self, name: str, source: str = APP) -> None:
        folder = self.root / name
        folder.mkdir()
        (folder / "main.py").write_text(source)
        (folder / "Procfile").write_text("web: python main.py\n")
        (folder / "requirements.txt").touch()
        self.fairway("add", f"./{name}")

    def processes(self) -> list[int]:
        """Return the door's workers and the instances that live, by the marker in their environment."""
        marker = Layout(self.root / ".fairway").owner + "/"
        return sorted(proctable.marked(proctable.snapshot(), marker))

    @property
    def daemon(self) -> int:
        return int((self.root / ".fairway/run/daemon.lock").read_text().split()[0])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
