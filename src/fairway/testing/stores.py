"""The conformance suite of job stores: what `fairway.jobs.store` promises, as tests.

A store's own test file says how to make one, and inherits the rest:

```python
class TestMyStore(StoreConformance):
    @pytest.fixture
    async def harness(self, fake_clock):
        return StoreHarness(lambda options: MyStore(options), clock=fake_clock)
```

Size: one suite is one file, because whoever writes a store reads it from top to bottom.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest

from fairway.clock import SYSTEM_CLOCK
from fairway.jobs.errors import InvalidJob, JobConflict, JobNotFound, PayloadTooLarge, QueueNotFound, ScheduleNotFound
from fairway.jobs.job import (
    Completed,
    Enqueued,
    Failed,
    Job,
    JobFilter,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueConfig,
    Released,
    Schedule,
    Snoozed,
    Stopped,
    Verdict,
    raw,
)
from fairway.jobs.store import Store, StoreOptions
from fairway.testing.clock import FakeClock

OK, LOST, CANCEL = Verdict.OK, Verdict.LOST, Verdict.CANCEL


class StoreHarness:
    """How the suite makes a store and lets time pass.

    Args:
        make: Returns a store, not opened, over the same data each time (where the store survives a restart).
        clock: The fake clock that the stores follow, or None for stores with a clock of their own: time then passes
            by waiting, and the suite's durations are tenths of seconds.
        options: Handed to `make`.
    """

    def __init__(
        self,
        make: Callable[[StoreOptions], Store],
        clock: FakeClock | None = None,
        options: StoreOptions | None = None,
    ) -> None:
        self._make = make
        self.clock = clock
        self.options = options or StoreOptions(
            max_payload=2_000, restart_grace_s=0.3, clock=SYSTEM_CLOCK if clock is None else clock
        )

    def make(self) -> Store:
        """Return a store that is not open."""
        return self._make(self.options)

    async def advance(self, store: Store, seconds: float) -> None:
        """Let `seconds` pass and the store notice."""
        if self.clock is None:
            await asyncio.sleep(seconds + 0.02)
        else:
            await self.clock.advance(seconds)
        await store.maintain()


async def put(store: Store, *jobs: NewJob, batch: NewBatch | None = None) -> list[int]:
    """Enqueue and return the ids."""
    return (await store.enqueue(jobs, batch)).ids


async def take(store: Store, *queues: str, limit: int = 10, lease_s: float = 30.0, wait_s: float = 0.0) -> list[Lease]:
    """Claim as worker ``w``."""
    return await store.claim(queues or ("default",), limit, lease_s, "w", wait_s)


async def must_get(store: Store, job_id: int) -> Job:
    """Return a job that has to exist."""
    job = await store.get(job_id)
    assert job is not None
    return job


def new(kind: str = "k", **fields: object) -> NewJob:
    """Return a `NewJob` of `kind`, retried at once, with `fields` as JSON would have them."""
    return msgspec.json.decode(raw({"kind": kind, "backoff": {"base_s": 0.0}, **fields}), type=NewJob)


class StoreConformance:
    """Inherit, and give a `harness` fixture."""

    @pytest.fixture
    def harness(self) -> StoreHarness:
        """Return the `StoreHarness` of the store under test."""
        pytest.fail("a conformance test class gives its own `harness` fixture")

    @pytest.fixture
    async def store(self, harness: StoreHarness) -> AsyncIterator[Store]:
        """Yield an open store."""
        async with harness.make() as store:
            yield store

    # Enqueue ------------------------------------------------------------------------------------------------------

    async def test_enqueue_answers_growing_ids_and_durability(self, store: Store) -> None:
        """Enqueue answers growing ids and durability."""
        answer = await store.enqueue([new(), new(), new()])
        assert answer.ids == sorted(set(answer.ids))
        assert len(answer.ids) == 3
        assert all(0 < i < 2**53 for i in answer.ids)
        assert answer.durability == store.features.durability
        assert (answer.duplicates, answer.batch) == ([], None)
        assert (await store.enqueue_soon([new()])).ids > answer.ids

    async def test_a_job_is_found_as_it_was_handed_in(self, store: Store) -> None:
        """A job is found as it was handed in."""
        args = {"n": 2**60, "f": 0.1, "s": "höß\x00\"'", "l": [None, True]}
        (i,) = await put(store, new("mail.send", args=args, priority=3, meta={"traceparent": "00-x"}, timeout_s=2.5))
        job = await must_get(store, i)
        assert (job.id, job.queue, job.kind, job.state) == (i, "default", "mail.send", "available")
        assert msgspec.json.decode(job.args) == args
        assert (job.priority, job.attempt, job.fence, job.timeout_s) == (3, 0, 0, 2.5)
        assert job.meta == {"traceparent": "00-x"}
        assert await store.get(i + 1_000_000) is None

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"kind": ""}, "kind"),
            ({"kind": "a b"}, "kind"),
            ({"queue": "q/x"}, "queue"),
            ({"queue": "{x}"}, "queue"),
            ({"priority": 10}, "priority"),
            ({"priority": -1}, "priority"),
            ({"delay_s": -1.0}, "delay_s"),
            ({"delay_s": 1.0, "run_at": 5.0}, "delay_s"),
            ({"max_attempts": 0}, "max_attempts"),
            ({"timeout_s": 0.0}, "timeout_s"),
            ({"concurrency_key": "c", "concurrency_limit": 0}, "concurrency_limit"),
            ({"unique_key": ""}, "unique_key"),
            ({"unique_for_s": 5.0}, "unique_for_s"),
            ({"backoff": {"factor": 0.5}}, "backoff.factor"),
            ({"then": [{"kind": "k", "priority": 77}]}, "then[0].priority"),
            ({"args": msgspec.Raw(b"[" * 501 + b"]" * 501)}, "args"),
        ],
    )
    async def test_bad_fields_are_named_and_nothing_is_stored(
        self, store: Store, fields: dict[str, object], field: str
    ) -> None:
        """Bad fields are named and nothing is stored."""
        jobs = [new(), new(**{"kind": "k", **fields})]  # type: ignore[arg-type]  # parametrised
        for enqueue in (store.enqueue, store.enqueue_soon):
            with pytest.raises(InvalidJob) as caught:
                await enqueue(jobs)
            assert caught.value.field == f"jobs[1].{field}"
        assert await store.find(JobFilter()) == []

    async def test_oversize_arguments_are_refused(self, store: Store) -> None:
        """Oversize arguments are refused."""
        with pytest.raises(PayloadTooLarge) as caught:
            await store.enqueue([new(args="x" * 2_000)])
        assert caught.value.field == "jobs[0].args"
        assert len(await put(store, new(args="x" * 1_998))) == 1

    async def test_unique_key_while_live(self, store: Store) -> None:
        """Unique key while live."""
        (first,) = await put(store, new(unique_key="u"))
        again = await store.enqueue([new(unique_key="u"), new(), new(unique_key="u", queue="other")])
        assert again.ids[0] == first
        assert again.duplicates == [first]
        assert len({*again.ids}) == 3
        (lease,) = [x for x in await take(store) if x.id == first]
        assert (await put(store, new(unique_key="u"))) == [first]
        await store.settle([Completed(lease.id, lease.fence)])
        assert (await put(store, new(unique_key="u"))) != [first]

    async def test_unique_within_one_call(self, store: Store) -> None:
        """Unique within one call."""
        answer = await store.enqueue([new(unique_key="u"), new(unique_key="u")])
        assert answer.ids[0] == answer.ids[1]
        assert answer.duplicates == [answer.ids[0]]

    async def test_unique_key_with_a_window_outlives_the_job(self, harness: StoreHarness, store: Store) -> None:
        """Unique key with a window outlives the job."""
        job = new(unique_key="u", unique_for_s=0.4)
        (first,) = await put(store, job)
        (lease,) = await take(store)
        await store.settle([Completed(lease.id, lease.fence)])
        assert await put(store, job) == [first]
        await harness.advance(store, 0.45)
        assert await put(store, job) != [first]

    # Claim --------------------------------------------------------------------------------------------------------

    async def test_claim_order_priority_then_id(self, store: Store) -> None:
        """Claim order priority then id."""
        a, b, c, d = await put(store, new(priority=5), new(priority=1), new(priority=5), new(priority=0))
        leases = await take(store, limit=3)
        assert [x.id for x in leases] == [d, b, a]
        assert all((x.fence, x.attempt) == (1, 1) for x in leases)
        assert [x.id for x in await take(store)] == [c]
        job = await must_get(store, a)
        assert (job.state, job.worker, job.attempt, job.fence) == ("running", "w", 1, 1)
        assert job.lease_until is not None
        assert job.started_at is not None

    async def test_claim_prefers_the_first_queue(self, store: Store) -> None:
        """Claim prefers the first queue."""
        (a,) = await put(store, new(queue="qa"))
        b, _ = await put(store, new(queue="qb"), new(queue="qb"))
        assert [x.id for x in await take(store, "qa", "qb", limit=2)] == [a, b]
        assert await take(store, "absent") == []

    async def test_concurrent_claims_never_share_a_job(self, store: Store) -> None:
        """Concurrent claims never share a job."""
        ids = await put(store, *[new() for _ in range(50)])
        taken = await asyncio.gather(*[take(store, limit=7) for _ in range(10)])
        assert sorted(x.id for leases in taken for x in leases) == ids

    async def test_waiting_claim_is_woken_by_an_enqueue(self, store: Store) -> None:
        """Waiting claim is woken by an enqueue."""
        async with asyncio.timeout(5):
            waiting = asyncio.create_task(take(store, wait_s=60.0))
            await asyncio.sleep(0.01)
            (i,) = await put(store, new())
            assert [x.id for x in await waiting] == [i]

    async def test_waiting_claim_cancelled_leaves_no_lease(self, store: Store) -> None:
        """Waiting claim cancelled leaves no lease."""
        waiting = asyncio.create_task(take(store, wait_s=60.0))
        await asyncio.sleep(0.01)
        enqueue = asyncio.create_task(put(store, new()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await enqueue
        async with asyncio.timeout(5):
            (lease,) = await take(store, wait_s=4.0)
        assert lease.attempt == 1

    async def test_delayed_job_runs_when_due(self, harness: StoreHarness, store: Store) -> None:
        """Delayed job runs when due."""
        (i,) = await put(store, new(delay_s=0.3))
        assert (await must_get(store, i)).state == "scheduled"
        assert await take(store) == []
        await harness.advance(store, 0.35)
        assert [x.id for x in await take(store)] == [i]

    async def test_run_at_in_the_past_is_now(self, store: Store) -> None:
        """Run at in the past is now."""
        (i,) = await put(store, new(run_at=1.0))
        assert [x.id for x in await take(store)] == [i]

    # Settle -------------------------------------------------------------------------------------------------------

    async def test_complete_stores_the_result_and_repeats_are_ok(self, store: Store) -> None:
        """Complete stores the result and repeats are ok."""
        (i,) = await put(store, new())
        (lease,) = await take(store)
        done = Completed(i, lease.fence, raw({"x": [1]}))
        assert await store.settle([done]) == [OK]
        job = await must_get(store, i)
        assert (job.state, job.lease_until, job.final) == ("completed", None, True)
        assert job.finished_at is not None
        assert isinstance(job.result, msgspec.Raw)
        assert msgspec.json.decode(job.result) == {"x": [1]}
        assert await store.settle([done]) == [OK]
        assert await store.settle([Completed(i, lease.fence + 1), Failed(i, lease.fence, "no")]) == [LOST, LOST]
        assert (await must_get(store, i)).state == "completed"

    async def test_stale_and_unknown_fences_are_lost(self, store: Store) -> None:
        """Stale and unknown fences are lost."""
        (i,) = await put(store, new())
        (first,) = await take(store)
        assert await store.settle([Failed(i, 1, "boom")]) == [OK]
        (second,) = await take(store)
        assert (second.id, second.fence, second.attempt) == (i, 2, 2)
        stale: list[Outcome] = [
            Completed(i, first.fence),
            Failed(i, 1, ""),
            Released(i, 1),
            Snoozed(i, 1, 1.0),
            Stopped(i, 1),
        ]
        assert await store.settle([*stale, Completed(i + 1_000_000, 1)]) == [LOST] * 6
        assert store.renew([(i, 1), (i, 2)], 30.0) == [LOST, OK]
        assert await store.progress(i, 1, 0.5) is LOST
        assert await store.once(i, 1, "x") is OnceVerdict.LOST
        assert await store.settle([Completed(i, 2)]) == [OK]

    async def test_failure_retries_with_backoff_then_discards(self, harness: StoreHarness, store: Store) -> None:
        """Failure retries with backoff then discards."""
        (i,) = await put(store, new(max_attempts=2, backoff={"base_s": 0.3, "jitter": 0.0}))
        (lease,) = await take(store)
        await store.settle([Failed(i, lease.fence, "first")])
        job = await must_get(store, i)
        assert (job.state, job.error, job.attempt) == ("retryable", "first", 1)
        assert await take(store) == []
        await harness.advance(store, 0.35)
        (lease,) = await take(store)
        await store.settle([Failed(i, lease.fence, "second")])
        job = await must_get(store, i)
        assert (job.state, job.error, job.attempt) == ("discarded", "second", 2)

    async def test_failure_without_retry_discards(self, store: Store) -> None:
        """Failure without retry discards."""
        (i,) = await put(store, new())
        (lease,) = await take(store)
        await store.settle([Failed(i, lease.fence, "x" * 10_000, retry=False)])
        job = await must_get(store, i)
        assert job.state == "discarded"
        assert job.error is not None
        assert len(job.error) == 8_192

    async def test_failure_may_name_its_own_delay(self, harness: StoreHarness, store: Store) -> None:
        """Failure may name its own delay."""
        (i,) = await put(store, new())
        (lease,) = await take(store)
        await store.settle([Failed(i, lease.fence, "later", retry_in_s=0.3)])
        assert await take(store) == []
        await harness.advance(store, 0.35)
        assert len(await take(store)) == 1

    async def test_release_and_snooze_give_the_attempt_back(self, harness: StoreHarness, store: Store) -> None:
        """Release and snooze give the attempt back."""
        (i,) = await put(store, new(max_attempts=1))
        await take(store)
        assert await store.settle([Released(i, 1)]) == [OK]
        job = await must_get(store, i)
        assert (job.state, job.attempt, job.fence) == ("available", 0, 1)
        (lease,) = await take(store)
        assert (lease.fence, lease.attempt) == (2, 1)
        assert await store.settle([Snoozed(i, 2, 0.3)]) == [OK]
        assert (await must_get(store, i)).state == "scheduled"
        await harness.advance(store, 0.35)
        (lease,) = await take(store)
        assert (lease.fence, lease.attempt) == (3, 1)

    async def test_oversize_result_is_a_failure(self, store: Store) -> None:
        """Oversize result is a failure."""
        (i,) = await put(store, new(max_attempts=1))
        await take(store)
        assert await store.settle([Completed(i, 1, raw("x" * 3_000))]) == [OK]
        job = await must_get(store, i)
        assert job.state == "discarded"
        assert "2000" in (job.error or "").replace(",", "")

    # Leases -------------------------------------------------------------------------------------------------------

    async def test_expired_lease_consumes_an_attempt(self, harness: StoreHarness, store: Store) -> None:
        """Expired lease consumes an attempt."""
        (i,) = await put(store, new(max_attempts=2))
        (first,) = await take(store, lease_s=0.3)
        await harness.advance(store, 0.4)
        (second,) = await take(store, lease_s=0.3, wait_s=5.0)
        assert (second.id, second.fence, second.attempt) == (i, 2, 2)
        assert await store.settle([Completed(i, first.fence)]) == [LOST]
        await harness.advance(store, 0.4)
        job = await store.wait(i, 5.0)
        assert job.state == "discarded"
        assert "lease" in (job.error or "")

    async def test_renewed_lease_lives_on(self, harness: StoreHarness, store: Store) -> None:
        """Renewed lease lives on."""
        (i,) = await put(store, new())
        await take(store, lease_s=0.4)
        for _ in range(3):
            await harness.advance(store, 0.25)
            assert store.renew([(i, 1)], 0.4) == [OK]
        assert await store.settle([Completed(i, 1)]) == [OK]

    async def test_restart_keeps_jobs_and_leases(self, harness: StoreHarness) -> None:
        """Restart keeps jobs and leases."""
        async with harness.make() as store:
            if not store.features.survives_restart:
                pytest.skip("the store does not survive a restart, and says so")
            running, waiting, later = await put(store, new(), new(), new(delay_s=60.0))
            (lease,) = await take(store, limit=1)
            await store.pause("default")
        async with harness.make() as store:
            states = [(await must_get(store, i)).state for i in (running, waiting, later)]
            assert states == ["running", "available", "scheduled"]
            assert (await store.queues())[0].paused
            assert await store.settle([Completed(running, lease.fence)]) == [OK]
            await store.pause("default", False)
            assert [x.id for x in await take(store)] == [waiting]

    # Cancel, retry, replay ----------------------------------------------------------------------------------------

    async def test_cancel_waiting_job(self, store: Store) -> None:
        """Cancel waiting job."""
        i, later = await put(store, new(unique_key="u"), new(delay_s=60.0))
        assert (await store.cancel(i)).state == "cancelled"
        assert (await store.cancel(later)).state == "cancelled"
        assert (await store.cancel(i)).state == "cancelled"
        assert await take(store) == []
        assert await put(store, new(unique_key="u")) != [i]
        with pytest.raises(JobNotFound):
            await store.cancel(i + 1_000_000)

    @pytest.mark.parametrize("end", ["stopped", "failed", "released", "snoozed", "completed"])
    async def test_cancel_running_job(self, store: Store, end: str) -> None:
        """Cancel running job."""
        (i,) = await put(store, new())
        await take(store)
        job = await store.cancel(i)
        assert (job.state, job.cancel_requested) == ("running", True)
        assert store.renew([(i, 1)], 30.0) == [CANCEL]
        assert await store.progress(i, 1, 0.5) is CANCEL
        outcomes: dict[str, Outcome] = {
            "stopped": Stopped(i, 1),
            "failed": Failed(i, 1, "x"),
            "released": Released(i, 1),
            "snoozed": Snoozed(i, 1, 1.0),
            "completed": Completed(i, 1),
        }
        assert await store.settle([outcomes[end]]) == [OK]
        job = await must_get(store, i)
        assert (job.state, job.attempt) == ("completed" if end == "completed" else "cancelled", 1)

    async def test_retry_by_hand(self, store: Store) -> None:
        """Retry by hand."""
        (i,) = await put(store, new(max_attempts=1))
        await take(store)
        with pytest.raises(JobConflict):
            await store.retry(i)
        await store.settle([Failed(i, 1, "x")])
        job = await store.retry(i)
        assert (job.state, job.attempt, job.fence) == ("available", 0, 1)
        (lease,) = await take(store)
        assert (lease.fence, lease.attempt) == (2, 1)
        await store.settle([Completed(i, 2)])
        with pytest.raises(JobConflict):
            await store.retry(i)
        with pytest.raises(JobNotFound):
            await store.retry(i + 1_000_000)

    async def test_a_retried_job_takes_its_unique_key_again(self, store: Store) -> None:
        """A retried job takes its unique key again, unless another job holds it."""
        (first,) = await put(store, new(unique_key="u"))
        await store.cancel(first)
        await store.retry(first)
        assert await put(store, new(unique_key="u")) == [first]
        await store.cancel(first)
        (second,) = await put(store, new(unique_key="u"))
        await store.retry(first)
        assert await put(store, new(unique_key="u")) == [second]

    async def test_replay_the_dead(self, store: Store) -> None:
        """Replay the dead."""
        ids = await put(store, new("a"), new("a"), new("b"), new("a", queue="other"))
        await store.settle([Failed(x.id, x.fence, "x", retry=False) for x in await take(store, "default", "other")])
        assert await store.replay(queue="default", kind="b") == 1
        assert await store.replay(queue="default", limit=1) == 1
        assert (await must_get(store, ids[0])).state == "available"
        assert await store.replay() == 2
        assert await store.replay() == 0

    # Progress, once, results --------------------------------------------------------------------------------------

    async def test_progress(self, store: Store) -> None:
        """Progress."""
        (i,) = await put(store, new())
        await take(store)
        assert await store.progress(i, 1, 0.25, "a quarter") is OK
        assert ((job := await must_get(store, i)).progress, job.note) == (0.25, "a quarter")
        for value, note in ((1.5, None), (0.5, "x" * 1001), (0.5, "\udc80")):
            with pytest.raises(InvalidJob):
                await store.progress(i, 1, value, note)

    async def test_once_commits_with_the_completion(self, store: Store) -> None:
        """Once commits with the completion."""
        a, b = await put(store, new(), new())
        await take(store)
        assert await store.once(a, 1, "charge") is OnceVerdict.FIRST
        assert await store.once(a, 1, "charge") is OnceVerdict.FIRST
        assert await store.once(b, 1, "charge") is OnceVerdict.BUSY
        assert await store.once(b, 1, "other") is OnceVerdict.FIRST
        await store.settle([Failed(a, 1, "x")])
        assert await store.once(b, 1, "charge") is OnceVerdict.FIRST
        await store.settle([Completed(b, 1)])
        await take(store)
        assert await store.once(a, 2, "charge") is OnceVerdict.DONE

    async def test_wait_for_a_result(self, store: Store) -> None:
        """Wait for a result."""
        (i,) = await put(store, new())
        assert (await store.wait(i, 0.0)).state == "available"
        async with asyncio.timeout(5):
            waiting = asyncio.create_task(store.wait(i, 60.0))
            await take(store)
            await store.settle([Completed(i, 1, raw(7))])
            job = await waiting
        assert (job.state, job.result) == ("completed", raw(7))
        with pytest.raises(JobNotFound):
            await store.wait(i + 1_000_000, 0.0)

    async def test_results_and_jobs_go_when_their_time_is_over(self, harness: StoreHarness, store: Store) -> None:
        """Results and jobs go when their time is over."""
        i, j = await put(store, new(result_ttl_s=0.2, keep_s=0.6), new(keep_s=0.0))
        await take(store)
        await store.settle([Completed(i, 1, raw(1)), Completed(j, 1, raw(1))])
        assert await store.get(j) is None
        await harness.advance(store, 0.3)
        assert (await must_get(store, i)).result is msgspec.UNSET
        await harness.advance(store, 0.5)
        assert await store.get(i) is None

    # Queues -------------------------------------------------------------------------------------------------------

    async def test_pause_and_resume(self, store: Store) -> None:
        """Pause and resume."""
        with pytest.raises(QueueNotFound):
            await store.pause("default")
        (i,) = await put(store, new())
        await store.pause("default")
        assert await take(store) == []
        async with asyncio.timeout(5):
            waiting = asyncio.create_task(take(store, wait_s=60.0))
            await asyncio.sleep(0.01)
            await store.pause("default", False)
            assert [x.id for x in await waiting] == [i]

    async def test_queues_count_by_state(self, harness: StoreHarness, store: Store) -> None:
        """Queues count by state."""
        await put(store, new(), new(), new(delay_s=60.0), new(queue="b"))
        await take(store, limit=1)
        a, b = await store.queues()
        assert (a.name, b.name, a.paused) == ("b", "default", False)
        assert {k: v for k, v in b.counts.items() if v} == {"available": 1, "running": 1, "scheduled": 1}
        assert {k: v for k, v in a.counts.items() if v} == {"available": 1}

    async def test_rate_limit_is_global(self, harness: StoreHarness, store: Store) -> None:
        """Rate limit is global."""
        await store.configure("default", QueueConfig(rate=5.0, burst=2))
        await put(store, *[new() for _ in range(6)])
        got = [len(await take(store)), len(await take(store))]
        assert got == [2, 0]
        await harness.advance(store, 0.42)
        assert len(await take(store)) == 2

    async def test_concurrency_limit_per_key(self, store: Store) -> None:
        """Concurrency limit per key."""

        def keyed(key: str) -> NewJob:
            return new(concurrency_key=key, concurrency_limit=2)

        a, b, c, d = await put(store, keyed("x"), keyed("x"), keyed("x"), keyed("y"))
        leases = await take(store)
        assert [x.id for x in leases] == [a, b, d]
        assert (await must_get(store, c)).state == "available"
        assert await take(store) == []
        await store.settle([Completed(a, 1)])
        assert [x.id for x in await take(store)] == [c]

    async def test_concurrency_slot_is_freed_by_every_ending(self, harness: StoreHarness, store: Store) -> None:
        """Concurrency slot is freed by every ending."""
        ids = await put(store, *[new(concurrency_key="x", max_attempts=1) for _ in range(6)])
        for n, outcome in enumerate(("failed", "snoozed", "stopped", "expired", "cancelled")):
            if outcome == "cancelled":
                await store.cancel(ids[n])
                continue
            (lease,) = await take(store, lease_s=0.2)
            assert lease.id == ids[n]
            match outcome:
                case "failed":
                    await store.settle([Failed(lease.id, 1, "x")])
                case "snoozed":
                    await store.settle([Snoozed(lease.id, 1, 60.0)])
                case "stopped":
                    await store.settle([Stopped(lease.id, 1)])
                case _:
                    await harness.advance(store, 0.3)
        (lease,) = await take(store, wait_s=1.0)
        assert lease.id == ids[5]

    async def test_find_filters_and_pages(self, store: Store) -> None:
        """Find filters and pages."""
        ids = await put(store, *[new("a") for _ in range(3)], new("b"), new("a", queue="b"))
        assert [j.id for j in await store.find(JobFilter(queue="default", kind="a"))] == ids[2::-1]
        page = await store.find(JobFilter(queue="default", limit=2))
        assert [j.id for j in page] == [ids[3], ids[2]]
        page = await store.find(JobFilter(queue="default", before=page[-1].id, limit=10))
        assert [j.id for j in page] == [ids[1], ids[0]]
        await take(store, limit=1)
        assert [j.id for j in await store.find(JobFilter(state="running"))] == [ids[0]]

    # Batches and chains -------------------------------------------------------------------------------------------

    async def test_batch_calls_back_once_after_the_last_job(self, store: Store) -> None:
        """Batch calls back once after the last job."""
        answer: Enqueued = await store.enqueue([new(), new(max_attempts=1)], NewBatch(callback=new("done")))
        assert answer.batch is not None
        a, b = await take(store)
        await store.settle([Completed(a.id, 1)])
        assert await take(store) == []
        batch = await store.batch(answer.batch)
        assert batch is not None
        assert (batch.total, batch.pending, batch.failed) == (2, 1, 0)
        await store.settle([Completed(a.id, 1), Failed(b.id, 1, "x")])
        (callback,) = await take(store)
        assert callback.kind == "done"
        assert isinstance(callback.previous, msgspec.Raw)
        assert msgspec.json.decode(callback.previous) == {"batch": answer.batch, "total": 2, "failed": 1}
        batch = await store.batch(answer.batch)
        assert batch is not None
        assert (batch.pending, batch.failed, batch.callback) == (0, 1, callback.id)
        assert await store.batch(answer.batch + 1_000_000) is None

    async def test_chain_hands_the_result_on(self, store: Store) -> None:
        """Chain hands the result on."""
        (i,) = await put(store, new("one", then=[{"kind": "two", "args": 2}, {"kind": "three"}]))
        (one,) = await take(store)
        assert one.previous is msgspec.UNSET
        await store.settle([Completed(i, 1, raw("r1")), Completed(i, 1, raw("r1"))])
        (two,) = await take(store)
        assert (two.kind, two.args, two.previous) == ("two", raw(2), raw("r1"))
        assert (await must_get(store, two.id)).parent == i
        await store.settle([Completed(two.id, 1, raw("r2"))])
        (three,) = await take(store)
        assert (three.kind, three.previous) == ("three", raw("r2"))

    async def test_a_failed_link_ends_the_chain(self, store: Store) -> None:
        """A failed link ends the chain."""
        (i,) = await put(store, new(max_attempts=1, then=[{"kind": "two"}]))
        await take(store)
        await store.settle([Failed(i, 1, "x")])
        assert await take(store) == []

    # Schedules ----------------------------------------------------------------------------------------------------

    async def test_schedules(self, store: Store) -> None:
        """Schedules."""
        nightly = Schedule(name="nightly", job=new("report"), cron="0 3 * * *", tz="Europe/Berlin")
        await store.put_schedule(nightly)
        await store.put_schedule(Schedule(name="beat", job=new("beat"), every_s=5.0))
        beat, status = await store.schedules()
        assert (beat.schedule.name, status.schedule.job.kind, status.last_tick) == ("beat", "report", None)
        await store.ticked("nightly", 100.0)
        await store.ticked("nightly", 50.0)
        await store.put_schedule(msgspec.structs.replace(nightly, paused=True))
        _, status = await store.schedules()
        assert (status.last_tick, status.schedule.paused) == (100.0, True)
        await store.remove_schedule("nightly")
        with pytest.raises(ScheduleNotFound):
            await store.remove_schedule("nightly")

    async def test_bad_schedules_are_refused(self, store: Store) -> None:
        """Bad schedules are refused."""
        job = new()
        bad: Sequence[tuple[Schedule, str]] = [
            (Schedule(name="x", job=job, cron="* * *"), "cron"),
            (Schedule(name="x", job=job), "cron"),
            (Schedule(name="x", job=job, cron="* * * * *", every_s=5.0), "every_s"),
            (Schedule(name="x", job=job, every_s=0.0), "every_s"),
            (Schedule(name="x", job=job, cron="* * * * *", tz="Mars/Phobos"), "tz"),
            (Schedule(name="", job=job, every_s=5.0), "name"),
            (Schedule(name="x", job=new(priority=99), every_s=5.0), "job.priority"),
        ]
        for schedule, field in bad:
            with pytest.raises(InvalidJob) as caught:
                await store.put_schedule(schedule)
            assert caught.value.field == field
        assert await store.schedules() == []

    async def test_closed_store_says_so(self, harness: StoreHarness) -> None:
        """Closed store says so."""
        from fairway.jobs.errors import StoreUnavailable

        store = harness.make()
        await store.open()
        waiting = asyncio.create_task(take(store, wait_s=60.0))
        await asyncio.sleep(0.01)
        await store.close()
        assert await waiting == []
        with pytest.raises(StoreUnavailable):
            await store.enqueue([new()])
        await store.close()


__all__ = ["StoreConformance", "StoreHarness"]
