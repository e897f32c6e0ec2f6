"""Servers and workers in processes of their own, to be killed."""

import asyncio
import os
import random
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
from fairway.jobs.job import Job, JobFilter, NewJob, raw
from fairway.jobs.store import Store

HERE = Path(__file__).parent
CYCLES = int(os.environ.get("FAIRWAY_CRASH_CYCLES", "25"))


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

    def start(self, name: str) -> None:
        """Start what `kill` ends, so that it forgets soon what a dead one held."""
        if name == "server":
            self.start_server()
        else:
            self.start_worker(name, "--lease", "1", "-c", "8", "--grace", "1")

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


async def produce(store: Store, acked: set[int], seed: int) -> None:
    """Enqueue until cancelled; only what was acknowledged counts."""
    rand = random.Random(seed)
    while True:
        job = NewJob(kind="mark", args=raw({"pause_s": rand.choice([0.0, 0.0, 0.01, 0.05])}), max_attempts=1000)
        try:
            answer = await store.enqueue([job] * rand.choice([1, 1, 5]))
        except StoreUnavailable:
            await pace(0.02)
        else:
            acked.update(answer.ids)
            await pace(0.002)


async def harass(cluster: Cluster, store: Store, choices: list[list[str]]) -> tuple[set[int], Counter[str]]:
    """Kill and start, again and again, one of `choices` while jobs come and run; return what was acknowledged."""
    rand, acked, killed = random.Random(CYCLES), set[int](), Counter[str]()
    producers = [asyncio.create_task(produce(store, acked, n)) for n in range(3)]
    for _ in range(CYCLES):
        seen, before = len(acked), len(cluster.executions())
        await until(lambda seen=seen: len(acked) > seen + 5)
        if rand.random() < 0.7:
            await until(lambda before=before: len(cluster.executions()) > before)
        await pace(rand.uniform(0.0, 0.15))
        victims = rand.choice(choices)
        for name in victims:
            cluster.kill(name)
        killed.update(victims)
        for name in victims:
            cluster.start(name)
    for producer in producers:
        producer.cancel()
    await asyncio.gather(*producers, return_exceptions=True)
    return acked, killed


def judge(cluster: Cluster, jobs: dict[int, Job], acked: set[int], killed: Counter[str]) -> str:
    """Return what it came to, and assert that nothing was lost and nothing stale was believed."""
    lost = acked - jobs.keys()
    runs = Counter(job_id for job_id, _, _ in cluster.executions())
    stale = [job for job in jobs.values() if job.result != raw(job.fence)]
    told = (
        f"{CYCLES} cycles, killed {dict(killed)}: {len(acked)} acknowledged, {len(lost)} lost, {len(stale)} stale,"
        f" {sum(runs.values())} executions, {sum(count - 1 for count in runs.values())} duplicates"
    )
    assert not lost, told
    assert {jobs[i].state for i in acked} == {"completed"}, told
    assert not stale, f"a completion of another fence than the job's was accepted: {told}"
    assert all(runs[i] >= 1 for i in acked), told
    return told


def judge_rolling(cluster: Cluster, found: dict[int, Job], ids: list[int]) -> None:
    """Assert that a rolling restart repeated nothing and charged nothing."""
    runs = Counter(job_id for job_id, _, _ in cluster.executions())
    assert all(runs[i] == 1 for i in ids), "a job ran twice"
    assert {(found[i].state, found[i].attempt) for i in ids} == {("completed", 1)}, "an attempt was charged"


async def roll(cluster: Cluster, start: Callable[[str], None]) -> None:
    """Let the two workers drain and start again in turn while they work."""
    for round_number in range(4):
        before = len(cluster.executions())
        await until(lambda before=before: len(cluster.executions()) > before + 10)
        name = f"w{1 + round_number % 2}"
        assert cluster.terminate(name) == 0, cluster.log(name)
        start(name)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll something outside this process."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def all_jobs(store: Store) -> dict[int, Job]:
    jobs: dict[int, Job] = {}
    before = None
    while page := await store.find(JobFilter(before=before, limit=1000)):
        jobs.update({job.id: job for job in page})
        before = page[-1].id
    return jobs


async def all_final(store: Store, seconds: float = 60.0) -> dict[int, Job]:
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
