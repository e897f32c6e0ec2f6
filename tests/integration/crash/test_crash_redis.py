"""Redis itself and workers that stand on it directly, killed in the middle of operations.

`FAIRWAY_CRASH_CYCLES` sets the cycles. Redis keeps what it acknowledged: ``appendfsync always``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_cluster import CYCLES, HERE, Cluster, all_final, harass, judge, judge_rolling, roll

from fairway.jobs.job import NewJob, raw
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration


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

    def kill(self, name: str) -> None:
        if name == "redis":
            self.redis.kill()
        else:
            super().kill(name)

    def start(self, name: str) -> None:
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


@pytest.mark.timeout(120 + 5 * CYCLES)
async def test_sigkill_of_redis_and_workers(redis_cluster: RedisCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = redis_cluster
    for name in ("w1", "w2"):
        cluster.start(name)
    async with RedisStore(cluster.url, StoreOptions(restart_grace_s=1.0)) as store:
        acked, killed = await harass(cluster, store, [["redis"], ["redis"], ["w1"], ["w1", "w2"], ["redis", "w1"]])
        # Workers that are killed all the time run a quarter of what comes; two of 8 then run the rest, 1,000 a second.
        told = judge(cluster, await all_final(store, 120 + CYCLES / 2), acked, killed)
    with capsys.disabled():
        print(f"\n{told}")


async def test_rolling_restart_on_redis_repeats_nothing_and_charges_nothing(redis_cluster: RedisCluster) -> None:
    cluster = redis_cluster
    async with RedisStore(cluster.url) as store:
        for name in ("w1", "w2"):
            cluster.start_draining_worker(name)
        job = NewJob(kind="mark", args=raw({"pause_s": 0.03}))
        ids = [i for _ in range(6) for i in (await store.enqueue([job] * 100)).ids]
        await roll(cluster, cluster.start_draining_worker)
        found = await all_final(store)
        # With nothing to do, the workers' claims wait in Redis: a drain ends them without taking a job along.
        assert cluster.terminate("w1") == 0, cluster.log("w1")
    judge_rolling(cluster, found, ids)
