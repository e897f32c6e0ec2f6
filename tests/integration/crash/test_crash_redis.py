"""Redis itself and workers that stand on it directly, killed in the middle of operations.

`FAIRWAY_CRASH_CYCLES` sets the cycles. Redis keeps what it acknowledged: ``appendfsync always``.
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_cluster import HERE, Cluster, all_final, until

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import NewJob, raw
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
CYCLES = int(os.environ.get("FAIRWAY_CRASH_CYCLES", "25"))


class RedisCluster(Cluster):
    """A Redis and workers on it; no job server."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder, "always")
        super().__init__(self.redis.url, folder)
        self.redis.start()

    def start_worker(self, name: str = "worker", *options: str) -> None:
        self._start(name, [sys.executable, str(HERE / "crash_redis_worker.py"), self.url, name, *options])

    def start_draining_worker(self, name: str) -> None:
        """Start a worker as a user does; it drains on SIGTERM."""
        argv = ["-m", "fairway", "worker", "crash_tasks", "--url", self.url, "-c", "4", "--grace", "5"]
        self._start(name, [sys.executable, *argv])

    def kill_all(self, names: list[str]) -> None:
        for name in names:
            if name == "redis":
                self.redis.kill()
            else:
                self.kill(name)

    def start_all(self, names: list[str]) -> None:
        for name in names:
            if name == "redis":
                self.redis.start()
            else:
                self.start_worker(name)

    def close(self) -> None:
        super().close()
        self.redis.kill()


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Yield a cluster over Redis; its processes end with the test."""
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")
    made = RedisCluster(tmp_path)
    yield made
    made.close()


async def _produce(store: RedisStore, acked: set[int], seed: int, deadline: float) -> None:
    """Enqueue until cancelled; only what was acknowledged counts."""
    rand = random.Random(seed)
    while asyncio.get_running_loop().time() < deadline:
        job = NewJob(kind="mark", args=raw({"pause_s": rand.choice([0.0, 0.0, 0.01, 0.05])}), max_attempts=1000)
        try:
            answer = await store.enqueue([job] * rand.choice([1, 1, 5]))
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            acked.update(answer.ids)
            await asyncio.sleep(0.002)


@pytest.mark.timeout(120 + 5 * CYCLES)
async def test_sigkill_of_redis_and_workers(redis_cluster: RedisCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster, rand = redis_cluster, random.Random(CYCLES)
    cluster.start_all(["w1", "w2"])
    store = RedisStore(cluster.url, StoreOptions(restart_grace_s=1.0))
    await store.open()
    acked: set[int] = set()
    deadline = asyncio.get_running_loop().time() + 60 + 5 * CYCLES
    producers = [asyncio.create_task(_produce(store, acked, n, deadline)) for n in range(3)]
    killed: Counter[str] = Counter()
    for _ in range(CYCLES):
        seen, before = len(acked), len(cluster.executions())
        await until(lambda seen=seen: len(acked) > seen + 5)
        if rand.random() < 0.7:
            await until(lambda before=before: len(cluster.executions()) > before)
        await asyncio.sleep(rand.uniform(0.0, 0.15))
        victims = rand.choice([["redis"], ["redis"], ["w1"], ["w1", "w2"], ["redis", "w1"]])
        cluster.kill_all(victims)
        killed.update(victims)
        cluster.start_all(victims)
    for producer in producers:
        producer.cancel()
    await asyncio.gather(*producers, return_exceptions=True)
    jobs = await all_final(store, 120)
    lost = acked - jobs.keys()
    runs = Counter(job_id for job_id, _, _ in cluster.executions())
    duplicates = sum(count - 1 for count in runs.values())
    with capsys.disabled():
        print(f"\n{CYCLES} cycles, killed {dict(killed)}: {len(acked)} acknowledged, {len(lost)} lost,", end=" ")
        print(f"{sum(runs.values())} executions, {duplicates} duplicates")
    assert not lost
    assert {jobs[i].state for i in acked} == {"completed"}
    stale = [job for job in jobs.values() if job.result != raw(job.fence)]
    assert not stale, "a completion of another fence than the job's was accepted"
    assert all(runs[i] >= 1 for i in acked)
    await store.close()


async def test_rolling_restart_on_redis_repeats_nothing_and_charges_nothing(redis_cluster: RedisCluster) -> None:
    cluster = redis_cluster
    async with RedisStore(cluster.url) as store:
        for name in ("w1", "w2"):
            cluster.start_draining_worker(name)
        ids: list[int] = []
        for _ in range(6):
            jobs = [NewJob(kind="mark", args=raw({"pause_s": 0.03})) for _ in range(100)]
            ids += (await store.enqueue(jobs)).ids
        for round_number in range(4):
            before = len(cluster.executions())
            await until(lambda before=before: len(cluster.executions()) > before + 10)
            name = f"w{1 + round_number % 2}"
            assert cluster.terminate(name) == 0, cluster.log(name)
            cluster.start_draining_worker(name)
        found = await all_final(store)
        # With nothing to do, the workers' claims wait in Redis: a drain ends them without taking a job along.
        assert cluster.terminate("w1") == 0, cluster.log("w1")
    runs = Counter(job_id for job_id, _, _ in cluster.executions())
    assert all(runs[i] == 1 for i in ids), "a job ran twice"
    assert {(found[i].state, found[i].attempt) for i in ids} == {("completed", 1)}, "an attempt was charged"
