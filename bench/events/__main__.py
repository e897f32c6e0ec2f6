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

from bench.harness import ROOT, Report, finish, parser, peer_venv, run

HERE = Path(__file__).parent
BLINKER = "1.9.0"
FASTSTREAM = "0.6.3"
PEER = "FastStream Redis"
SQLITE = "fairway SQLite (fsync)"
GOALS = {"1 subscriber": 2.0, "10 subscribers": 4.0, "100 subscribers": 10.0, "group of one, acknowledged": 2.0}


@dataclass(frozen=True)
class Case:
    """One line of the comparison: a script, and the store or server that it is run on."""

    name: str
    script: str
    python: Path
    url: str
    share: float  # of the number of events: what is slower gets fewer


@dataclass(frozen=True)
class Load:
    """One figure: how many publish and read; `group` has a consumer group read instead, after the publishing."""

    metric: str
    subscribers: int
    publishers: int
    divisor: int  # of the number of events: what has more readers gets fewer
    group: bool = False

    @property
    def scripts(self) -> frozenset[str]:
        """Scripts that can carry it out."""
        if self.group:
            return frozenset({"case_group.py", "case_faststream_group.py"})
        return frozenset(
            {"case_fairway.py", "case_faststream.py"} | ({"case_blinker.py"} if self.publishers == 1 else set())
        )


LOADS = (
    Load("1 subscriber", 1, 1, 1),
    Load("10 subscribers", 10, 1, 2),
    Load("100 subscribers", 100, 1, 8),
    Load("1 subscriber, 32 publishers", 1, 32, 1),
    Load("group of one, acknowledged", 1, 1, 2, group=True),
)


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


def measure(case: Case, load: Load, count: int) -> dict[str, float]:
    """Run one case in a process of its own; raises `RuntimeError` where a subscriber has not seen every event."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"sqlite:///{folder}/events.db" if case.url == "sqlite" else case.url
        if target.startswith("redis"):
            flush(target)
        sizes = [count] if load.group else [load.subscribers, count, load.publishers]
        text = run([str(case.python), str(HERE / case.script), target, *map(str, sizes)], timeout=300)
    result: dict[str, float] = json.loads(text.strip().splitlines()[-1])
    if not result["ok"]:
        raise RuntimeError(f"{case.name}, {load.metric}: not every subscriber saw every one of {count} events")
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
        Case("fairway memory", "case_group.py", own, "memory://", 1.0),
        Case(SQLITE, "case_fairway.py", own, "sqlite", 0.2),
        Case(SQLITE, "case_group.py", own, "sqlite", 0.2),
    ]
    found.append(Case("blinker", "case_blinker.py", peer_venv("blinker", [f"blinker=={BLINKER}"]), "-", 1.0))
    report.versions.update({"fairway": version("fairway"), "blinker": BLINKER})
    if redis is None:
        report.note("no redis-server on this machine: Redis Streams and FastStream are left out")
        return found
    found.append(Case("fairway Redis", "case_fairway.py", own, redis, 0.2))
    found.append(Case("fairway Redis", "case_group.py", own, redis, 0.2))
    peer = [f"faststream[redis]=={FASTSTREAM}", "uvloop", "hiredis"]
    faststream = peer_venv("faststream", peer)
    found.append(Case(PEER, "case_faststream.py", faststream, redis, 0.1))
    found.append(Case(PEER, "case_faststream_group.py", faststream, redis, 0.1))
    report.versions["faststream"] = FASTSTREAM
    return found


def compare(report: Report, rates: dict[tuple[str, str], float]) -> None:
    """Add the goals: what the Redis store owes its peer, and what group commit owes one by one."""
    for metric, goal in GOALS.items():
        if (PEER, metric) in rates and ("fairway Redis", metric) in rates:
            ratio = rates["fairway Redis", metric] / rates[PEER, metric]
            report.goal(f"Redis over FastStream, {metric}", ratio, goal)
    one, many = ((SQLITE, load.metric) for load in (LOADS[0], LOADS[3]))
    if one in rates and many in rates:
        report.goal("SQLite, 32 publishers over one", rates[many] / rates[one], 4.0)


def main() -> int:
    """Measure and report."""
    options = parser("events a second: one publisher, 1, 10 and 100 subscribers; 32 publishers; a consumer group")
    options.add_argument("--only", metavar="TEXT", help="only figures or systems whose name has this in it")
    args = options.parse_args()
    report = Report("events")
    rounds, base = (1, 5_000) if args.quick else (3, 30_000)
    rates: dict[tuple[str, str], float] = {}
    with redis_server() as redis:
        everything = cases(redis, report)
        for load in LOADS:
            chosen = [case for case in everything if case.script in load.scripts]
            if args.only:
                chosen = [case for case in chosen if args.only in case.name or args.only in load.metric]
            runs: dict[str, list[float]] = {case.name: [] for case in chosen}
            for _ in range(rounds):
                for case in chosen:
                    count = max(200, int(base * case.share / load.divisor))
                    runs[case.name].append(count / measure(case, load, count)["elapsed"])
            for name, each in runs.items():
                rates[name, load.metric] = report.row(name, load.metric, "events/s", runs=each)
            for name, each in runs.items() if load.subscribers > 1 else ():
                report.row(name, load.metric, "deliveries/s", runs=[one * load.subscribers for one in each])
    compare(report, rates)
    report.note("blinker calls its receivers inside send(): no queue, no back-pressure, no store; a floor, not a rival")
    report.note(
        "every publish is acknowledged before its publisher's next; Redis: appendonly yes, appendfsync everysec"
    )
    report.note("one publisher on SQLite waits for the disk once an event; 32 share each wait (group commit)")
    return finish(report, args)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
