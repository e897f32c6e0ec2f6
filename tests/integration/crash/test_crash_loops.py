"""Nothing acknowledged is lost and nothing stale is accepted, however often what is killed.

`FAIRWAY_CRASH_CYCLES` sets the cycles; `make crash` runs 1,000.
"""

import asyncio
import os
import random
import signal
from collections import Counter

import pytest
from crash_cluster import Cluster, all_final, pace, until

from fairway.jobs.client import HttpStore
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import NewJob, Verdict, raw

pytestmark = pytest.mark.integration
CYCLES = int(os.environ.get("FAIRWAY_CRASH_CYCLES", "25"))


async def _produce(store: HttpStore, acked: set[int], seed: int) -> None:
    """Enqueue without pause; only what was acknowledged counts."""
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


@pytest.mark.timeout(120 + 5 * CYCLES)
async def test_sigkill_of_server_and_workers(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    rand = random.Random(CYCLES)
    options = ("--lease", "1", "-c", "8", "--grace", "1")
    cluster.start_server()
    store = await cluster.client()
    cluster.start_worker("w1", *options)
    cluster.start_worker("w2", *options)
    acked: set[int] = set()
    producers = [asyncio.create_task(_produce(store, acked, n)) for n in range(3)]
    killed: Counter[str] = Counter()
    for _ in range(CYCLES):
        seen, before = len(acked), len(cluster.executions())
        await until(lambda seen=seen: len(acked) > seen + 5)
        if rand.random() < 0.7:
            await until(lambda before=before: len(cluster.executions()) > before)
        await pace(rand.uniform(0.0, 0.15))
        victims = rand.choice([["server"], ["w1"], ["w2"], ["w1", "w2"], ["server", "w1"]])
        for name in victims:
            cluster.kill(name)
            killed[name] += 1
        for name in victims:
            if name == "server":
                cluster.start_server()
            else:
                cluster.start_worker(name, *options)
    for producer in producers:
        producer.cancel()
    await asyncio.gather(*producers, return_exceptions=True)
    await store.close()
    store = await cluster.client()
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


async def test_rolling_restart_repeats_nothing_and_charges_nothing(cluster: Cluster) -> None:
    cluster.start_server()
    store = await cluster.client()
    options = ("-c", "4", "--grace", "5")
    for name in ("w1", "w2"):
        cluster.start_worker(name, *options)
    jobs = [NewJob(kind="mark", args=raw({"pause_s": 0.03})) for _ in range(600)]
    ids = (await store.enqueue(jobs)).ids
    for round_number in range(4):
        before = len(cluster.executions())
        await until(lambda before=before: len(cluster.executions()) > before + 10)
        name = f"w{1 + round_number % 2}"
        assert cluster.terminate(name) == 0, cluster.log(name)
        cluster.start_worker(name, *options)
    found = await all_final(store)
    runs = Counter(job_id for job_id, _, _ in cluster.executions())
    assert all(runs[i] == 1 for i in ids), "a job ran twice"
    assert {(found[i].state, found[i].attempt) for i in ids} == {("completed", 1)}, "an attempt was charged"
    await store.close()


async def test_drain_hands_back_what_cannot_finish(cluster: Cluster) -> None:
    cluster.start_server()
    store = await cluster.client()
    cluster.start_worker("w1", "-c", "2", "--grace", "0.2")
    ids = (await store.enqueue([NewJob(kind="mark", args=raw({"pause_s": 60.0})) for _ in range(4)])).ids
    await until(lambda: len(cluster.executions()) == 2)
    assert cluster.terminate("w1") == 0, cluster.log("w1")
    for i in ids:
        job = await store.get(i)
        assert job is not None
        assert (job.state, job.attempt) == ("available", 0)
    await store.close()


async def test_stopped_past_its_lease_a_worker_is_not_believed(cluster: Cluster) -> None:
    cluster.start_server()
    store = await cluster.client()
    cluster.start_worker("w1", "--lease", "0.6")
    (i,) = (await store.enqueue([NewJob(kind="last_word", args=raw({"pause_s": 0.3}))])).ids
    await until(lambda: len(cluster.executions()) == 1)
    cluster.signal("w1", signal.SIGSTOP)
    cluster.start_worker("w2", "--lease", "5")
    job = await store.wait(i, 20.0)
    assert (job.state, job.fence, job.attempt, job.result) == ("completed", 2, 2, raw(2))
    cluster.signal("w1", signal.SIGCONT)
    # The stopped worker wakes, ends its handler and finds that its word no longer counts.
    await until(lambda: "stale outcome" in cluster.log("w1") or "lease lost" in cluster.log("w1"))
    job = await store.wait(i, 0.0)
    assert (job.fence, job.result) == (2, raw(2))
    assert cluster.terminate("w1") == 0
    await store.close()


async def test_server_restart_charges_no_running_job(cluster: Cluster) -> None:
    cluster.start_server()
    store = await cluster.client()
    cluster.start_worker("w1", "--lease", "0.9")
    (i,) = (await store.enqueue([NewJob(kind="mark", args=raw({"pause_s": 2.0}))])).ids
    await until(lambda: len(cluster.executions()) == 1)
    cluster.kill("server")
    cluster.start_server()
    await store.close()
    store = await cluster.client()
    job = await store.wait(i, 20.0)
    assert (job.state, job.attempt, job.fence) == ("completed", 1, 1)
    assert len(cluster.executions()) == 1
    assert await store.settle([]) == []
    assert store.renew([(i, 1)], 5.0) == [Verdict.LOST]
    await store.close()
