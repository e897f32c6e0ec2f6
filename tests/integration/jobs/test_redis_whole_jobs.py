"""A job of defaults stands in the ready set as a whole until somebody claims or changes it; nobody can tell."""

import asyncio
import time
from collections.abc import Callable

import pytest
from msgspec import Raw

from fairway.jobs.errors import JobConflict
from fairway.jobs.job import Completed, Job, JobFilter, NewBatch, NewJob, Released, Verdict, raw
from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
MakeRedis = Callable[..., RedisServer]
JOB = NewJob(kind="k")
KEY = "{fairway:jobs}:default:"


def whole(server: RedisServer, job_id: int) -> bool:
    """Whether a job has no hash."""
    return server.command("EXISTS", f"{KEY}j:{job_id >> 12}") == b":0\r\n"


async def of(store: RedisStore, job_id: int) -> Job:
    job = await store.get(job_id)
    assert job is not None
    return job


async def waiting(store: RedisStore) -> int:
    (status,) = await store.queues()
    return status.counts["available"]


async def test_it_is_read_as_any_job(make_redis: MakeRedis) -> None:
    server = make_redis()
    args = [raw({"text": " a  b\nc\r\n\x00é "}), raw([]), raw("x" * 16_000), Raw(b' {"spaced": 1}\n')]
    async with RedisStore(server.url) as store:
        many = (
            await store.enqueue([NewJob(kind="k", args=raw(0)), JOB])
        ).ids  # the first of a queue, and by the general way
        ids = [(await store.enqueue([NewJob(kind="k", args=msg, meta={"a": "b c"})])).ids[0] for msg in args]
        assert all(whole(server, i) for i in many + ids)
        for i, given in zip(ids, args, strict=True):
            job = await of(store, i)
            assert bytes(job.args) == bytes(given)
            assert (job.id, job.state, job.attempt, job.fence, job.priority) == (i, "available", 0, 0, 5)
            assert (job.meta, job.run_at) == ({"a": "b c"}, job.created_at)
            assert abs(job.created_at - time.time()) < 60
        assert [job.id for job in await store.find(JobFilter())] == (many + ids)[::-1]
        assert [job.id for job in await store.find(JobFilter(state="available", limit=2, before=ids[2]))] == [
            ids[1],
            ids[0],
        ]
        assert await waiting(store) == 6
        assert (await store.wait(ids[0], 0.0)).state == "available"
        assert await store.get(ids[-1] + 4096) is None
        leases = await store.claim(["default"], 10, 30.0, "w")
        assert [lease.id for lease in leases] == many + ids
        assert [bytes(lease.args) for lease in leases[2:]] == [bytes(given) for given in args]
        assert {(lease.fence, lease.attempt) for lease in leases} == {(1, 1)}
        assert abs(leases[0].created_at - time.time()) < 60
        assert not any(whole(server, i) for i in many + ids)
        assert await waiting(store) == 0


async def test_it_is_changed_as_any_job(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        one, two, three = [(await store.enqueue([JOB])).ids[0] for _ in range(3)]
        assert (await store.cancel(two)).state == "cancelled"
        assert await waiting(store) == 2
        with pytest.raises(JobConflict):
            await store.retry(one)
        assert await waiting(store) == 2
        assert (await store.retry(two)).state == "available"
        assert (whole(server, one), whole(server, two), whole(server, three)) == (False, False, True)
        assert [x.id for x in await store.claim(["default"], 2, 30.0, "w")] == [one, two]
        assert await store.settle([Released(one, 1), Completed(two, 1)]) == [Verdict.OK, Verdict.OK]
        leases = await store.claim(["default"], 10, 30.0, "w")
        assert [(x.id, x.fence, x.attempt) for x in leases] == [(one, 2, 1), (three, 1, 1)]


async def test_who_waits_for_it_hears_of_its_end(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        (i,) = (await store.enqueue([JOB])).ids
        end = asyncio.create_task(store.wait(i, 10.0))
        while not store.statistics()["waiting"]:
            await asyncio.sleep(0.005)
        assert (await store.cancel(i)).state == "cancelled"
        assert (await end).state == "cancelled"


async def test_of_a_batch_each_has_its_hash(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        answer = await store.enqueue([JOB, JOB], NewBatch())
        assert answer.batch is not None
        assert not any(whole(server, i) for i in answer.ids)
        leases = await store.claim(["default"], 10, 30.0, "w")
        await store.settle([Completed(x.id, x.fence) for x in leases])
        batch = await store.batch(answer.batch)
        assert batch is not None
        assert (batch.total, batch.pending) == (2, 0)


async def test_a_large_one_has_its_hash_at_once(make_redis: MakeRedis) -> None:
    """A claim takes a thousand members at once; those that its answer has no room for go back, without their data."""
    server = make_redis()
    small, large = NewJob(kind="k", args=raw("x" * 16_000)), NewJob(kind="k", args=raw("x" * 16_400))
    async with RedisStore(server.url) as store:
        ids = (await store.enqueue([small, large])).ids
        ids += [(await store.enqueue([job])).ids[0] for job in (small, large)]
        assert [whole(server, i) for i in ids] == [True, False, True, False]
        assert await waiting(store) == 4
        assert bytes((await of(store, ids[3])).args) == bytes(large.args)
        leases = await store.claim(["default"], 10, 30.0, "w")
        assert [lease.id for lease in leases] == ids
        assert [len(bytes(lease.args)) for lease in leases] == [16_002, 16_402] * 2


async def test_more_than_one_answer_holds_stays_where_it_was(make_redis: MakeRedis) -> None:
    server = make_redis()
    big = NewJob(kind="k", args=raw("x" * 1_000_000))
    async with RedisStore(server.url) as store:
        ids = [i for _ in range(4) for i in (await store.enqueue([big] * 5)).ids]
        first = await store.claim(["default"], 20, 30.0, "w")
        assert [x.id for x in first] == ids[: len(first)]
        assert len(first) < 20
        assert await waiting(store) == 20 - len(first)
        assert [x.id for x in await store.claim(["default"], 20, 30.0, "w")] == ids[len(first) :]


async def test_what_a_store_of_before_holds_goes_on(make_redis: MakeRedis) -> None:
    """The newest seq stood in the queue's hash, and every job had a hash of its own."""
    server = make_redis()
    async with RedisStore(server.url) as store:
        old = (await store.enqueue([JOB, JOB])).ids
        number = old[0] & 4095
        await store.cancel(old[1])  # which gives it a hash
        await store.retry(old[1])
        ahead = (old[1] >> 12) + 10_000_000
        server.command("HSET", KEY + "q", "seq", str(ahead), "na", "2")
        server.command("DEL", f"{KEY}n:{number}")
        new = [(await store.enqueue([JOB])).ids[0] for _ in range(2)]
        assert new == [(ahead + 1) << 12 | number, (ahead + 2) << 12 | number]
        assert await waiting(store) == 4
        assert [x.id for x in await store.claim(["default"], 10, 30.0, "w")] == old + new
