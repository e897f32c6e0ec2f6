"""`python -m bench.concurrency`: channels beside their peers on each Python and loop, with the project's goals."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.harness import CACHE, ROOT, Report, arguments, finish, peer_venv, pythons, run

PEERS = ["uvloop", "anyio", "trio", "janus", "culsans", "aiologic"]
# metric → (least ratio over asyncio.Queue on CPU time)
OVER_QUEUE = {"buffered 1→1": 2.0, "ping-pong": 2.0, "8→8": 1.7}
Times = dict[str, dict[str, list[float]]]


def worker(python: Path, module: str, *words: str) -> Any:
    """Run a module of this package in the peers' environment and return the JSON that it prints."""
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return json.loads(run([str(python), "-m", f"bench.concurrency.{module}", *words], env=env))


def environment(python: Path) -> tuple[str, Path]:
    """Return the version of `python` and the interpreter of its environment with the peers."""
    version = run([str(python), "-c", "import platform; print(platform.python_version())"]).strip()
    short = ".".join(version.split(".")[:2])
    return short, peer_venv(f"concurrency-{short}", PEERS, python)


def versions(python: Path) -> dict[str, str]:
    """Return the versions of the peers in an environment."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    found: dict[str, str] = json.loads(run([str(python), "-c", code, *PEERS]))
    return found


def add_speed(report: Report, where: str, times: Times) -> None:
    """Add the rows and goals of one interpreter and loop."""
    for metric, libraries in times.items():
        for name, runs in libraries.items():
            report.row(name, f"{metric}, {where}", "ops/s", runs=runs)

    def median(metric: str, name: str) -> float:
        return statistics.median(times[metric][name])

    for metric, least in OVER_QUEUE.items():
        ratio = median(metric, "fairway") / median(metric, "asyncio.Queue")
        report.goal(f"{metric} over asyncio.Queue, {where}", ratio, least)
    batch = median("batch", "fairway") / median("buffered 1→1", "asyncio.Queue")
    report.goal(f"recv_many/send_many over asyncio.Queue, {where}", batch, 3.5)
    share = median("select, one of two ready", "fairway") / median("plain buffered receive", "fairway")
    report.goal(f"select over a plain buffered receive, {where}", share, 0.4)
    for metric, libraries in times.items():
        if metric.startswith("thread→asyncio") and "janus" in libraries and "clock" not in metric:
            threads = median(metric, "fairway shared") / median(metric, "janus")
            report.goal(f"SharedChan {metric} over janus, {where}", threads, 4.0)


def add_blocked(report: Report, where: str, count: int, found: dict[str, list[float]]) -> None:
    """Add memory and close-wake figures of many blocked receivers."""
    above = (found["channel bytes"][0] - found["future bytes"][0]) / 1024
    whole = found["channel bytes"][0] / 1024
    report.row("fairway", f"blocked receiver with its task, {where}", "KiB", value=whole)
    report.row("future", f"blocked receiver with its task, {where}", "KiB", value=found["future bytes"][0] / 1024)
    report.row("fairway", f"waking {count:,} receivers, {where}", "ms", runs=[s * 1000 for s in found["close s"]])
    report.row("future", f"waking {count:,} receivers, {where}", "ms", runs=[s * 1000 for s in found["set s"]])
    report.goal(f"memory of a blocked receiver above one on a future in KiB, {where}", above, 1.5, "<=")
    ratio = statistics.median(found["close s"]) / statistics.median(found["set s"])
    report.goal(f"close over setting {count:,} futures, {where}", ratio, 1.5, "<=")


def add_lost(report: Report, where: str, found: dict[str, Any]) -> None:
    """Add the table of lost items; each of the library's own is a goal."""
    items = found["items"]
    for operation, libraries in found["lost"].items():
        for name, lost in libraries.items():
            report.row(name, f"lost of {items:,} at a timeout in the window, {operation}, {where}", "items", value=lost)
            if name.startswith("fairway"):
                report.goal(f"{name}: lost of {items:,}, {operation}, {where}", lost, 0, "==")


def add_go(report: Report, n: int, runs: int) -> None:
    """Add Go's figures where a toolchain is found."""
    go = shutil.which("go")
    if go is None:
        report.note("no Go toolchain on PATH: Go is not in the table")
        return
    binary = CACHE / "concurrency-go"
    folder = Path(__file__).parent / "go"
    run([go, "build", "-C", str(folder), "-o", str(binary), "."])
    report.versions["Go"] = run([go, "env", "GOVERSION"]).strip().removeprefix("go")
    for metric, values in json.loads(run([str(binary), str(n * 10), str(runs)])).items():
        for where in sorted({row.metric.partition(", ")[2] for row in report.rows if row.metric.startswith(metric)}):
            report.row("Go", f"{metric}, {where}", "ops/s", runs=values)


def main() -> int:
    args = arguments(__doc__ or "")
    n, runs, items, blocked = (8_000, 3, 500, 100_000) if args.quick else (40_000, 7, 10_000, 100_000)
    report = Report("concurrency")
    report.note(
        "operations a CPU second (thread→asyncio: of both threads) unless it says by the clock; Go on one processor"
    )
    report.note("thread→asyncio: where the system puts the threads, and with both on one core or each on its own")
    report.note("a library without unbuffered channels plays ping-pong over capacity 1; trio runs on its own loop")
    for base in pythons():
        version, python = environment(base)
        report.versions |= versions(python)
        for loop in ("asyncio", "uvloop"):
            where = f"{version} {loop}"
            sys.stderr.write(f"measuring on {where}\n")
            add_speed(report, where, worker(python, "worker", "--loop", loop, "-n", str(n), "--runs", str(runs)))
            if args.quick and loop == "uvloop":
                continue
            add_blocked(
                report, where, blocked,
                worker(python, "blocked", "--loop", loop, "-n", str(blocked), "--runs", "1" if args.quick else "5"),
            )  # fmt: skip
            add_lost(report, where, worker(python, "lost", "--loop", loop, "-n", str(items)))
    add_go(report, n, runs)
    return finish(report, args)


if __name__ == "__main__":
    sys.exit(main())
