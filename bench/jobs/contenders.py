"""Who takes part in `bench.jobs`: how each one's producer and worker are started, over an empty queue."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.harness import CACHE, ROOT, peer_venv, run
from bench.jobs.peers import POSTGRES, REQUIREMENTS
from bench.jobs.run import HERE, Lab

SQLITE, HTTP, REDIS = "fairway sqlite", "fairway http", "fairway redis"
PEERS = [*REQUIREMENTS, "bullmq"]
ON_REDIS = [name for name in REQUIREMENTS if name not in POSTGRES]
QUICK_PEERS = ["taskiq", "huey", "pgqueuer", "bullmq"]
BULLMQ = "5.61.0"
OWN = [sys.executable, "-m", "bench.jobs.own"]
WORKER = [sys.executable, "-m", "fairway", "worker", "bench_tasks", "-c", "64", "--url"]


@dataclass(frozen=True, slots=True)
class Seat:
    """A contender that is ready: a queue without a job, and the commands; ``OUT`` and ``N`` are filled in."""

    producer: list[str]
    worker: list[str] = field(default_factory=list)
    worker_cwd: Path = ROOT


class Contenders:
    """Knows how to seat each contender.

    Args:
        lab: Starts what is needed.
        redis: URL of the benchmark's Redis.
        postgres: URL of its PostgreSQL, or None where there is none.
    """

    def __init__(self, lab: Lab, redis: str, postgres: str | None) -> None:
        self._lab = lab
        self._redis = redis
        self._postgres = postgres

    @contextmanager
    def seat(self, name: str) -> Iterator[Seat]:
        """Yield commands over an empty queue; what was started for it ends with the block.

        Raises:
            RuntimeError: It cannot take part here.
        """
        if name == SQLITE:
            yield Seat([*OWN, "produce", "0", "OUT", f"sqlite:///{self._lab.path('produce.db')}"])
        elif name == HTTP:
            with self._lab.daemon(f"sqlite:///{self._lab.path('daemon.db')}") as (url, _):
                yield Seat([*OWN, "produce", "0", "OUT", url], [*WORKER, url], HERE)
        elif name == REDIS:
            yield Seat([*OWN, "produce", "0", "OUT", self._redis], [*WORKER, self._redis], HERE)
        elif name == "bullmq":
            argv = [*_bullmq()]
            yield Seat([*argv, "produce", "0", "OUT", self._redis], [*argv, "work", "N", "OUT", self._redis])
        else:
            yield self._peer(name)

    def _peer(self, name: str) -> Seat:
        url = self._database(name) if name in POSTGRES else self._redis
        argv = [str(peer_venv(f"jobs-{name}", REQUIREMENTS[name])), str(HERE / "peers.py"), name]
        if name in POSTGRES:
            self._lab.finish([*argv, "prepare", "0", "OUT", url], 0)
        return Seat([*argv, "produce", "0", "OUT", url], [*argv, "work", "N", "OUT", url])

    def _database(self, name: str) -> str:
        """Return the URL of an empty database of the peer's own: in `enqueue` all have theirs at the same time."""
        if self._postgres is None:
            raise RuntimeError("no PostgreSQL here")
        for statement in (f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}"):
            run(["psql", self._postgres, "-qc", statement])
        return urlsplit(self._postgres)._replace(path=f"/{name}").geturl()

    @functools.cached_property
    def redis_pid(self) -> int:
        """The process id of the benchmark's Redis."""
        told = run(["redis-cli", "-u", self._redis, "info", "server"])
        return int(told.split("process_id:")[1].split()[0])

    def flush(self) -> None:
        """Empty the benchmark's Redis."""
        run(["redis-cli", "-u", self._redis, "flushall"])


def _bullmq() -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise RuntimeError("node and npm were not found")
    folder = CACHE / "npm-bullmq"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "bullmq").exists():
        run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"bullmq@{BULLMQ}"])
    shutil.copy(HERE / "bullmq.js", folder / "bullmq.js")
    return [node, str(folder / "bullmq.js")]
