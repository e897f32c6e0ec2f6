"""One interpreter, one loop: runs every workload over every library, interleaved, and prints the times as JSON.

Started by `python -m bench.concurrency` inside the environment that holds the peers.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import sys
from collections import defaultdict

from bench.concurrency import workloads
from bench.concurrency.adapters import ADAPTERS, Adapter

NEEDS = {"anyio": "anyio", "trio": "trio", "janus": "janus", "culsans": "culsans", "aiologic": "aiologic"}


def available(name: str) -> bool:
    """Whether the library behind `name` can be imported here."""
    module = NEEDS.get(name)
    return module is None or importlib.util.find_spec(module) is not None


def one_round(loop: str, n: int, only: set[str] | None, times: dict[str, dict[str, list[float]]]) -> None:
    """Measure everything once; append operations a second to ``times[metric][library]``."""

    def note(metric: str, name: str, operations: int, seconds: float) -> None:
        times[metric][name].append(operations / seconds)

    def wanted(metric: str) -> bool:
        return only is None or metric in only

    flows = {"buffered 1→1": workloads.buffered, "8→8": workloads.eight, "ping-pong": workloads.ping_pong}
    for metric, workload in flows.items():
        if not wanted(metric):
            continue
        for adapter in usable(loop):
            count = n // 4 if metric == "ping-pong" else n
            gc.collect()
            note(metric, adapter.name, count, workload(adapter, adapter_loop(adapter, loop), count))
    if wanted("batch"):
        gc.collect()
        note("batch", "fairway", n, workloads.batch(loop, n))
    if wanted("select"):
        plain, chosen = workloads.select_ready(loop, n)
        note("plain buffered receive", "fairway", n, plain)
        note("select, one of two ready", "fairway", n, chosen)
    if wanted("thread→asyncio"):
        from_threads(loop, n, times)


def from_threads(loop: str, n: int, times: dict[str, dict[str, list[float]]]) -> None:
    """Measure thread→asyncio where the system puts the threads, and on cores that are given."""
    for name in filter(available, workloads.THREADED):
        gc.collect()
        cpu, wall = workloads.from_thread(name, loop, n)
        times["thread→asyncio"][name].append(n / cpu)
        times["thread→asyncio by the clock"][name].append(n / wall)
    for placement in workloads.placements():
        for name in filter(available, workloads.THREADED[:2]):
            gc.collect()
            cpu, _ = workloads.from_thread(name, loop, n, placement)
            times[f"thread→asyncio, {placement.name}"][name].append(n / cpu)


def usable(loop: str) -> list[Adapter]:
    """The libraries to measure beside this loop; trio brings its own and runs beside asyncio's."""
    chosen = [
        adapter for adapter in ADAPTERS if loop in adapter.loops or (loop == "asyncio" and "trio" in adapter.loops)
    ]
    return [adapter for adapter in chosen if available(adapter.name)]


def adapter_loop(adapter: Adapter, loop: str) -> str:
    return loop if loop in adapter.loops else adapter.loops[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("-n", type=int, default=40_000)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(args.runs):
        one_round(args.loop, args.n, set(args.only) if args.only else None, times)
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main()
