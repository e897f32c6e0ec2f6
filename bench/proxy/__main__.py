"""``python -m bench.proxy``: throughput, CPU a request, latency, memory and TLS of the door and its peers."""

from __future__ import annotations

import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import CACHE, Report, arguments, finish
from bench.proxy import peers
from bench.proxy.peers import Load, Server

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: slow.test\r\nX-Slow: "


def main() -> int:
    """Run everything, print, and return the exit status."""
    args = arguments("the door beside NGINX, HAProxy, Go and Caddy")
    (CACHE / "proxy").mkdir(parents=True, exist_ok=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = Report("proxy", versions=peers.versions())
    back = peers.upstream()
    try:
        throughput(report, back, rounds=1 if args.quick else 3, seconds=1.0 if args.quick else 2.0)
        memory(report, back, idle=2_000 if args.quick else 10_000)
        slowloris(report, back, connections=1_000 if args.quick else 5_000, seconds=1.0 if args.quick else 3.0)
        tls(report, back, seconds=1.0 if args.quick else 3.0)
    finally:
        back.stop()
    return finish(report, args)


def start_all(report: Report, back: Server, log: Path) -> list[Server]:
    """Start the door in both forms, one with `log` as its access log, and every peer that is installed."""
    makers: dict[str, Callable[[], Server]] = {
        "fairway": lambda: peers.door(back.port, "--no-trace"),
        "fairway+log": lambda: peers.door(back.port, "--access-log", str(log), name="fairway+log"),
        "nginx": lambda: peers.nginx(back.port),
        "haproxy": lambda: peers.haproxy(back.port),
        "go": lambda: peers.goproxy(back.port),
        "caddy": lambda: peers.caddy(back.port),
    }
    servers: list[Server] = []
    try:
        for name, make in makers.items():
            try:
                servers.append(make())
            except FileNotFoundError as error:
                report.note(f"{name} is not measured: {error} is not installed")
                continue
            peers.check_answers(servers[-1], back)
    except BaseException:
        for server in servers:
            server.stop()
        raise
    return servers


def throughput(report: Report, back: Server, rounds: int, seconds: float) -> None:
    """Measure all of them in turns, so that what the machine does meanwhile meets all alike."""
    log = Path(tempfile.mkdtemp()) / "access.json"
    servers = start_all(report, back, log)
    runs: dict[tuple[str, str], list[Load]] = {}
    try:
        for path in ("/", "/64k"):
            for server in servers:
                peers.load(server, path, 0.5)
            for _ in range(rounds):
                for server in servers:
                    found = peers.load(server, path, seconds)
                    if found.errors:
                        raise RuntimeError(f"{server.name}: {found.errors} answers were not 2xx")
                    runs.setdefault((server.name, path), []).append(found)
            for server in servers:
                if path == "/":
                    unique = [peers.load(server, path, seconds, unique=True) for _ in range(2)]
                    runs[server.name, "unique"] = unique
        for server in servers:
            small, large = runs[server.name, "/"], runs[server.name, "/64k"]
            report.row(server.name, "128 B, 64 connections", "requests/s", runs=[run.rate for run in small])
            report.row(server.name, "CPU a request", "µs", runs=[run.cpu_us for run in small])
            report.row(server.name, "p99", "ms", runs=[run.p99_ms for run in small])
            other = runs[server.name, "unique"]
            report.row(server.name, "128 B, no two heads alike", "requests/s", runs=[run.rate for run in other])
            report.row(server.name, "no two heads alike, CPU", "µs", runs=[run.cpu_us for run in other])
            report.row(server.name, "64 KiB", "MiB/s", runs=[run.rate * 65536 / (1 << 20) for run in large])
            report.row(server.name, "64 KiB, CPU a request", "µs", runs=[run.cpu_us for run in large])
            report.row(server.name, "memory", "MiB", value=server.rss_mib())
    finally:
        for server in servers:
            server.stop()
    check_log(report, log, sum(run.requests for (name, _), found in runs.items() for run in found if "+log" in name))
    throughput_goals(report, runs)


def check_log(report: Report, log: Path, requests: int) -> None:
    """Say how many records are missing: one that was dropped has cost nothing."""
    with log.open("rb") as file:
        written = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
    if written < requests:
        report.note(f"the access log has {written} records of {requests} measured requests")
    log.unlink()


def throughput_goals(report: Report, runs: dict[tuple[str, str], list[Load]]) -> None:
    """Compare medians of one run."""

    def median(name: str, path: str, figure: Callable[[Load], float]) -> float:
        return statistics.median(figure(run) for run in runs[name, path])

    if ("go", "/") in runs:
        ours, go = (median(name, "/", lambda run: run.rate) for name in ("fairway", "go"))
        report.goal("requests/s over Go's", ours / go, 2.5)
        report.goal(
            "64 KiB bytes/s over Go's",
            *([median("fairway", "/64k", lambda run: run.rate) / median("go", "/64k", lambda run: run.rate), 1.5]),
        )
        p99 = median("fairway", "/", lambda run: run.p99_ms) / median("go", "/", lambda run: run.p99_ms)
        report.goal("p99 over Go's", p99, 1.0, "<=")
    if ("haproxy", "/") in runs:
        haproxy = median("haproxy", "/", lambda run: run.cpu_us)
        report.goal("CPU a request over HAProxy's", median("fairway", "/", lambda run: run.cpu_us) / haproxy, 1.3, "<=")
        full = median("fairway+log", "/", lambda run: run.cpu_us) / haproxy
        report.goal("CPU a request with log, metrics, ids over HAProxy's", full, 1.6, "<=")
    report.goal(
        "memory, 64 connections (MiB)",
        next(row.value for row in report.rows if (row.name, row.metric) == ("fairway", "memory")),
        40,
        "<=",
    )


def memory(report: Report, back: Server, idle: int) -> None:
    """Measure what an idle connection costs, and a client that does not read."""
    server = peers.door(back.port, "--keepalive-timeout", "600", "--header-timeout", "600")
    held: list[socket.socket] = []
    try:
        peers.load(server, "/", 1.0)
        before = server.rss_mib()
        for _ in range(idle):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.recv(4096)
            held.append(connection)
        time.sleep(1.0)
        each = (server.rss_mib() - before) * 1024 / idle
        report.row("fairway", f"memory an idle connection, at {idle}", "KiB", value=each)
        report.goal("memory an idle connection (KiB)", each, 6.0, "<=")
    finally:
        for connection in held:
            connection.close()
        server.stop()
    grown = not_reading()
    report.row("fairway", "memory grown, 1 GiB answer not read", "MiB", value=grown)
    report.goal("memory grown, 1 GiB answer not read (MiB)", grown, 1.0, "<=")


def not_reading() -> float:
    """Return by how many MiB the door grows while a client does not read a 1 GiB answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def flood() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.settimeout(3.0)
            try:
                asked = peer.recv(65536)
                if b" /flood" not in asked:
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    continue
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
                while True:
                    peer.sendall(b"x" * 65536)
            except OSError:
                peer.close()

    threading.Thread(target=flood, daemon=True).start()
    server = peers.door(listener.getsockname()[1])
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as warm:
            warm.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while warm.recv(4096):
                pass
        before = server.rss_mib()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
            client.recv(100)
            grown = 0.0
            for _ in range(20):
                time.sleep(0.1)
                grown = max(grown, server.rss_mib() - before)
            return grown
    finally:
        server.stop()
        listener.close()


def slowloris(report: Report, back: Server, connections: int, seconds: float) -> None:
    """Measure others' p99 beside connections that never finish their heads."""
    server = peers.door(back.port, "--header-timeout", "300")
    held: list[socket.socket] = []
    dripping = threading.Event()

    def drip() -> None:
        """Send every connection a byte every five seconds, evenly spread, as such attacks do to stay cheap."""
        position = 0
        while not dripping.wait(0.05):
            for connection in held[position : position + connections // 100]:
                try:
                    connection.send(b"a")
                except OSError:
                    continue
            position = (position + connections // 100) % connections

    try:
        peers.load(server, "/", 1.0)
        quiet = [peers.load(server, "/", seconds).p99_ms for _ in range(3)]
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(HALF_HEAD)
            held.append(connection)
        threading.Thread(target=drip, daemon=True).start()
        loud = [peers.load(server, "/", seconds).p99_ms for _ in range(3)]
    finally:
        dripping.set()
        for connection in held:
            connection.close()
        server.stop()
    report.row("fairway", "p99, quiet", "ms", runs=quiet)
    report.row("fairway", f"p99 beside {connections} slow heads", "ms", runs=loud)
    ratio = statistics.median(loud) / statistics.median(quiet)
    report.goal("p99 beside slow heads over the quiet one", ratio, 2.0, "<=")


def tls(report: Report, back: Server, seconds: float) -> None:
    """Measure handshakes and requests over TLS with a certificate of the development authority."""
    from fairway.proxy.devca import DevelopmentAuthority

    folder = Path(tempfile.mkdtemp())
    DevelopmentAuthority(folder / "authority").issue(["app.localhost"], folder / "certificates")
    port = peers.free_port()
    server = peers.door(back.port, "--tls-listen", f"127.0.0.1:{port}", "--certificates", str(folder / "certificates"))
    try:
        handshakes = peers.load(server, "/", seconds, connections=16, close=True, tls=port)
        kept = peers.load(server, "/", seconds, tls=port)
    finally:
        server.stop()
    report.row("fairway", "TLS, a handshake a request", "requests/s", value=handshakes.rate)
    report.row("fairway", "TLS, 64 kept connections", "requests/s", value=kept.rate)


if __name__ == "__main__":
    sys.exit(main())
