"""``python -m bench.up``: start of the four samples, the command line, memory and CPU of daemon and door when idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.harness import Report, arguments, finish
from bench.up import scene as scenes
from bench.up.scene import Scene


def main() -> int:
    """Run everything, print, and return the exit status."""
    args = arguments("fairway up beside a shell script that starts the same commands")
    report = Report("up", versions={"python": sys.version.split()[0]})
    scene = scenes.make()
    if len(scene.apps) < 4:
        report.note(f"only {', '.join(scene.apps)} could be built here")
    start(report, scene, rounds=3 if args.quick else 7)
    process = scene.up()
    try:
        scene.settled(process)
        commands(report, scene, rounds=9 if args.quick else 25)
        idle(report, process, seconds=8.0 if args.quick else 30.0)
    finally:
        scenes.end(process)
    return finish(report, args)


def start(report: Report, scene: Scene, rounds: int) -> None:
    """Measure both starters in turns, from their own start to the first 200 of the last app."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        process = scene.up()
        try:
            places = {name: (scene.door, f"{name}.localhost") for name in scene.apps}
            ours.append(scenes.first_answers(process, places, began))
        finally:
            scenes.end(process)
        ports = dict(zip(scene.apps, scenes.free_ports(len(scene.apps)), strict=True))
        script = scene.script(ports)
        began = time.perf_counter()
        process = subprocess.Popen([str(script)], env=scene.env, start_new_session=True)
        try:
            theirs.append(scenes.first_answers(process, {n: (p, "127.0.0.1") for n, p in ports.items()}, began))
        finally:
            scenes.end(process, group=True)
    mine = report.row("fairway up", f"first 200 of {len(scene.apps)} apps, warm", "s", runs=ours)
    base = report.row("shell script", f"first 200 of {len(scene.apps)} apps, warm", "s", runs=theirs)
    report.goal("warm start over a shell script", mine / base, 1.5, "<=")


def commands(report: Report, scene: Scene, rounds: int) -> None:
    """Measure the command line against the import of its library, in turns."""
    variants = {
        "import click": [sys.executable, "-c", "import click"],
        "fairway --help": scene.command("--help"),
        "fairway ps": scene.command("ps"),
    }
    runs: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, argv in variants.items():
            began = time.perf_counter()
            done = subprocess.run(argv, capture_output=True, env=scene.env, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{name}: exit {done.returncode}: {done.stderr.decode()[-500:]}")
            if name == "fairway ps" and not all(app in done.stdout.decode() for app in scene.apps):
                raise RuntimeError(f"{name} does not list the apps: {done.stdout.decode()}")
            if number:  # the first round warms the caches of the disk
                runs[name].append((time.perf_counter() - began) * 1000)
    base = report.row("import click", "command", "ms", runs=runs["import click"])
    helped = report.row("fairway --help", "command", "ms", runs=runs["fairway --help"])
    listed = report.row("fairway ps", "command", "ms", runs=runs["fairway ps"])
    report.goal("fairway --help over import click", helped / base, 2.5, "<=")
    report.goal("fairway ps over import click", listed / base, 4.0, "<=")


def idle(report: Report, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Measure daemon and door with every app up and no requests but the health checks."""
    pids = {"daemon": process.pid, "door": _door(process.pid)}
    time.sleep(3.0)  # the start's own garbage is collected, its background work done
    before = {name: _cpu(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    total_pss = total_rss = total_cpu = 0.0
    for name, pid in pids.items():
        pss, rss = _memory(pid)
        share = (_cpu(pid) - before[name]) / seconds * 100
        report.row(name, "memory when idle (PSS)", "MiB", value=pss)
        report.row(name, "memory when idle (RSS)", "MiB", value=rss)
        report.row(name, "CPU when idle", "% of a core", value=share)
        total_pss, total_rss, total_cpu = total_pss + pss, total_rss + rss, total_cpu + share
    report.goal("memory of daemon and door, idle, PSS in MiB", total_pss, 90.0, "<=")
    report.goal("memory of daemon and door, idle, RSS in MiB", total_rss, 90.0, "<=")
    report.goal("CPU of daemon and door, idle, % of a core", total_cpu, 1.0, "<=")


def _door(daemon: int) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == daemon and b"fairway.proxy" in words:
                return int(entry.name)
    raise RuntimeError("the door is not to be found")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[float, float]:
    values = dict.fromkeys(("Pss", "Rss"), 0.0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in values:
            values[name] = int(rest.split()[0]) / 1024
    return values["Pss"], values["Rss"]


if __name__ == "__main__":
    sys.exit(main())
