"""Run every case interleaved, three times each, and print events and deliveries a second beside the peers'."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.harness import ROOT, Report, arguments, finish, peer_venv, run

HERE = Path(__file__).parent
BLINKER = "1.9.0"
FASTSTREAM = "0.6.3"


@dataclass(frozen=True)
class Case:
    """One line of the comparison: `url` is None for a peer that has no store, ``redis`` for the server's own."""

    name: str
    script: str
    python: Path
    url: str
    share: float  # of the number of events: what is slower gets fewer


@contextmanager
def redis_server() -> Iterator[str | None]:
    """Start a Redis with an append-only file on a free port; None where there is none to start."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--save", ""]
        server = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def measure(case: Case, url: str, subscribers: int, count: int) -> dict[str, float]:
    """Run one case in a process of its own; raises `RuntimeError` where a subscriber has not seen every event."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"sqlite:///{folder}/events.db" if url == "sqlite" else url
        if target.startswith("redis"):
            flush(target)
        text = run([str(case.python), str(HERE / case.script), target, str(subscribers), str(count)], timeout=300)
    result: dict[str, float] = json.loads(text.strip().splitlines()[-1])
    if not result["ok"]:
        raise RuntimeError(f"{case.name}: not every one of {subscribers} subscribers saw every one of {count} events")
    return result


def flush(url: str) -> None:
    """Empty the server between two cases."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(64)


def cases(redis: str | None, report: Report) -> list[Case]:
    """Return what can be measured here; what cannot is noted."""
    own = Path(sys.executable)
    found = [
        Case("fairway memory", "case_fairway.py", own, "memory://", 1.0),
        Case("fairway SQLite (fsync)", "case_fairway.py", own, "sqlite", 0.1),
    ]
    found.append(Case("blinker", "case_blinker.py", peer_venv("blinker", [f"blinker=={BLINKER}"]), "-", 1.0))
    report.versions.update({"fairway": version("fairway"), "blinker": BLINKER})
    if redis is None:
        report.note("no redis-server on this machine: Redis Streams and FastStream are left out")
        return found
    found.append(Case("fairway Redis", "case_fairway.py", own, redis, 0.1))
    faststream = peer_venv("faststream", [f"faststream[redis]=={FASTSTREAM}"])
    found.append(Case("FastStream Redis", "case_faststream.py", faststream, redis, 0.1))
    report.versions["faststream"] = FASTSTREAM
    return found


def main() -> int:
    """Measure and report."""
    args = arguments("events a second, one publisher, 1, 10 and 100 subscribers")
    report = Report("events")
    rounds, base = (1, 5_000) if args.quick else (3, 30_000)
    with redis_server() as redis:
        everything = cases(redis, report)
        for subscribers in (1, 10, 100):
            rates: dict[str, list[float]] = {case.name: [] for case in everything}
            for _ in range(rounds):
                for case in everything:
                    count = max(200, int(base * case.share / (1 if subscribers < 100 else 5)))
                    result = measure(case, case.url, subscribers, count)
                    rates[case.name].append(count / result["elapsed"])
            for name, runs in rates.items():
                report.row(name, f"{subscribers} subscribers", "events/s", runs=runs)
            for name, runs in rates.items():
                report.row(
                    name, f"{subscribers} subscribers", "deliveries/s", runs=[run_ * subscribers for run_ in runs]
                )
    report.note("blinker calls its receivers inside send(): no queue, no back-pressure, no store; a floor, not a rival")
    report.note("publishing is one by one, each acknowledged; Redis with appendonly yes, appendfsync everysec")
    return finish(report, args)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
