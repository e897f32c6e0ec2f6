"""Claims that wait on Redis: each has its leases in one answer, and one that is given up takes no job with it."""

import asyncio
import time
from collections.abc import Callable

import pytest

from fairway.jobs.job import Completed, Lease, NewJob
from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
MakeRedis = Callable[..., RedisServer]
JOB = NewJob(kind="k")


async def waits(store: RedisStore, count: int = 1) -> None:
    """Wait until `count` claims wait at Redis itself."""
    async with asyncio.timeout(10):
        while b"blocked_clients:%d\r\n" % count not in await store._link.command("INFO", "clients"):
            await asyncio.sleep(0.005)


def claim(store: RedisStore, *queues: str, wait_s: float = 60.0) -> asyncio.Task[list[Lease]]:
    return asyncio.create_task(store.claim(queues or ("default",), 10, 30.0, "w", wait_s))


async def seen(store: RedisStore, section: str, what: str) -> int:
    """Return a number of what Redis tells about itself."""
    told: bytes = await store._link.command("INFO", section)
    at = told.index(what.encode()) + len(what)
    return int(told[at:].split(b",")[0].split(b"\r")[0])


async def test_a_waiting_claim_is_sent_before_its_job_is_there(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        (first,) = (await store.enqueue([JOB])).ids
        assert [x.id for x in await store.claim(["default"], 10, 30.0, "w")] == [first]
        claiming = claim(store)
        await waits(store)
        (second,) = (await store.enqueue([JOB])).ids
        # Nobody has read an answer since: what leased the job was at Redis already.
        (status,) = await store.queues()
        assert (status.counts["running"], status.counts["available"]) == (2, 0)
        assert [(x.id, x.fence, x.attempt) for x in await claiming] == [(second, 1, 1)]


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        NewJob(kind="k", priority=1),
        NewJob(kind="k", delay_s=0.05),
        NewJob(kind="k", args=JOB.args, max_attempts=3),
    ],
    ids=["fresh", "urgent", "due soon", "of its own"],
)
@pytest.mark.parametrize("queues", [("default",), ("other", "default")], ids=["one queue", "two queues"])
async def test_every_kind_of_job_wakes_a_claim(make_redis: MakeRedis, job: NewJob, queues: tuple[str, ...]) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        await store.enqueue([NewJob(kind="k", queue=queue) for queue in queues])
        assert len(await store.claim(queues, 10, 30.0, "w")) == len(queues)
        claiming = claim(store, *queues)
        await waits(store)
        begin = time.monotonic()
        ids = (await store.enqueue([job])).ids
        assert [x.id for x in await claiming] == ids
        assert time.monotonic() - begin < 1.5  # not by the look every two seconds


async def test_a_queue_that_is_made_wakes_who_waits_for_it(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        claiming = claim(store)
        await waits(store)
        begin = time.monotonic()
        ids = (await store.enqueue([JOB])).ids
        assert [x.id for x in await claiming] == ids
        assert time.monotonic() - begin < 1.5


async def test_claims_that_are_given_up_take_no_job(make_redis: MakeRedis) -> None:
    """Also where the job comes while one is given up: it goes back, its attempt is not charged."""
    async with RedisStore(make_redis().url) as store, asyncio.timeout(30):
        await store.enqueue([JOB])
        (lease,) = await store.claim(["default"], 10, 30.0, "w")
        await store.settle([Completed(lease.id, lease.fence)])
        for n in range(20):
            given_up = [claim(store) for _ in range(3)]
            await waits(store, 3)
            sent = asyncio.create_task(store.enqueue([JOB]))
            for _ in range(n % 5):
                await asyncio.sleep(0)
            for claiming in given_up:
                claiming.cancel()
            begin = time.monotonic()
            ended = await asyncio.gather(*given_up, return_exceptions=True)
            assert time.monotonic() - begin < 1.5
            (job_id,) = (await sent).ids
            taken = [lease for leases in ended if isinstance(leases, list) for lease in leases]
            left = await store.claim(["default"], 10, 30.0, "w")
            assert [x.id for x in taken + left] == [job_id]
            assert (taken + left)[0].attempt == 1
            await store.settle([Completed(x.id, x.fence) for x in taken + left])


async def test_a_store_that_is_closed_leaves_no_claim_behind(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as producer, asyncio.timeout(20):
        await producer.enqueue([JOB])
        store = RedisStore(server.url)
        await store.open()
        assert len(await store.claim(["default"], 10, 30.0, "w")) == 1
        claiming = [claim(store), claim(store)]
        await waits(producer, 2)
        begin = time.monotonic()
        await store.close()
        assert time.monotonic() - begin < 1.5
        assert await asyncio.gather(*claiming) == [[], []]
        await producer.enqueue([JOB])
        (lease,) = await producer.claim(["default"], 10, 30.0, "w")
        assert (lease.attempt, lease.fence) == (1, 1)


async def test_connections_are_used_again_and_few_are_kept(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(20):
        await store.enqueue([JOB])
        await store.claim(["default"], 10, 30.0, "w")
        before = await seen(store, "clients", "connected_clients:")
        for _ in range(5):
            claiming = claim(store)
            await waits(store)
            await store.enqueue([JOB])
            assert len(await claiming) == 1
        assert await seen(store, "clients", "connected_clients:") == before + 1
        many = [claim(store) for _ in range(30)]
        await waits(store, 30)
        assert store.statistics()["waiting"] == 30
        await store.enqueue([JOB] * 400)
        assert sum(map(len, await asyncio.gather(*many))) == 300
        while await seen(store, "clients", "connected_clients:") > before + 8:
            await asyncio.sleep(0.01)
        assert store.statistics()["waiting"] == 0


async def test_a_server_that_forgot_the_scripts_is_told_them_again(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        await store.enqueue([JOB])
        await store.claim(["default"], 10, 30.0, "w")
        claiming = claim(store)
        await waits(store)
        await store._link.command("SCRIPT", "FLUSH")
        ids = (await store.enqueue([JOB])).ids
        assert [x.id for x in await claiming] == ids


async def test_without_a_connection_to_spare_claims_ask_now_and_then(make_redis: MakeRedis) -> None:
    """A server that lets nobody else in: no job is lost, and nobody asks without pause."""
    async with RedisStore(make_redis().url) as store, asyncio.timeout(20):
        await store.enqueue([JOB])
        await store.claim(["default"], 10, 30.0, "w")
        await store._link.command("CONFIG", "SET", "maxclients", 1)
        before = await seen(store, "commandstats", "cmdstat_evalsha:calls=")
        assert await store.claim(["default"], 10, 30.0, "w", 1.2) == []
        assert await seen(store, "commandstats", "cmdstat_evalsha:calls=") - before < 12
        claiming = claim(store)
        while not store.statistics()["waiting"]:
            await asyncio.sleep(0.005)
        ids = (await store.enqueue([JOB])).ids
        assert [x.id for x in await claiming] == ids


async def test_the_end_of_an_awaited_job_rouses_no_claim(
    make_redis: MakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, answers = make_redis(), []
    async with RedisStore(server.url) as worker, RedisStore(server.url) as reader, asyncio.timeout(10):
        (awaited,) = (await reader.enqueue([JOB])).ids
        (lease,) = await reader.claim(["default"], 10, 30.0, "other")
        take = worker._take
        monkeypatch.setattr(worker, "_take", lambda *told: answers.append(told) or take(*told))
        claiming = claim(worker)
        await waits(reader)
        ending = asyncio.create_task(reader.wait(awaited, 5.0))
        await waits(reader, 2)
        await reader.settle([Completed(lease.id, lease.fence)])
        assert (await ending).state == "completed"
        ids = (await reader.enqueue([JOB])).ids
        assert [x.id for x in await claiming] == ids
        assert len(answers) == 2  # nothing at first, and then its job


async def test_a_claim_ends_when_its_wait_does(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        await store.enqueue([JOB])
        await store.claim(["default"], 10, 30.0, "w")
        for wait_s in (0.0, 0.001, 0.3):
            begin = time.monotonic()
            assert await store.claim(["default"], 10, 30.0, "w", wait_s) == []
            assert wait_s <= time.monotonic() - begin < wait_s + 1.0
