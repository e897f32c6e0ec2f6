"""The Redis store on a cluster: it finds the node that has its events, and follows them when they move."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from fairway.concurrency import Chan, background, with_cancel
from fairway.events import Event, EventBus, EventHandlers, GroupOptions
from fairway.events.errors import EventStoreUnavailable
from fairway.events.stores.redis import RedisEventStore
from fairway.testing.event_stores import EventStoreConformance
from fairway.testing.redis_cluster import RedisCluster
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
CTX = background()
KEY = "{fairway:events}:last"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[RedisCluster]:
    if RedisServer.binary() is None or RedisCluster.tool() is None:
        pytest.skip("no redis-server and redis-cli on this machine: apt-get install redis-server redis-tools")
    with RedisCluster(tmp_path_factory.mktemp("cluster"), 1) as cluster:
        yield cluster


@pytest.fixture
def seed(cluster) -> str:
    """The URL of a primary that has not the events."""
    cluster.flush()
    owner = cluster.owner(KEY)
    return next(node.url for node in cluster.primaries if node is not owner)


class TestRedisClusterEventStore(EventStoreConformance):
    @pytest.fixture
    async def store(self, seed):
        store = RedisEventStore.open(seed)
        yield store
        await store.close()

    @pytest.fixture
    def elapse(self, store):
        async def elapse(seconds: float) -> None:
            store.skew += seconds

        return elapse


def cli(cluster: RedisCluster, *words: str) -> str:
    argv = [cluster.tool() or "redis-cli", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


async def publish(bus: EventBus, number: int) -> None:
    """Publish until it is acknowledged; the same id makes it one event."""
    event = Event("made", number, id=f"e{number}", partition_key="k")
    async with asyncio.timeout(60):
        while True:
            try:
                await bus.publish(CTX, event)
            except EventStoreUnavailable:
                continue  # each try is a connection, and answers in its own time
            return


async def test_a_slot_that_moves_to_another_node_takes_its_users_with_it(cluster, seed) -> None:
    owner = cluster.owner(KEY)
    primaries = cluster.primaries
    target = next(node for node in primaries if node is not owner)
    slot = owner.command(f"CLUSTER KEYSLOT {KEY}").decode().strip(":\r\n")
    ids = {node: node.command("CLUSTER MYID").decode().split()[1] for node in (owner, target)}
    store = RedisEventStore.open(seed)
    await store.append([("a", Event("t", n)) for n in range(5)])
    await store.join("g", ">", 0)
    target.command(f"CLUSTER SETSLOT {slot} IMPORTING {ids[owner]}")
    owner.command(f"CLUSTER SETSLOT {slot} MIGRATING {ids[target]}")
    keys = cli(cluster, "-p", str(owner.port), "CLUSTER", "GETKEYSINSLOT", slot, "100").split()
    assert len(keys) > 5
    cli(cluster, "-p", str(owner.port), "MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)
    assert await store.last() == 5  # the owner answers ASK: the slot is on its way
    with pytest.raises(EventStoreUnavailable):  # Redis takes no new key beside others of a slot that is on its way
        await store.append([("a", Event("t", 5))])
    for node in (target, owner, *(one for one in primaries if one not in (target, owner))):
        node.command(f"CLUSTER SETSLOT {slot} NODE {ids[target]}")
    assert await store.append([("a", Event("t", 5))]) == [6]
    assert [item.stored.offset for item in await store.claim("g", 10, 30.0, 5)] == [1, 2, 3, 4, 5, 6]
    assert store._link.address.port == target.port
    await store.close()


async def test_a_primary_that_dies_holds_its_users_up_and_no_longer(cluster, seed) -> None:
    handled: Chan[int] = Chan(1000)
    handlers = EventHandlers()

    @handlers.on("made")
    async def made(ctx, event, data: int) -> None:
        await handled.send(data)

    async with EventBus(seed) as bus, EventBus(seed) as other, with_cancel(CTX) as ctx:
        async with bus.subscribe("made", buffer=1000) as live:
            options = GroupOptions(lease=5.0, concurrency=4)
            member = asyncio.ensure_future(other.handle(ctx, "made", handlers, group="g", after=0, options=options))
            for number in range(20):
                await publish(bus, number)
            owner = cluster.owner(KEY)
            cli(cluster, "-p", str(owner.port), "WAIT", "1", "5000")  # a failover loses what no replica has
            while len(handled) < 20:
                await asyncio.sleep(0.01)
            cli(cluster, "-p", str(owner.port), "WAIT", "1", "5000")
            owner.kill()
            async with asyncio.timeout(60):
                for number in range(20, 40):
                    await publish(bus, number)
                seen = [(await live.channel.recv()).event.data for _ in range(40)]
                done = [await handled.recv() for _ in range(40)]
            assert seen == list(range(40))
            assert sorted(set(done)) == list(range(40))
            ctx.cancel()
            await member
    assert await asyncio.to_thread(cluster.owner, KEY) is not owner
    owner.start()
    await asyncio.to_thread(cluster.wait_ready)


async def test_a_node_that_is_gone_is_left_out_where_others_are_named(cluster, seed) -> None:
    gone = "127.0.0.1:1"
    here = seed.partition("://")[2].partition("/")[0]
    store = RedisEventStore.open(f"redis://{gone},{here}/0")
    assert await store.append([("a", Event("t", 1))]) == [1]
    await store.close()
