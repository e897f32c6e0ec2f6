"""A job of defaults is an entry of a stream until somebody claims or changes it; nobody can tell."""

import asyncio
import time
from collections.abc import Callable

import pytest
from msgspec import Raw

from fairway.jobs.errors import JobConflict
from fairway.jobs.job import Completed, Job, JobFilter, NewBatch, NewJob, Released, Verdict, raw
from fairway.jobs.stores import redis_keys as forms
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
    """A claim reads a thousand entries at once; what its answer has no room for stays where it is."""
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


async def test_what_the_first_stores_hold_goes_on(make_redis: MakeRedis) -> None:
    """The newest seq stood in the queue's hash, and every job had a hash of its own."""
    server = make_redis()
    async with RedisStore(server.url) as store:
        old = (await store.enqueue([JOB, JOB])).ids
        number = old[0] & 4095
        for i in old:  # which gives it a hash
            await store.cancel(i)
            await store.retry(i)
        ahead = (old[1] >> 12) + 10_000_000
        server.command("HSET", KEY + "q", "seq", str(ahead), "na", "2")
        server.command("DEL", f"{KEY}f:{number}")
        new = [(await store.enqueue([JOB])).ids[0] for _ in range(2)]
        assert new == [(ahead + 1) << 12 | number, (ahead + 2) << 12 | number]
        assert await waiting(store) == 4
        assert [x.id for x in await store.claim(["default"], 10, 30.0, "w")] == old + new


async def test_what_a_store_of_before_the_stream_holds_goes_on(make_redis: MakeRedis) -> None:
    """The newest seq was a key of its own, and fresh jobs were members of the ready set."""
    server = make_redis()
    async with RedisStore(server.url) as store:
        old = [(await store.enqueue([JOB])).ids[0] for _ in range(5)]
        number, seqs = old[0] & 4095, [i >> 12 for i in old]
        ahead, send = seqs[-1] + 10_000_000, store._link.command
        await send("DEL", f"{KEY}f:{number}")
        await send("SET", f"{KEY}n:{number}", ahead)
        for seq in seqs:
            member = b"%d 1763686098.250000 %b" % (seq, forms.body(JOB))
            await send("ZADD", KEY + "ready", 5 * 2**41 + seq, member)
    async with RedisStore(server.url) as store:
        assert await waiting(store) == 5
        assert [job.id for job in await store.find(JobFilter(state="available"))] == old[::-1]
        job = await of(store, old[2])
        assert (job.created_at, job.kind, job.state) == (1763686098.25, "k", "available")
        assert (await store.cancel(old[1])).state == "cancelled"
        assert await store.claim(["default"], 1, 30.0, "w") != []
        new = [(await store.enqueue([JOB])).ids[0] for _ in range(2)]
        assert new == [(ahead + 1) << 12 | number, (ahead + 2) << 12 | number]
        assert server.command("EXISTS", f"{KEY}n:{number}") == b":0\r\n"
        first = NewJob(kind="k", priority=4)
        (urgent,) = (await store.enqueue([first])).ids
        assert await waiting(store) == 6
        leases = await store.claim(["default"], 10, 30.0, "w")
        assert [(x.id, x.created_at) for x in leases[1:4]] == [(i, 1763686098.25) for i in old[2:]]
        assert [x.id for x in leases] == [urgent, *old[2:], *new]
        assert await waiting(store) == 0


async def test_fresh_jobs_and_others_are_claimed_in_one_order(make_redis: MakeRedis) -> None:
    """By priority, then by id, whatever the claims' sizes: those handed back are where they were."""
    server = make_redis()
    async with RedisStore(server.url) as store:
        given: list[tuple[int, int]] = []
        for n in range(60):
            job = NewJob(kind="k", priority=(5, 5, 5, 4, 6, 5)[n % 6], max_attempts=9 if n % 4 == 3 else 10)
            given.append((job.priority, (await store.enqueue([job])).ids[0]))
        order = [i for _, i in sorted(given)]
        assert await waiting(store) == 60
        taken = await store.claim(["default"], 25, 30.0, "w")
        assert [x.id for x in taken] == order[:25]
        await store.settle([Released(x.id, x.fence) for x in taken if x.id % 3])
        kept = {x.id for x in taken if not x.id % 3}
        left = [i for i in order if i not in kept]
        assert await waiting(store) == len(left)
        found: list[int] = []
        for size in (1, 2, 7, 1, 100):
            found += [x.id for x in await store.claim(["default"], size, 30.0, "w")]
        assert found == left
        assert await waiting(store) == 0


async def test_a_cancelled_job_leaves_the_fresh_ones_as_they_were(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store:
        ids = [(await store.enqueue([JOB])).ids[0] for _ in range(6)]
        for i in (ids[0], ids[3], ids[5]):
            await store.cancel(i)
        assert await waiting(store) == 3
        (after,) = (await store.enqueue([JOB])).ids
        assert after == ids[5] + 4096  # an id is not given again though its entry is gone
        assert [job.id for job in await store.find(JobFilter(state="available"))] == [after, ids[4], ids[2], ids[1]]
        assert [x.id for x in await store.claim(["default"], 10, 30.0, "w")] == [ids[1], ids[2], ids[4], after]
        assert await store.claim(["default"], 10, 30.0, "w") == []
        assert (await store.enqueue([JOB])).ids[0] == after + 4096


@pytest.mark.parametrize("bound", [1, 4095, 4096, 2**53 - 1, 2**53, 2**80, 10**30])
async def test_an_id_that_no_job_can_have_is_no_job(make_redis: MakeRedis, bound: int) -> None:
    async with RedisStore(make_redis().url) as store:
        (i,) = (await store.enqueue([JOB])).ids
        (j,) = (await store.enqueue([JOB])).ids
        assert await store.get(bound) is None
        found = await store.find(JobFilter(before=bound))
        assert [job.id for job in found] == ([] if bound < i else [j, i])


async def test_a_job_waits_for_a_queue_that_is_paused_without_waking_anybody(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store, asyncio.timeout(10):
        await store.enqueue([JOB])
        (first,) = await store.claim(["default"], 1, 30.0, "w")
        await store.pause("default")
        claim = asyncio.create_task(store.claim(["default"], 1, 30.0, "w", 8.0))
        while not store.statistics()["waiting"]:
            await asyncio.sleep(0.005)
        await store.enqueue([JOB])
        assert await waiting(store) == 1
        assert not claim.done()
        await store.pause("default", False)
        assert [x.id for x in await claim] == [first.id + 4096]
