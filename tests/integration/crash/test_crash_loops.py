"""Nothing acknowledged is lost and nothing stale is accepted, however often what is killed.

`FAIRWAY_CRASH_CYCLES` sets the cycles; `make crash` runs 1,000.
"""

import signal

import pytest
from crash_cluster import CYCLES, Cluster, all_final, harass, judge, judge_rolling, roll, until

from fairway.jobs.job import NewJob, Verdict, raw

pytestmark = pytest.mark.integration


@pytest.mark.timeout(120 + 5 * CYCLES)
async def test_sigkill_of_server_and_workers(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("server", "w1", "w2"):
        cluster.start(name)
    store = await cluster.client()
    acked, killed = await harass(cluster, store, [["server"], ["w1"], ["w2"], ["w1", "w2"], ["server", "w1"]])
    await store.close()
    store = await cluster.client()
    told = judge(cluster, await all_final(store, 120), acked, killed)
    with capsys.disabled():
        print(f"\n{told}")
    await store.close()


async def test_rolling_restart_repeats_nothing_and_charges_nothing(cluster: Cluster) -> None:
    cluster.start_server()
    store = await cluster.client()
    options = ("-c", "4", "--grace", "5")
    for name in ("w1", "w2"):
        cluster.start_worker(name, *options)
    ids = (await store.enqueue([NewJob(kind="mark", args=raw({"pause_s": 0.03}))] * 600)).ids
    await roll(cluster, lambda name: cluster.start_worker(name, *options))
    judge_rolling(cluster, await all_final(store), ids)
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
