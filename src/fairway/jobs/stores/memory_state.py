"""The memory store's data and what happens to a job in it; the lock is held by whoever calls.

Ready jobs wait in one heap a queue, keyed by priority and id in one integer; due jobs, leases and retention have a
heap each whose entries are checked against the job when they surface, so that nothing is ever searched or removed from
the middle.

Size: one job's whole life in one process; the halves would share every field.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import threading
from collections.abc import Sequence
from typing import TypeVar

from msgspec import UNSET, Raw, UnsetType

from fairway.jobs import machine
from fairway.jobs.errors import (
    JobNotFound,
    StoreUnavailable,
)
from fairway.jobs.job import (
    DEFAULT_QUEUE_CONFIG,
    FINAL_STATES,
    STATES,
    Batch,
    Completed,
    Failed,
    Job,
    Lease,
    NewBatch,
    NewJob,
    Outcome,
    Released,
    ScheduleStatus,
    Snoozed,
    State,
    Verdict,
)
from fairway.jobs.store import ERROR_LIMIT, LEDGER_KEEP_S, StoreOptions

T = TypeVar("T")
PRIORITY_SHIFT = 54  # ids stay below 2**53


class Record:
    """One job; `spec` is what the producer handed in."""

    __slots__ = (
        "attempt", "batch", "blocked", "cancel", "counted",
        "created_at", "error", "fence", "finished_at", "id", "lease_until",
        "note", "parent", "previous", "progress", "queue", "result", "run_at", "spec", "started_at", "state", "worker",
    )  # fmt: skip

    def __init__(self, job_id: int, spec: NewJob, queue: QueueData, now: float) -> None:
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


class QueueData:
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


class Parked:
    """A claim that waits."""

    __slots__ = ("future", "lease_s", "limit", "queues", "worker")

    def __init__(self, queues: Sequence[str], limit: int, lease_s: float, worker: str) -> None:
        self.queues = queues
        self.limit = limit
        self.lease_s = lease_s
        self.worker = worker
        self.future: asyncio.Future[list[Lease]] = asyncio.get_running_loop().create_future()


class MemoryState:
    """Jobs, queues, heaps and waiting claims of a `MemoryStore`."""

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
        self._jobs: dict[int, Record] = {}
        self._queues: dict[str, QueueData] = {}
        self._batches: dict[int, Batch] = {}
        self._callbacks: dict[int, NewJob] = {}
        self._schedules: dict[str, ScheduleStatus] = {}
        self._due: list[tuple[float, int]] = []
        self._leases: list[tuple[float, int, int]] = []
        self._kept: list[tuple[float, int]] = []
        self._parked: list[Parked] = []
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the memory store is not open")

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _queue(self, name: str) -> QueueData:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = QueueData(name)
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
        record = Record(self._next_id(), job, queue, now)
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

    def _make_ready(self, record: Record) -> None:
        """Put an available job in the ready heap, or among the blocked of its concurrency key."""
        queue, key = record.queue, record.spec.concurrency_key
        entry = record.spec.priority << PRIORITY_SHIFT | record.id
        if key is not None:
            if queue.slots.get(key, 0) >= record.spec.concurrency_limit:
                record.blocked = True
                heapq.heappush(queue.blocked.setdefault(key, []), entry)
                return
            queue.slots[key] = queue.slots.get(key, 0) + 1
        record.blocked = False
        heapq.heappush(queue.ready, entry)

    def _free_slot(self, record: Record) -> None:
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
            waiting = self._jobs.get(heapq.heappop(blocked) & (1 << PRIORITY_SHIFT) - 1)
            if waiting is not None and waiting.state == "available" and waiting.blocked:
                self._make_ready(waiting)
                break
        if not blocked:
            queue.blocked.pop(key, None)

    def _move(self, record: Record, state: State) -> None:
        counts = record.queue.counts
        counts[record.state] -= 1
        counts[state] += 1
        record.state = state

    def _revive(self, record: Record) -> None:
        now = self._clock.time()
        record.attempt = 0
        record.cancel = False
        record.finished_at = None
        record.run_at = now
        if record.spec.unique_key is not None and record.spec.unique_for_s is None:
            record.queue.unique.setdefault(record.spec.unique_key, (record.id, math.inf))
        self._move(record, "available")
        self._make_ready(record)

    def _must(self, job_id: int) -> Record:
        record = self._jobs.get(job_id)
        if record is None:
            raise JobNotFound(f"no job has id {job_id}")
        return record

    def _serve(self) -> None:
        """Give waiting claims what has become ready, oldest claim first."""
        for parked in list(self._parked):
            if parked.future.done():
                continue
            leases = self._claim_now(parked)
            if leases:
                parked.future.set_result(leases)
        self._arm()

    def _claim_now(self, claim: Parked) -> list[Lease]:
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
                record = self._jobs.get(heapq.heappop(queue.ready) & (1 << PRIORITY_SHIFT) - 1)
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

    def _start(self, record: Record, claim: Parked) -> Lease:
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

    def _owned(self, job_id: int, fence: int) -> Record | None:
        record = self._jobs.get(job_id)
        return record if record is not None and record.state == "running" and record.fence == fence else None

    def _settle(self, outcome: Outcome, now: float) -> Verdict:
        record = self._jobs.get(outcome.id)
        if record is None or record.fence != outcome.fence:
            return Verdict.LOST
        if record.state != "running":
            again = record.state == "completed" and isinstance(outcome, Completed)
            return Verdict.OK if again else Verdict.LOST
        if isinstance(outcome, Completed):
            outcome = machine.unfit(outcome, self.options.max_payload) or outcome
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
                record.attempt -= not record.cancel
                self._put_back(record, "cancelled" if record.cancel else "available", 0.0, now)
            case Snoozed():
                record.attempt -= not record.cancel
                self._put_back(record, "cancelled" if record.cancel else "scheduled", outcome.delay_s, now)
            case _:
                self._finish(record, "cancelled", now)
        return Verdict.OK

    def _complete(self, record: Record, now: float) -> None:
        ledger = record.queue.ledger
        for key in [k for k, held in ledger.items() if held == (record.id, record.fence, 0.0)]:
            ledger[key] = (record.id, record.fence, now + LEDGER_KEEP_S)
        then = record.spec.then
        previous: Raw = record.result if record.result is not None else Raw(b"null")
        self._finish(record, "completed", now)
        if then:
            self._insert(machine.next_link(then), now, parent=record.id, previous=previous)

    def _put_back(self, record: Record, state: State, delay: float, now: float) -> None:
        if state in FINAL_STATES:
            self._finish(record, state, now)
            return
        self._move(record, state)
        record.run_at = now + delay
        if state == "available":
            self._make_ready(record)
        else:
            self._push_due(record)

    def _finish(self, record: Record, state: State, now: float) -> None:
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
            resolve(future, None)
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

    def _delete(self, record: Record) -> None:
        record.queue.counts[record.state] -= 1
        del self._jobs[record.id]

    def _push_due(self, record: Record) -> None:
        heapq.heappush(self._due, (record.run_at, record.id))

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
                    resolve(parked.future, [])
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

    def _view(self, record: Record) -> Job:
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


def resolve(future: asyncio.Future[T], value: T) -> None:
    """Give a future its result unless it has one."""
    if not future.done():
        future.set_result(value)
