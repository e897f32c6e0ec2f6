"""Jobs on a Redis cluster of several nodes: a slot that moves, a primary that dies, a node that is gone."""

import asyncio
import subprocess
import time
from collections.abc import Iterator

import pytest

from fairway.jobs import JobContext, Queue, Tasks, WorkerConfig
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import Completed, NewJob, Verdict, raw
from fairway.jobs.opening import open_store
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_cluster import RedisCluster
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
KEY = "{fairway:jobs}:names"
JOB = NewJob(kind="k")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    if RedisServer.binary() is None or RedisCluster.tool() is None:
        pytest.skip("no redis-server and redis-cli on this machine: apt-get install redis-server redis-tools")
    with RedisCluster(tmp_path_factory.mktemp("cluster"), 1) as cluster:
        yield cluster


@pytest.fixture
def seed(cluster: RedisCluster) -> str:
    """The URL of a primary that has not the jobs."""
    cluster.flush()
    owner = cluster.owner(KEY)
    return next(node.url for node in cluster.primaries if node is not owner)


def cli(cluster: RedisCluster, *words: str) -> str:
    argv = [cluster.tool() or "redis-cli", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


class Move:
    """The slot of the jobs on its way from its owner to another primary."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.owner = cluster.owner(KEY)
        self.others = [node for node in cluster.primaries if node is not self.owner]
        self.target = self.others[0]
        self.slot = self.owner.command(f"CLUSTER KEYSLOT {KEY}").decode().strip(":\r\n")
        self.ids = {node: node.command("CLUSTER MYID").decode().split()[1] for node in (self.owner, self.target)}

    def begin(self) -> None:
        """Take the keys over; the owner answers ASK."""
        self.target.command(f"CLUSTER SETSLOT {self.slot} IMPORTING {self.ids[self.owner]}")
        self.owner.command(f"CLUSTER SETSLOT {self.slot} MIGRATING {self.ids[self.target]}")
        port, place = str(self.owner.port), ("127.0.0.1", str(self.target.port))
        keys = cli(self.cluster, "-p", port, "CLUSTER", "GETKEYSINSLOT", self.slot, "1000").split()
        assert len(keys) > 5
        cli(self.cluster, "-p", port, "MIGRATE", *place, "", "0", "5000", "KEYS", *keys)

    def end(self) -> None:
        """Have every primary know the new owner."""
        for node in (self.target, self.owner, *self.others):
            node.command(f"CLUSTER SETSLOT {self.slot} NODE {self.ids[self.target]}")


async def waits(store: RedisStore) -> None:
    """Poll until a claim waits."""
    async with asyncio.timeout(10):
        while not store.statistics()["waiting"]:
            await asyncio.sleep(0.005)


async def test_a_slot_that_moves_takes_calls_renewals_and_listeners_with_it(cluster: RedisCluster, seed: str) -> None:
    async with RedisStore(seed) as store, RedisStore(seed) as other:
        ids = (await store.enqueue([JOB] * 6)).ids
        (lease,) = await store.claim(["default"], 1, 60.0, "w")
        assert store.renew([(lease.id, lease.fence)], 60.0) == [Verdict.OK]
        waiting = asyncio.create_task(other.claim(["empty"], 1, 30.0, "w2", wait_s=30.0))
        await waits(other)
        move = await asyncio.to_thread(Move, cluster)
        await asyncio.to_thread(move.begin)
        assert store.renew([(lease.id, lease.fence)], 60.0) == [Verdict.OK]  # the owner answers ASK
        job = await store.get(lease.id)
        assert job is not None
        assert job.state == "running"
        await asyncio.to_thread(move.end)
        assert store.renew([(lease.id, lease.fence)], 60.0) == [Verdict.OK]
        # The first call after the move is a packed one; neither its script nor the others' are known there.
        new = (await store.enqueue([JOB])).ids
        assert store._link.address.port == move.target.port
        assert await store.settle([Completed(lease.id, lease.fence)]) == [Verdict.OK]
        rest = await store.claim(["default"], 10, 30.0, "w")
        assert [x.id for x in rest] == [*ids[1:], *new]
        (late,) = (await store.enqueue([NewJob(kind="k", queue="empty")])).ids
        async with asyncio.timeout(10):
            assert [x.id for x in await waiting] == [late]


async def test_a_primary_that_dies_holds_producers_and_workers_up_and_no_longer(
    cluster: RedisCluster, seed: str
) -> None:
    tasks = Tasks()
    ran: list[int] = []
    gate = asyncio.Event()

    @tasks.task
    async def note(number: int) -> int:
        ran.append(number)
        return number

    @tasks.task
    async def hold(ctx: JobContext) -> str:
        await gate.wait()
        return "held"

    async def produce(queue: Queue, number: int) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    await queue.store.enqueue([note.job(number)])
                except StoreUnavailable:
                    continue  # each try is a connection, and answers in its own time
                return

    async with Queue(RedisStore(seed)) as producer, Queue(RedisStore(seed)) as consumer:
        held = await producer.enqueue(hold)
        async with consumer.worker(tasks, WorkerConfig(concurrency=4, lease_s=60.0)) as worker:
            for number in range(20):
                await produce(producer, number)
            async with asyncio.timeout(20):
                while len(ran) < 20:
                    await asyncio.sleep(0.01)
            owner = await asyncio.to_thread(cluster.owner, KEY)
            await asyncio.to_thread(
                cli, cluster, "-p", str(owner.port), "WAIT", "1", "5000"
            )  # what no replica has, goes
            owner.kill()
            for number in range(20, 40):
                await produce(producer, number)
            async with asyncio.timeout(60):
                while len(set(ran)) < 40:
                    await asyncio.sleep(0.01)
            assert set(ran) == set(range(40))
            gate.set()
            assert await held.result(60.0) == "held", "its lease went on where the replica took over"
            assert worker.statistics().lost == 0
    assert await asyncio.to_thread(cluster.owner, KEY) is not owner
    await asyncio.to_thread(owner.start)
    await asyncio.to_thread(cluster.wait_ready)


async def test_steps_that_a_failover_lost_give_no_id_and_no_fence_again(cluster: RedisCluster, seed: str) -> None:
    """The replica takes over; then its keys are made to be those of before the last step."""
    async with RedisStore(seed, StoreOptions(restart_grace_s=5.0)) as store:
        (kept,) = (await store.enqueue([JOB])).ids
        owner = await asyncio.to_thread(cluster.owner, KEY)
        mine = owner.command("CLUSTER MYID").split()[1]
        replica = next(
            node
            for node in cluster.up
            if any(b"myself,slave" in line and mine in line for line in node.command("CLUSTER NODES").splitlines())
        )
        (old,) = await store.claim(["default"], 1, 60.0, "before")
        await asyncio.to_thread(cli, cluster, "-p", str(owner.port), "WAIT", "1", "5000")
        cli(cluster, "-p", str(replica.port), "CLUSTER", "FAILOVER")
        async with asyncio.timeout(20):
            while replica.command(f"GET {KEY}").startswith(b"-MOVED"):
                await asyncio.sleep(0.02)
        seq, number = kept >> 12, kept & 4095
        prefix = "{fairway:jobs}:default:"
        cli(cluster, "-p", str(replica.port), "HSET", f"{prefix}j:{seq}", "s", "a", "f", "0", "n", "0")
        cli(cluster, "-p", str(replica.port), "ZREM", f"{prefix}lease", str(seq))
        cli(cluster, "-p", str(replica.port), "ZADD", f"{prefix}ready", str(5 * (1 << 41) + seq), str(seq))
        (again,) = await store.claim(["default"], 1, 60.0, "after")
        assert (again.id, old.fence) == (kept, 1)
        assert again.fence > 1_000_000
        assert await store.settle([Completed(old.id, old.fence)]) == [Verdict.LOST]
        assert store.renew([(old.id, old.fence), (again.id, again.fence)], 60.0) == [Verdict.LOST, Verdict.OK]
        (new,) = (await store.enqueue([JOB])).ids
        assert (new >> 12) - seq >= 1 << 20
        assert new & 4095 == number
        assert await store.settle([Completed(again.id, again.fence)]) == [Verdict.OK]
    await asyncio.to_thread(cluster.wait_ready)


async def test_leases_are_renewed_where_a_replica_took_over_while_the_loop_is_busy(
    cluster: RedisCluster, seed: str
) -> None:
    async with RedisStore(seed) as store:
        (i,) = (await store.enqueue([JOB])).ids
        (lease,) = await store.claim(["default"], 1, 60.0, "w")
        assert store.renew([(i, lease.fence)], 60.0) == [Verdict.OK]
        owner = await asyncio.to_thread(cluster.owner, KEY)
        await asyncio.to_thread(cli, cluster, "-p", str(owner.port), "WAIT", "1", "5000")
        owner.kill()
        # From here on nothing is awaited: the renewals have no help of the connection that the loop has.
        failures, until = 0, time.monotonic() + 60.0
        while True:
            try:
                assert store.renew([(i, lease.fence)], 60.0) == [Verdict.OK]
                break
            except StoreUnavailable:
                failures += 1
                assert time.monotonic() < until
                time.sleep(0.05)
        assert failures
        with pytest.raises(StoreUnavailable, match="lost"):  # the loop hears now that its connection has died
            await store.settle([Completed(i, lease.fence)])
        assert await store.settle([Completed(i, lease.fence)]) == [Verdict.OK]
    await asyncio.to_thread(owner.start)
    await asyncio.to_thread(cluster.wait_ready)


async def test_a_node_that_is_gone_is_left_out_where_others_are_named(cluster: RedisCluster, seed: str) -> None:
    here = seed.partition("://")[2].partition("/")[0]
    async with open_store(f"redis://127.0.0.1:1,{here}/0?namespace=fairway") as store:
        (i,) = (await store.enqueue([NewJob(kind="k", args=raw(1))])).ids
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        assert lease.id == i
        assert await asyncio.to_thread(store.renew, [(i, lease.fence)], 30.0) == [Verdict.OK]
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await open_store("redis://127.0.0.1:1,127.0.0.1:2/0").open()
