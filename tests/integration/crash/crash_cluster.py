"""Servers and workers in processes of their own, to be killed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fairway.jobs.client import HttpStore
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import Job, JobFilter

HERE = Path(__file__).parent


class Cluster:
    """One job server over `url` and named workers, all of them killable."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.journal = folder / "journal"
        self.port = _free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _start(self, name: str, argv: list[str]) -> None:
        env = {**os.environ, "CRASH_JOURNAL": str(self.journal), "PYTHONPATH": str(HERE)}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=self.folder)

    def start_server(self) -> None:
        self._start("server", [sys.executable, str(HERE / "crash_server.py"), self.url, str(self.port)])

    def start_worker(self, name: str = "worker", *options: str) -> None:
        argv = [sys.executable, "-m", "fairway", "worker", "crash_tasks", "--url", self.address, *options]
        self._start(name, argv)

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def terminate(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def executions(self) -> list[tuple[int, int, int]]:
        """Every execution: job, fence, attempt."""
        if not self.journal.exists():
            return []
        lines = self.journal.read_text().splitlines()
        return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines)]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def client(self) -> HttpStore:
        """Return an open client, once the server answers."""
        store = HttpStore(self.address)
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.open()
                except StoreUnavailable:
                    assert self.processes["server"].poll() is None, self.log("server")
                    await asyncio.sleep(0.02)
                else:
                    return store


async def pace(seconds: float) -> None:
    """Let a producer make so many jobs a second and no more."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll something outside this process."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def all_jobs(store: HttpStore) -> dict[int, Job]:
    jobs: dict[int, Job] = {}
    before = None
    while page := await store.find(JobFilter(before=before, limit=1000)):
        jobs.update({job.id: job for job in page})
        before = page[-1].id
    return jobs


async def all_final(store: HttpStore, seconds: float = 60.0) -> dict[int, Job]:
    """Wait until no job is alive, and return all of them."""
    async with asyncio.timeout(seconds):
        while True:
            # Killed a moment ago: it is still loading, or the connection is made anew.
            with suppress(StoreUnavailable):
                counts: Counter[str] = Counter()
                for queue in await store.queues():
                    counts.update(queue.counts)
                if not any(counts[state] for state in ("available", "running", "scheduled", "retryable")):
                    return await all_jobs(store)
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
