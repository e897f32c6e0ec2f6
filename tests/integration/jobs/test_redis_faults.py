"""What becomes of jobs when Redis is killed, flushed, full, forgetful, stopped or badly configured."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.jobs.errors import JobError, StoreUnavailable
from fairway.jobs.job import (
    Completed,
    Failed,
    JobFilter,
    NewBatch,
    NewJob,
    OnceVerdict,
    QueueConfig,
    Schedule,
    Verdict,
    raw,
)
from fairway.jobs.opening import open_store
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration
MakeRedis = Callable[..., RedisServer]
JOB = NewJob(kind="k")


async def _answers(store: RedisStore) -> None:
    """Poll until the store has found the server again."""
    async with asyncio.timeout(10):
        while True:
            try:
                await store.queues()
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def _waits(store: RedisStore) -> None:
    """Poll until a claim waits."""
    async with asyncio.timeout(10):
        while not store.statistics()["waiting"]:
            await asyncio.sleep(0.005)


async def test_killed_redis_loses_nothing_acknowledged(make_redis: MakeRedis) -> None:
    server = make_redis("always")
    acked: set[int] = set()
    async with RedisStore(server.url) as store:
        assert store.features.durability == "fsync"

        up = asyncio.Event()
        up.set()

        async def produce() -> None:
            while await up.wait():
                try:
                    answer = await store.enqueue([JOB])
                except StoreUnavailable:
                    await asyncio.sleep(0)
                else:
                    assert answer.durability == "fsync"
                    acked.update(answer.ids)

        producers = [asyncio.create_task(produce()) for _ in range(8)]
        for _ in range(5):
            enough = len(acked) + 50
            async with asyncio.timeout(20):
                while len(acked) < enough:
                    await asyncio.sleep(0.001)
            up.clear()
            server.kill()
            await asyncio.to_thread(server.start)
            up.set()
        for producer in producers:
            producer.cancel()
        await asyncio.gather(*producers, return_exceptions=True)
        await _answers(store)
        taken: set[int] = set()
        while leases := await store.claim(["default"], 1000, 30.0, "w"):
            taken |= {lease.id for lease in leases}
        assert acked <= taken


async def test_leases_that_ended_while_redis_was_down_are_not_charged(make_redis: MakeRedis) -> None:
    server = make_redis("always")
    async with RedisStore(server.url, StoreOptions(restart_grace_s=20.0)) as store:
        (i,) = (await store.enqueue([JOB])).ids
        (lease,) = await store.claim(["default"], 1, 0.2, "w")
        server.kill()
        over = time.monotonic() + 0.25
        while time.monotonic() < over:  # the lease runs by the server's clock
            await asyncio.sleep(0.02)
        server.start()
        await _answers(store)
        await store.maintain()
        job = await store.get(i)
        assert job is not None
        assert (job.state, job.attempt) == ("running", 1)
        assert store.renew([(i, lease.fence)], 5.0) == [Verdict.OK]
        assert await store.settle([Completed(i, lease.fence)]) == [Verdict.OK]


async def test_calls_fail_loudly_while_redis_is_away_and_recover(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        await store.enqueue([JOB])
        await store.claim(["default"], 1, 30.0, "w")
        waiting = asyncio.create_task(store.claim(["default"], 1, 30.0, "w", wait_s=30.0))
        await _waits(store)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.enqueue([JOB])
        with pytest.raises(StoreUnavailable):
            store.renew([(4096, 1)], 5.0)
        with pytest.raises(StoreUnavailable):
            await waiting
        with pytest.raises(StoreUnavailable, match="cannot connect"):
            await RedisStore(server.url).open()
        server.start()
        await _answers(store)
        waiting = asyncio.create_task(store.claim(["default"], 1, 30.0, "w", wait_s=30.0))
        await _waits(store)
        (i,) = (await store.enqueue([JOB])).ids
        async with asyncio.timeout(10):
            assert [lease.id for lease in await waiting] == [i]


async def test_flushall_ends_running_fences_and_the_store_goes_on(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store, RedisStore(server.url) as other:
        old = (await store.enqueue([JOB, JOB, NewJob(kind="k", queue="b")])).ids
        leases = await store.claim(["default"], 2, 30.0, "w")
        waiting = asyncio.create_task(other.claim(["c", "default"], 1, 30.0, "w2", wait_s=30.0))
        await _waits(other)
        server.command("FLUSHALL")
        assert store.renew([(x.id, x.fence) for x in leases], 5.0) == [Verdict.LOST] * 2
        assert await store.settle([Completed(leases[0].id, 1), Failed(leases[1].id, 1, "x")]) == [Verdict.LOST] * 2
        assert await store.get(old[0]) is None
        assert await store.find(JobFilter()) == []
        assert await store.queues() == []
        new = (await store.enqueue([JOB, JOB])).ids
        assert not set(new) & set(old)
        async with asyncio.timeout(10):
            assert [x.id for x in await waiting] == [new[0]]
        assert [x.id for x in await other.claim(["default"], 5, 30.0, "w2")] == [new[1]]
        assert await other.settle([Completed(leases[0].id, 1), Completed(new[0], 1)]) == [Verdict.LOST, Verdict.OK]


async def test_out_of_memory_is_said_and_nothing_is_stored(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        ids = (await store.enqueue([JOB, JOB])).ids
        assert server.command("CONFIG", "SET", "maxmemory", "1mb").startswith(b"+OK")
        with pytest.raises(StoreUnavailable, match="out of memory"):
            await store.enqueue([NewJob(kind="big", args=raw("x" * 500_000))])
        with pytest.raises(StoreUnavailable, match="out of memory"):
            await store.enqueue([NewJob(kind="k", queue="fresh")])
        assert [job.id for job in await store.find(JobFilter())] == ids[::-1]
        # What is there can be worked off, which is what gives the memory back.
        leases = await store.claim(["default"], 5, 30.0, "w")
        assert await store.settle([Completed(x.id, x.fence) for x in leases]) == [Verdict.OK] * 2
        assert server.command("CONFIG", "SET", "maxmemory", "0").startswith(b"+OK")
        assert len((await store.enqueue([NewJob(kind="k", queue="fresh")])).ids) == 1
        assert {status.name: sum(status.counts.values()) for status in await store.queues()} == {
            "default": 2,
            "fresh": 1,
        }


async def test_scripts_that_the_server_forgot_are_sent_again(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        await store.enqueue([JOB])
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        assert store.renew([(lease.id, 1)], 30.0) == [Verdict.OK]
        server.command("SCRIPT", "FLUSH")
        assert store.renew([(lease.id, 1)], 30.0) == [Verdict.OK]
        assert await store.settle([Completed(lease.id, 1)]) == [Verdict.OK]
        await store.enqueue([JOB])
        assert len(await store.claim(["default"], 1, 30.0, "w")) == 1


async def test_calls_that_travel_together_get_each_its_own_answer(make_redis: MakeRedis) -> None:
    async with RedisStore(make_redis().url) as store:
        await store.enqueue([JOB])

        async def one(n: int) -> tuple[int, int]:
            return (await store.enqueue([NewJob(kind="k", args=raw(n), priority=5 if n % 7 else 1)])).ids[0], n

        pairs = [await one(-1), *await asyncio.gather(*(one(n) for n in range(200))), await one(-2)]
        # One that stops listening does not shift the answers of the others.
        late = [asyncio.create_task(one(n)) for n in range(200, 260)]
        await asyncio.sleep(0)
        for task in late[::3]:
            task.cancel()
        pairs += [told for told in await asyncio.gather(*late, return_exceptions=True) if isinstance(told, tuple)]
        assert len(pairs) == 242
        assert len({job_id for job_id, _ in pairs}) == len(pairs)
        for job_id, n in pairs:
            job = await store.get(job_id)
            assert job is not None
            assert job.args == raw(n)


async def test_a_server_that_evicts_is_refused(make_redis: MakeRedis) -> None:
    server = make_redis("everysec", "--maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreUnavailable, match="noeviction"):
        await RedisStore(server.url).open()
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    async with RedisStore(server.url) as store:
        assert store.features.durability == "process"


async def test_without_append_only_file_nothing_is_promised(make_redis: MakeRedis) -> None:
    server = make_redis("everysec", "--appendonly", "no")
    async with RedisStore(server.url) as store:
        assert (await store.enqueue([JOB])).durability == "memory"


async def test_password_database_and_namespace(make_redis: MakeRedis) -> None:
    server = make_redis("everysec")
    server.command("CONFIG", "SET", "requirepass", "geheim")
    with pytest.raises(StoreUnavailable, match="refuses"):
        await RedisStore(server.url).open()
    with pytest.raises(StoreUnavailable, match="refuses"):
        await RedisStore(f"redis://:falsch@127.0.0.1:{server.port}/0").open()
    address = f"redis://:geheim@127.0.0.1:{server.port}/3"
    async with open_store(f"{address}?namespace=one") as one, open_store(f"{address}?namespace=two") as two:
        (i,) = (await one.enqueue([JOB])).ids
        assert await two.find(JobFilter()) == []
        assert await two.claim(["default"], 1, 30.0, "w") == []
        assert [x.id for x in await one.claim(["default"], 1, 30.0, "w")] == [i]
        assert one.renew([(i, 1)], 5.0) == [Verdict.OK]
        assert "geheim" not in repr(one)
    with pytest.raises(JobError, match="redis://"):
        open_store("redis+cluster://127.0.0.1:1/0")


async def test_a_server_that_became_a_replica_is_left_and_asked_for_again(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        (i,) = (await store.enqueue([JOB])).ids
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        before = store._link._wire
        server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.enqueue([JOB])
        with pytest.raises(StoreUnavailable):
            store.renew([(i, lease.fence)], 30.0)
        server.command("REPLICAOF", "NO", "ONE")
        assert len((await store.enqueue([JOB])).ids) == 1
        assert store._link._wire is not before
        assert store.renew([(i, lease.fence)], 30.0) == [Verdict.OK]


async def test_after_a_restart_ids_and_fences_go_on_above_those_of_before(make_redis: MakeRedis) -> None:
    server = make_redis("always")
    async with RedisStore(server.url) as store:
        first, second = (await store.enqueue([JOB, JOB])).ids
        (old,) = await store.claim(["default"], 1, 30.0, "w")
        assert (old.id, old.fence) == (first, 1)
        server.kill()
        server.start()
        await _answers(store)
        (lease,) = await store.claim(["default"], 1, 30.0, "w")
        assert lease.id == second
        assert lease.fence == 1_000_001
        (third,) = (await store.enqueue([JOB])).ids
        assert (third >> 12) - (second >> 12) >= 1 << 20
        assert await store.settle([Completed(first, 1), Completed(second, lease.fence)]) == [Verdict.OK] * 2
        store._link._drop()  # another connection to the same life moves nothing
        (fourth,) = (await store.enqueue([JOB])).ids
        assert (fourth >> 12) - (third >> 12) == 1


async def test_two_processes_share_the_jobs(make_redis: MakeRedis) -> None:
    server = make_redis()
    async with RedisStore(server.url) as store:
        ids = (await store.enqueue([JOB] * 300)).ids
        peer = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("redis_peer.py")), server.url), stdout=subprocess.PIPE
        )
        assert peer.stdout is not None
        assert await peer.stdout.readline() == b"open\n"
        mine: list[int] = []
        while leases := await store.claim(["default"], 1, 30.0, "me"):
            mine += [lease.id for lease in leases]
            assert await store.settle([Completed(x.id, x.fence) for x in leases]) == [Verdict.OK]
        # The peer waits now, and what this process enqueues wakes it.
        last = (await store.enqueue([JOB])).ids
        job = await store.wait(last[0], 10.0)
        assert (job.state, job.worker) == ("completed", "peer")
        theirs = [int(word) for word in (await peer.stdout.read()).split()]
        assert await peer.wait() == 0
    assert mine
    assert sorted(mine + theirs) == ids + last


async def test_no_news_is_missed_between_asking_and_waiting(make_redis: MakeRedis) -> None:
    server, total = make_redis(), 400
    async with RedisStore(server.url) as one, RedisStore(server.url) as two:
        got: list[int] = []
        enough = asyncio.Event()

        async def work(store: RedisStore, queues: list[str]) -> None:
            while len(got) < total:
                leases = await store.claim(queues, 1, 30.0, "w", wait_s=60.0)
                got.extend(lease.id for lease in leases)
                await store.settle([Completed(x.id, x.fence) for x in leases])
            enough.set()

        workers = [asyncio.create_task(work(store, ["a", "b"])) for store in (one, two) for _ in range(3)]
        rand = random.Random(1)
        # A missed wake-up would leave a job lying until a claim's thirty seconds are over.
        async with asyncio.timeout(20):
            ids = []
            for n in range(total):
                ids += (await (one, two)[n % 2].enqueue([NewJob(kind="k", queue=rand.choice("ab"))])).ids
                if n % 7 == 0:
                    while len(got) < len(ids):
                        await asyncio.sleep(0)
            await enough.wait()
        assert sorted(got) == sorted(ids)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def test_keys_stay_in_their_slot_of_a_cluster(make_redis: MakeRedis) -> None:
    server = make_redis("everysec", "--cluster-enabled", "yes")
    server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    async with asyncio.timeout(10):
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            await asyncio.sleep(0.02)
    async with RedisStore(server.url) as store:
        several = [NewJob(kind="b", queue="b"), NewJob(kind="c", queue="c")]
        ids = (await store.enqueue(several)).ids
        leases = await store.claim(["c", "b"], 10, 30.0, "w")
        assert [lease.id for lease in leases] == ids[::-1]
        assert await store.settle([Completed(x.id, x.fence) for x in leases]) == [Verdict.OK] * 2
        every = NewJob(
            kind="k", unique_key="u", unique_for_s=60.0, concurrency_key="c", then=(NewJob(kind="l"),), priority=1
        )
        batch = (await store.enqueue([every, JOB], NewBatch(callback=NewJob(kind="done")))).batch
        await store.configure("default", QueueConfig(rate=1000.0, burst=1000))
        await store.put_schedule(Schedule(name="s", job=JOB, every_s=5.0))
        await store.ticked("s", 5.0)
        ran = []
        while leases := await store.claim(["default"], 10, 30.0, "w"):
            for lease in leases:
                assert await store.once(lease.id, lease.fence, f"key{lease.id}") is OnceVerdict.FIRST
                assert await store.progress(lease.id, lease.fence, 0.5) is Verdict.OK
            assert store.renew([(x.id, x.fence) for x in leases], 30.0) == [Verdict.OK] * len(leases)
            await store.settle([Completed(x.id, x.fence) for x in leases])
            ran += [lease.kind for lease in leases]
        assert sorted(ran) == ["done", "k", "k", "l"]
        assert batch is not None
        progress = await store.batch(batch)
        assert progress is not None
        assert progress.pending == 0
        await store.maintain()
        assert len(await store.find(JobFilter(queue="default", state="completed"))) == 4
        assert (await store.schedules())[0].last_tick == 5.0
