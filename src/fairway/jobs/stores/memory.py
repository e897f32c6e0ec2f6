"""Jobs in this process's memory: for tests, for development, and where losing them is fine.

A crash loses everything, and every enqueue says so (``durability: memory``). Ready jobs wait in one heap a queue,
keyed by priority and id in one integer; due jobs, leases and retention have a heap each whose entries are checked
against the job when they surface, so that nothing is ever searched or removed from the middle. All of it is guarded
by one lock, because the worker's heartbeat thread calls `renew`; the rest runs on the event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec import UNSET, Raw, UnsetType

from fairway.jobs import machine
from fairway.jobs.errors import (
    JobConflict,
    JobNotFound,
    QueueNotFound,
    ScheduleNotFound,
    StoreUnavailable,
)
from fairway.jobs.job import (
    DEFAULT_QUEUE_CONFIG,
    FINAL_STATES,
    STATES,
    Batch,
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
    QueueStatus,
    Released,
    Schedule,
    ScheduleStatus,
    Snoozed,
    State,
    Verdict,
)
from fairway.jobs.store import ERROR_LIMIT, LEDGER_KEEP_S, Features, Store, StoreOptions

T = TypeVar("T")
_PRIORITY_SHIFT = 54  # ids stay below 2**53


class _Record:
    """One job; `spec` is what the producer handed in."""

    __slots__ = (
        "attempt", "batch", "blocked", "cancel", "counted",
        "created_at", "error", "fence", "finished_at", "id", "lease_until",
        "note", "parent", "previous", "progress", "queue", "result", "run_at", "spec", "started_at", "state", "worker",
    )  # fmt: skip

    def __init__(self, job_id: int, spec: NewJob, queue: _Queue, now: float) -> None:
        self.id = job_id
        self.spec = spec
        self.queue = queue
        self.state: State = "available"
        self.attempt = 0
        self.fence = 0
        self.created_at = now
        self.run_at = now
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.lease_until = 0.0  # monotonic
        self.worker: str | None = None
        self.progress: float | None = None
        self.note: str | None = None
        self.result: Raw | None = None
        self.error: str | None = None
        self.cancel = False
        self.blocked = False  # available, but its concurrency key has no slot
        self.batch: int | None = None
        self.counted = False  # the batch has counted this job as final, whatever a retry brings later
        self.parent: int | None = None
        self.previous: Raw | UnsetType = UNSET


class _Queue:
    """A queue's ready heap, limits, keys and counts."""

    __slots__ = ("blocked", "bucket", "config", "counts", "ledger", "name", "paused", "ready", "slots", "unique")

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.config = DEFAULT_QUEUE_CONFIG
        self.bucket: machine.Bucket | None = None
        self.ready: list[int] = []
        self.counts: dict[str, int] = dict.fromkeys(STATES, 0)
        self.slots: dict[str, int] = {}
        self.blocked: dict[str, list[int]] = {}
        self.unique: dict[str, tuple[int, float]] = {}
        self.ledger: dict[str, tuple[int, int, float]] = {}  # key -> job, fence, kept until (0: reserved)


class _Parked:
    """A claim that waits."""

    __slots__ = ("future", "lease_s", "limit", "queues", "worker")

    def __init__(self, queues: Sequence[str], limit: int, lease_s: float, worker: str) -> None:
        self.queues = queues
        self.limit = limit
        self.lease_s = lease_s
        self.worker = worker
        self.future: asyncio.Future[list[Lease]] = asyncio.get_running_loop().create_future()


class MemoryStore(Store):
    """See the module's text. One event loop opens it and calls it; `renew` may come from any thread."""

    features = Features(durability="memory", shared=False, cross_queue=True, survives_restart=False)

    def __init__(self, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        self._clock = self.options.clock
        self._lock = threading.RLock()
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._reset()

    def _reset(self) -> None:
        self._last_id = 0
        self._jobs: dict[int, _Record] = {}
        self._queues: dict[str, _Queue] = {}
        self._batches: dict[int, Batch] = {}
        self._callbacks: dict[int, NewJob] = {}
        self._schedules: dict[str, ScheduleStatus] = {}
        self._due: list[tuple[float, int]] = []
        self._leases: list[tuple[float, int, int]] = []
        self._kept: list[tuple[float, int]] = []
        self._parked: list[_Parked] = []
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}

    async def open(self) -> None:  # noqa: D102 - the interface says it
        self._loop = asyncio.get_running_loop()
        self._open = True

    async def close(self) -> None:  # noqa: D102
        if not self._open:
            return
        with self._lock:
            self._open = False
            for parked in self._parked:
                if not parked.future.done():
                    parked.future.set_result([])
            for futures in self._waiters.values():
                for future in futures:
                    if not future.done():
                        future.set_result(None)
            if self._timer is not None:
                self._timer.cancel()
            self._reset()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the memory store is not open")

    # Producers ----------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:  # noqa: D102
        machine.check_jobs(jobs, batch, self.options.max_payload)
        self._check_open()
        with self._lock:
            now = self._clock.time()
            batch_id = None if batch is None else self._next_id()
            ids: list[int] = []
            duplicates: list[int] = []
            for job in jobs:
                held = None if job.unique_key is None else self._holder(job, now)
                if held is not None:
                    ids.append(held)
                    if held not in duplicates:
                        duplicates.append(held)
                else:
                    ids.append(self._insert(job, now, batch=batch_id))
            if batch is not None and batch_id is not None:
                self._open_batch(batch_id, batch, len(set(ids)) - len(duplicates), now)
            self._serve()
        return Enqueued(ids=ids, duplicates=duplicates, batch=batch_id, durability="memory")

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _queue(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(name)
        return queue

    def _holder(self, job: NewJob, now: float) -> int | None:
        """Return the id of the job that holds `job`'s unique key."""
        assert job.unique_key is not None
        held = self._queue(job.queue).unique.get(job.unique_key)
        return held[0] if held is not None and held[1] > now else None

    def _insert(
        self,
        job: NewJob,
        now: float,
        batch: int | None = None,
        parent: int | None = None,
        previous: Raw | UnsetType = UNSET,
    ) -> int:
        queue = self._queue(job.queue)
        record = _Record(self._next_id(), job, queue, now)
        record.batch, record.parent, record.previous = batch, parent, previous
        self._jobs[record.id] = record
        if job.unique_key is not None:
            until = math.inf if job.unique_for_s is None else now + job.unique_for_s
            queue.unique[job.unique_key] = (record.id, until)
        run_at = now + job.delay_s if job.delay_s is not None else job.run_at
        if run_at is not None and run_at > now:
            record.run_at = run_at
            record.state = "scheduled"
            queue.counts["scheduled"] += 1
            self._push_due(record)
        else:
            queue.counts["available"] += 1
            self._make_ready(record)
        return record.id

    def _open_batch(self, batch_id: int, batch: NewBatch, total: int, now: float) -> None:
        self._batches[batch_id] = Batch(id=batch_id, total=total, pending=total, failed=0)
        if batch.callback is not None:
            self._callbacks[batch_id] = batch.callback
        if total == 0:
            self._finish_batch(batch_id, 0, 0, now)

    def _make_ready(self, record: _Record) -> None:
        """Put an available job in the ready heap, or among the blocked of its concurrency key."""
        queue, key = record.queue, record.spec.concurrency_key
        entry = record.spec.priority << _PRIORITY_SHIFT | record.id
        if key is not None:
            if queue.slots.get(key, 0) >= record.spec.concurrency_limit:
                record.blocked = True
                heapq.heappush(queue.blocked.setdefault(key, []), entry)
                return
            queue.slots[key] = queue.slots.get(key, 0) + 1
        record.blocked = False
        heapq.heappush(queue.ready, entry)

    def _free_slot(self, record: _Record) -> None:
        """Give back the slot of a job that leaves ready or running, and unblock the next of its key."""
        queue, key = record.queue, record.spec.concurrency_key
        if key is None or record.blocked:
            return
        left = queue.slots[key] - 1
        if left:
            queue.slots[key] = left
        else:
            del queue.slots[key]
        blocked = queue.blocked.get(key, [])
        while blocked:
            waiting = self._jobs.get(heapq.heappop(blocked) & (1 << _PRIORITY_SHIFT) - 1)
            if waiting is not None and waiting.state == "available" and waiting.blocked:
                self._make_ready(waiting)
                break
        if not blocked:
            queue.blocked.pop(key, None)

    def _move(self, record: _Record, state: State) -> None:
        counts = record.queue.counts
        counts[record.state] -= 1
        counts[state] += 1
        record.state = state

    async def cancel(self, job_id: int) -> Job:  # noqa: D102
        self._check_open()
        with self._lock:
            record = self._must(job_id)
            now = self._clock.time()
            if record.state == "running":
                record.cancel = True
            elif record.state not in FINAL_STATES:
                if record.state == "available":
                    self._free_slot(record)
                self._finish(record, "cancelled", now)
            self._serve()
            return self._view(record)

    async def retry(self, job_id: int) -> Job:  # noqa: D102
        self._check_open()
        with self._lock:
            record = self._must(job_id)
            if record.state in {"available", "running", "completed"}:
                raise JobConflict(f"job {job_id} is {record.state}: only waiting or failed jobs can be retried")
            self._revive(record)
            self._serve()
            return self._view(record)

    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:  # noqa: D102
        self._check_open()
        with self._lock:
            dead = [
                record
                for record in self._jobs.values()
                if record.state == "discarded"
                and (queue is None or record.queue.name == queue)
                and (kind is None or record.spec.kind == kind)
            ][:limit]
            for record in dead:
                self._revive(record)
            self._serve()
            return len(dead)

    def _revive(self, record: _Record) -> None:
        now = self._clock.time()
        record.attempt = 0
        record.cancel = False
        record.finished_at = None
        record.run_at = now
        self._move(record, "available")
        self._make_ready(record)

    def _must(self, job_id: int) -> _Record:
        record = self._jobs.get(job_id)
        if record is None:
            raise JobNotFound(f"no job has id {job_id}")
        return record

    # Workers ------------------------------------------------------------------------------------------------------

    async def claim(  # noqa: D102
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        machine.check_claim(queues, limit, lease_s, wait_s)
        self._check_open()
        parked = _Parked(queues, limit, lease_s, worker)
        with self._lock:
            self._promote()
            leases = self._claim_now(parked)
            if leases or wait_s <= 0:
                return leases
            self._parked.append(parked)
        assert self._loop is not None
        timer = self._loop.call_later(wait_s, _resolve, parked.future, [])
        try:
            return await parked.future
        except asyncio.CancelledError:
            if not parked.future.cancelled():
                await self.settle([Released(x.id, x.fence) for x in parked.future.result()])
            raise
        finally:
            timer.cancel()
            with self._lock, suppress(ValueError):
                self._parked.remove(parked)

    def _serve(self) -> None:
        """Give waiting claims what has become ready, oldest claim first."""
        for parked in list(self._parked):
            if parked.future.done():
                continue
            leases = self._claim_now(parked)
            if leases:
                parked.future.set_result(leases)
        self._arm()

    def _claim_now(self, claim: _Parked) -> list[Lease]:
        leases: list[Lease] = []
        for name in claim.queues:
            queue = self._queues.get(name)
            if queue is None or queue.paused or not queue.ready:
                continue
            allowed = claim.limit - len(leases)
            if queue.bucket is not None:
                allowed = min(allowed, queue.bucket.peek(self._clock.monotonic()))
            before = len(leases)
            while allowed > 0 and queue.ready:
                record = self._jobs.get(heapq.heappop(queue.ready) & (1 << _PRIORITY_SHIFT) - 1)
                # A job that was cancelled, or made ready twice, has left a stale entry.
                if record is not None and record.state == "available" and not record.blocked:
                    leases.append(self._start(record, claim))
                    allowed -= 1
            if queue.bucket is not None:
                queue.bucket.take(len(leases) - before)
            if len(leases) == claim.limit:
                break
        if leases:
            self._arm()
        return leases

    def _start(self, record: _Record, claim: _Parked) -> Lease:
        self._move(record, "running")
        record.fence += 1
        record.attempt += 1
        record.worker = claim.worker
        record.started_at = self._clock.time()
        record.progress = record.note = None
        record.lease_until = self._clock.monotonic() + claim.lease_s
        heapq.heappush(self._leases, (record.lease_until, record.id, record.fence))
        spec = record.spec
        return Lease(
            id=record.id,
            fence=record.fence,
            queue=spec.queue,
            kind=spec.kind,
            args=spec.args,
            attempt=record.attempt,
            max_attempts=spec.max_attempts,
            created_at=record.created_at,
            timeout_s=spec.timeout_s,
            previous=record.previous,
            meta=spec.meta,
        )

    def _owned(self, job_id: int, fence: int) -> _Record | None:
        record = self._jobs.get(job_id)
        return record if record is not None and record.state == "running" and record.fence == fence else None

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:  # noqa: D102
        self._check_open()
        verdicts = []
        with self._lock:
            until = self._clock.monotonic() + lease_s
            for job_id, fence in leases:
                record = self._owned(job_id, fence)
                if record is None:
                    verdicts.append(Verdict.LOST)
                    continue
                # The heap's entry stays at the old time; when it surfaces, it is pushed again at the new one.
                record.lease_until = max(record.lease_until, until)
                verdicts.append(Verdict.CANCEL if record.cancel else Verdict.OK)
        return verdicts

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:  # noqa: D102
        self._check_open()
        machine.check_outcomes(outcomes)
        with self._lock:
            now = self._clock.time()
            verdicts = [self._settle(outcome, now) for outcome in outcomes]
            self._serve()
        return verdicts

    def _settle(self, outcome: Outcome, now: float) -> Verdict:
        record = self._jobs.get(outcome.id)
        if record is None or record.fence != outcome.fence:
            return Verdict.LOST
        if record.state != "running":
            again = record.state == "completed" and isinstance(outcome, Completed)
            return Verdict.OK if again else Verdict.LOST
        if isinstance(outcome, Completed) and len(memoryview(outcome.result)) > self.options.max_payload:
            outcome = machine.oversize(outcome, self.options.max_payload)
        self._free_slot(record)
        match outcome:
            case Completed(result=result):
                record.result = result
                self._complete(record, now)
            case Failed():
                record.error = outcome.error[:ERROR_LIMIT]
                spec = record.spec
                state, delay = machine.after_failure(
                    outcome, record.attempt, spec.max_attempts, spec.backoff, record.cancel
                )
                self._put_back(record, state, delay, now)
            case Released():
                record.attempt -= 1
                self._put_back(record, "cancelled" if record.cancel else "available", 0.0, now)
            case Snoozed():
                record.attempt -= 1
                self._put_back(record, "cancelled" if record.cancel else "scheduled", outcome.delay_s, now)
            case _:
                self._finish(record, "cancelled", now)
        return Verdict.OK

    def _complete(self, record: _Record, now: float) -> None:
        ledger = record.queue.ledger
        for key in [k for k, held in ledger.items() if held == (record.id, record.fence, 0.0)]:
            ledger[key] = (record.id, record.fence, now + LEDGER_KEEP_S)
        then = record.spec.then
        previous: Raw = record.result if record.result is not None else Raw(b"null")
        self._finish(record, "completed", now)
        if then:
            self._insert(machine.next_link(then), now, parent=record.id, previous=previous)

    def _put_back(self, record: _Record, state: State, delay: float, now: float) -> None:
        if state in FINAL_STATES:
            self._finish(record, state, now)
            return
        self._move(record, state)
        record.run_at = now + delay
        if state == "available":
            self._make_ready(record)
        else:
            self._push_due(record)

    def _finish(self, record: _Record, state: State, now: float) -> None:
        """Bring a job to a final state, with all that hangs on it."""
        self._move(record, state)
        record.finished_at = now
        spec, queue = record.spec, record.queue
        if spec.unique_key is not None and spec.unique_for_s is None:
            held = queue.unique.get(spec.unique_key)
            if held is not None and held[0] == record.id:
                del queue.unique[spec.unique_key]
        if record.batch is not None and not record.counted:
            batch_id, record.counted = record.batch, True
            batch = self._batches[batch_id]
            failed = batch.failed + (state != "completed")
            self._batches[batch_id] = Batch(id=batch_id, total=batch.total, pending=batch.pending - 1, failed=failed)
            if batch.pending == 1:
                self._finish_batch(batch_id, batch.total, failed, now)
        for future in self._waiters.pop(record.id, ()):
            _resolve(future, None)
        keep = machine.keep_for(state, spec.keep_s, queue.config)
        if keep <= 0:
            self._delete(record)
        else:
            heapq.heappush(self._kept, (now + keep, record.id))

    def _finish_batch(self, batch_id: int, total: int, failed: int, now: float) -> None:
        callback = self._callbacks.pop(batch_id, None)
        called = None
        if callback is not None:
            called = self._insert(callback, now, previous=machine.batch_summary(batch_id, total, failed))
        self._batches[batch_id] = Batch(id=batch_id, total=total, pending=0, failed=failed, callback=called)
        heapq.heappush(self._kept, (now + LEDGER_KEEP_S, batch_id))

    def _delete(self, record: _Record) -> None:
        record.queue.counts[record.state] -= 1
        del self._jobs[record.id]

    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:  # noqa: D102
        machine.check_progress(value)
        self._check_open()
        with self._lock:
            record = self._owned(job_id, fence)
            if record is None:
                return Verdict.LOST
            record.progress, record.note = value, note
            return Verdict.CANCEL if record.cancel else Verdict.OK

    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:  # noqa: D102
        machine.check_key(key)
        self._check_open()
        with self._lock:
            record = self._owned(job_id, fence)
            if record is None:
                return OnceVerdict.LOST
            held = record.queue.ledger.get(key)
            if held is not None:
                other, other_fence, until = held
                if until > self._clock.time():
                    return OnceVerdict.DONE
                if until == 0.0 and (other, other_fence) != (job_id, fence) and self._owned(other, other_fence):
                    return OnceVerdict.BUSY
            record.queue.ledger[key] = (job_id, fence, 0.0)
            return OnceVerdict.FIRST

    # Time ---------------------------------------------------------------------------------------------------------

    def _push_due(self, record: _Record) -> None:
        heapq.heappush(self._due, (record.run_at, record.id))

    async def maintain(self) -> None:  # noqa: D102
        self._check_open()
        with self._lock:
            self._promote()
            self._reap()
            self._sweep()
            self._serve()

    def _promote(self) -> None:
        now = self._clock.time()
        while self._due and self._due[0][0] <= now:
            run_at, job_id = heapq.heappop(self._due)
            record = self._jobs.get(job_id)
            if record is not None and record.state in {"scheduled", "retryable"} and record.run_at == run_at:
                self._move(record, "available")
                self._make_ready(record)

    def _reap(self) -> None:
        moment, now = self._clock.monotonic(), self._clock.time()
        while self._leases and self._leases[0][0] <= moment:
            _, job_id, fence = heapq.heappop(self._leases)
            record = self._owned(job_id, fence)
            if record is None:
                continue
            if record.lease_until > moment:
                heapq.heappush(self._leases, (record.lease_until, job_id, fence))
                continue
            # Its worker may be stopped or cut off, with a claim still waiting here: the job would go to it again.
            for parked in self._parked:
                if parked.worker == record.worker:
                    _resolve(parked.future, [])
            record.error = f"the lease of worker {record.worker!r} ran out in attempt {record.attempt}"
            self._free_slot(record)
            state = machine.after_expiry(record.attempt, record.spec.max_attempts, record.cancel)
            self._put_back(record, state, 0.0, now)

    def _sweep(self) -> None:
        now = self._clock.time()
        while self._kept and self._kept[0][0] <= now:
            until, job_id = heapq.heappop(self._kept)
            record = self._jobs.get(job_id)
            if record is None:
                self._batches.pop(job_id, None)
            elif record.finished_at is not None:
                keep = machine.keep_for(record.state, record.spec.keep_s, record.queue.config)
                if record.finished_at + keep <= now:
                    self._delete(record)
                else:
                    heapq.heappush(self._kept, (max(until + 1.0, record.finished_at + keep), job_id))
        for queue in self._queues.values():
            for key in [k for k, (_, until) in queue.unique.items() if until <= now]:
                del queue.unique[key]
            for key in [k for k, (_, _, until) in queue.ledger.items() if 0.0 < until <= now]:
                del queue.ledger[key]

    def _next_event(self) -> float:
        """Return the seconds until something is due, or infinity."""
        wait = math.inf
        if self._due:
            wait = self._due[0][0] - self._clock.time()
        if self._leases:
            wait = min(wait, self._leases[0][0] - self._clock.monotonic())
        if self._kept:
            wait = min(wait, max(60.0, self._kept[0][0] - self._clock.time()))
        if self._parked:
            for queue in self._queues.values():
                if queue.bucket is not None and queue.ready and not queue.paused:
                    wait = min(wait, queue.bucket.ready_in())
        return wait

    def _arm(self) -> None:
        """See to it that `_tick` comes when something is due; at most a minute away, for a wall clock that is set."""
        wait = self._next_event()
        if wait is math.inf or self._loop is None:
            return
        at = self._loop.time() + min(60.0, max(0.001, wait))
        if self._timer is not None and self._timer_at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        with self._lock:
            self._promote()
            self._reap()
            self._sweep()
            self._serve()

    # Readers ------------------------------------------------------------------------------------------------------

    def _view(self, record: _Record) -> Job:
        spec, now = record.spec, self._clock.time()
        result: Raw | UnsetType = UNSET
        if record.result is not None and record.finished_at is not None and record.state == "completed":
            result = record.result if now < record.finished_at + spec.result_ttl_s else UNSET
        running = record.state == "running"
        return Job(
            id=record.id,
            queue=spec.queue,
            kind=spec.kind,
            state=record.state,
            args=spec.args,
            priority=spec.priority,
            attempt=record.attempt,
            fence=record.fence,
            max_attempts=spec.max_attempts,
            created_at=record.created_at,
            run_at=record.run_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            lease_until=now + record.lease_until - self._clock.monotonic() if running else None,
            worker=record.worker,
            timeout_s=spec.timeout_s,
            progress=record.progress,
            note=record.note,
            result=result,
            error=record.error,
            cancel_requested=record.cancel,
            unique_key=spec.unique_key,
            concurrency_key=spec.concurrency_key,
            batch=record.batch,
            parent=record.parent,
            meta=spec.meta,
        )

    async def get(self, job_id: int) -> Job | None:  # noqa: D102
        self._check_open()
        record = self._jobs.get(job_id)
        return None if record is None else self._view(record)

    async def wait(self, job_id: int, timeout_s: float) -> Job:  # noqa: D102
        self._check_open()
        record = self._must(job_id)
        if record.state in FINAL_STATES or timeout_s <= 0:
            return self._view(record)
        assert self._loop is not None
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(job_id, []).append(future)
        timer = self._loop.call_later(timeout_s, _resolve, future, None)
        try:
            await future
        finally:
            timer.cancel()
            waiting = self._waiters.get(job_id)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiters[job_id]
        self._check_open()
        return self._view(self._must(job_id))

    async def find(self, where: JobFilter) -> list[Job]:  # noqa: D102
        self._check_open()
        machine.check_filter(where)
        keep: Callable[[_Record], bool] = lambda record: (  # noqa: E731 - read once, right below
            (where.queue is None or record.queue.name == where.queue)
            and (where.state is None or record.state == where.state)
            and (where.kind is None or record.spec.kind == where.kind)
            and (where.before is None or record.id < where.before)
        )
        found: list[Job] = []
        for record in reversed(self._jobs.values()):
            if keep(record):
                found.append(self._view(record))
                if len(found) == where.limit:
                    break
        return found

    async def batch(self, batch_id: int) -> Batch | None:  # noqa: D102
        self._check_open()
        return self._batches.get(batch_id)

    async def queues(self) -> list[QueueStatus]:  # noqa: D102
        self._check_open()
        return [
            QueueStatus(name=queue.name, paused=queue.paused, counts=dict(queue.counts), config=queue.config)
            for _, queue in sorted(self._queues.items())
        ]

    # Operators and schedules --------------------------------------------------------------------------------------

    async def configure(self, queue: str, config: QueueConfig) -> None:  # noqa: D102
        machine.check_queue(queue)
        machine.check_config(config)
        self._check_open()
        with self._lock:
            target = self._queue(queue)
            target.config = config
            moment = self._clock.monotonic()
            target.bucket = None if config.rate is None else machine.Bucket(config.rate, config.burst, moment)
            self._serve()

    async def pause(self, queue: str, paused: bool = True) -> None:  # noqa: D102
        self._check_open()
        with self._lock:
            target = self._queues.get(queue)
            if target is None:
                raise QueueNotFound(f"no queue is named {queue!r}")
            target.paused = paused
            self._serve()

    async def put_schedule(self, schedule: Schedule) -> None:  # noqa: D102
        machine.check_schedule(schedule, self.options.max_payload)
        self._check_open()
        old = self._schedules.get(schedule.name)
        self._schedules[schedule.name] = ScheduleStatus(
            schedule=schedule,
            created_at=self._clock.time() if old is None else old.created_at,
            last_tick=None if old is None else old.last_tick,
        )

    async def remove_schedule(self, name: str) -> None:  # noqa: D102
        self._check_open()
        if self._schedules.pop(name, None) is None:
            raise ScheduleNotFound(f"no schedule is named {name!r}")

    async def schedules(self) -> list[ScheduleStatus]:  # noqa: D102
        self._check_open()
        return [status for _, status in sorted(self._schedules.items())]

    async def ticked(self, name: str, tick: float) -> None:  # noqa: D102
        self._check_open()
        old = self._schedules.get(name)
        if old is not None:
            last = tick if old.last_tick is None else max(old.last_tick, tick)
            self._schedules[name] = ScheduleStatus(schedule=old.schedule, created_at=old.created_at, last_tick=last)

    def statistics(self) -> dict[str, int]:
        """Return how many jobs, queues and waiting claims there are."""
        return {"jobs": len(self._jobs), "queues": len(self._queues), "waiting_claims": len(self._parked)}

    def __repr__(self) -> str:
        return (
            f"<MemoryStore {'open' if self._open else 'closed'} [{len(self._jobs)} jobs, {len(self._queues)} queues]>"
        )


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
