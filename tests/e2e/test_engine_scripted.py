"""Apps in containers by an engine that is played: its client keeps "containers" that outlive it, as a real one does.

What a real engine does with the same calls is in test_containers.py, where one answers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from whole_fairway import Daemon, Project, free_ports, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVER = """
import http.server, signal, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[2].encode())
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
# `run` and `up` ask for a container by a file: it is no child of theirs, as a real engine's is none.
CLIENT = """#!{python} -S
import json, os, signal, sys, time
HOME, words = {home!r}, sys.argv[1:]
with open(HOME + "/asked", "a") as asked:
    asked.write(" ".join(words) + "\\n")

def pid_file(name): return f"{{HOME}}/{{name}}.pid"

def running(name):
    try:
        pid = int(open(pid_file(name)).read())
        state = open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else pid

def attach(name, port):
    if running(name) is None:
        with open(f"{{HOME}}/{{name}}.new", "w") as file:
            file.write(port)
        os.rename(f"{{HOME}}/{{name}}.new", f"{{HOME}}/{{name}}.start")
        while running(name) is None:
            time.sleep(0.01)
    pid = running(name)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    while running(name) == pid:
        time.sleep(0.02)
    print("the container has ended", flush=True)

def end(name):
    pid = running(name)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        while running(name) == pid:
            time.sleep(0.01)

def after(flag): return words[words.index(flag) + 1]

if os.path.exists(HOME + "/stopped"):
    sys.exit("Cannot connect to the engine.")
if "version" in words:
    print("28.2.2")
elif "config" in words:
    service = {{"ports": [{{"published": os.environ["PORT"], "target": 80}}], "build": {{}}}}
    json.dump({{"services": {{"web": service}}}}, open(after("--output"), "w"))
elif words[0] == "run":
    attach(after("--name"), after("--publish").split(":")[1])
elif words[0] == "rm":
    end(words[-1])
elif "up" in words:
    attach(after("--project-name"), os.environ["PORT"])
elif "down" in words:
    end(after("--project-name"))
"""


class Played:
    """A project with an app of an image and one of a Compose file."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.home = project.root / "engine"
        (self.home / "bin").mkdir(parents=True)
        client = self.home / "bin" / "docker"
        client.write_text(CLIENT.format(python=sys.executable, home=str(self.home)))
        client.chmod(0o755)
        for name, file in (("image", "Dockerfile"), ("boxed", "compose.yaml")):
            folder = project.root / "apps" / name
            folder.mkdir(parents=True)
            (folder / file).write_text("FROM scratch\n" if file == "Dockerfile" else "services: {}\n")
            project.entry(name, f"name: {name}\nsource: ../../apps/{name}\nruntime: compose\n")

        self._over = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []
        self._engine = threading.Thread(target=self._start_containers)
        self._engine.start()

    def _start_containers(self) -> None:
        while not self._over.wait(0.01):
            for wish in self.home.glob("*.start"):
                argv = [sys.executable, "-S", "-c", SERVER, wish.read_text(), wish.stem]
                child = subprocess.Popen(argv, env={}, start_new_session=True)
                self._children.append(child)
                wish.with_suffix(".pid").write_text(str(child.pid))
                wish.unlink()

    def close(self) -> None:
        """End the engine and what it runs."""
        self._over.set()
        self._engine.join()
        for child in self._children:
            child.kill()
            child.wait()

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.home / 'bin'}:/usr/bin:/bin"}

    @property
    def asked(self) -> list[str]:
        return (self.home / "asked").read_text().splitlines()

    def containers(self) -> dict[str, int]:
        """The containers that run, by name."""
        found = {}
        for file in self.home.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found[file.stem] = pid
        return found

    def clients(self, daemon: Daemon, *apps: str) -> list[int]:
        return [i["pid"] for app in apps for i in daemon.app(app)["instances"] if i["pid"]]


@pytest.fixture
def played(project: Project) -> Iterator[Played]:
    made = Played(project)
    yield made
    made.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the played engine looks into /proc")
class TestPlayed:
    def test_they_end_with_what_the_engine_is_told(self, played: Played, up: Callable[..., Daemon]) -> None:
        daemon = up(env=played.env)
        assert daemon.get("image")[1].startswith("fairway-image-")
        assert daemon.get("boxed") == (200, "fairway-boxed")
        daemon.do("image", "stop")
        daemon.do("boxed", "stop")
        assert played.containers() == {}
        assert any(line.startswith("rm --force --volumes fairway-image-") for line in played.asked)
        assert any(line.endswith("down --remove-orphans --timeout 10") for line in played.asked)
        assert any("the container has ended" in line for line in daemon.logged("boxed"))

    def test_a_killed_client_of_an_image_takes_its_container_along(
        self, played: Played, up: Callable[..., Daemon]
    ) -> None:
        daemon = up(env=played.env)
        [before] = [pid for name, pid in played.containers().items() if "image" in name]
        for pid in played.clients(daemon, "image"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: before not in played.containers().values(), what="the end of the old container")
        until(lambda: daemon.app("image")["state"] == "running", what="its return")
        assert len([name for name in played.containers() if "image" in name]) == 1

    def test_a_killed_client_of_compose_attaches_again(self, played: Played, up: Callable[..., Daemon]) -> None:
        [port] = free_ports(1)
        entry = f"name: boxed\nsource: ../../apps/boxed\nruntime: compose\nbackend: {{port: {port}}}\n"
        played.project.entry("boxed", entry)
        daemon = up(env=played.env)
        before = played.containers()["fairway-boxed"]
        [client] = played.clients(daemon, "boxed")
        os.kill(client, signal.SIGKILL)
        until(lambda: played.clients(daemon, "boxed") not in ([], [client]), what="another client")
        until(lambda: daemon.app("boxed")["state"] == "running", what="its return")
        assert played.containers()["fairway-boxed"] == before

    def test_nothing_is_left_when_all_of_fairway_was_killed(self, played: Played, up: Callable[..., Daemon]) -> None:
        daemon = up(env=played.env)
        before = set(played.containers().values())
        clients = played.clients(daemon, "image", "boxed")
        daemon.kill()
        for pid in clients:
            os.kill(pid, signal.SIGKILL)
        assert set(played.containers().values()) == before
        daemon.start()
        until(lambda: daemon.app("boxed")["state"] == daemon.app("image")["state"] == "running", what="their return")
        until(lambda: not before & set(played.containers().values()), what="the end of the old ones")
        assert daemon.get("boxed")[0] == 200

    def test_an_engine_that_is_gone_holds_nobody_up(self, played: Played, up: Callable[..., Daemon]) -> None:
        played.project.app("plain")
        daemon = up(env=played.env)
        (played.home / "stopped").touch()
        status, answer = daemon.call("POST", "/v1/apps/boxed:deploy")
        (played.project.root / "apps/boxed/new").touch()
        status, answer = daemon.call("POST", "/v1/apps/boxed:deploy")
        assert status >= 400
        assert "Cannot connect to the engine." in str(answer)
        assert daemon.get("plain")[0] == 200
        daemon.do("image", "stop")
        assert any("Cannot connect to the engine." in line for line in daemon.logged("image"))
