"""Jobs in this process's memory: for tests, for development, and where losing them is fine.

A crash loses everything, and every enqueue says so (``durability: memory``). Ready jobs wait in one heap a queue,
keyed by priority and id in one integer; due jobs, leases and retention have a heap each whose entries are checked
against the job when they surface, so that nothing is ever searched or removed from the middle. All of it is guarded
by one lock, because the worker's heartbeat thread calls `renew`; the rest runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from fairway.jobs import machine
from fairway.jobs.errors import (
    JobConflict,
    QueueNotFound,
    ScheduleNotFound,
)
from fairway.jobs.job import (
    FINAL_STATES,
    Batch,
    Enqueued,
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
    Verdict,
)
from fairway.jobs.store import Features, Store
from fairway.jobs.stores.memory_state import MemoryState, Parked, Record, resolve

T = TypeVar("T")
PRIORITY_SHIFT = 54  # ids stay below 2**53


class MemoryStore(MemoryState, Store):
    """See the module's text. One event loop opens it and calls it; `renew` may come from any thread."""

    features = Features(durability="memory", shared=False, cross_queue=True, survives_restart=False)

    async def open(self) -> None:
        """See `Store.open`."""
        self._loop = asyncio.get_running_loop()
        self._open = True

    async def close(self) -> None:
        """See `Store.close`."""
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

    # Producers ----------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:
        """See `Store.enqueue`."""
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

    async def cancel(self, job_id: int) -> Job:
        """See `Store.cancel`."""
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

    async def retry(self, job_id: int) -> Job:
        """See `Store.retry`."""
        self._check_open()
        with self._lock:
            record = self._must(job_id)
            if record.state in {"available", "running", "completed"}:
                raise JobConflict(f"job {job_id} is {record.state}: only waiting or failed jobs can be retried")
            self._revive(record)
            self._serve()
            return self._view(record)

    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:
        """See `Store.replay`."""
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

    # Workers ------------------------------------------------------------------------------------------------------

    async def claim(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        """See `Store.claim`."""
        machine.check_claim(queues, limit, lease_s, wait_s)
        self._check_open()
        parked = Parked(queues, limit, lease_s, worker)
        with self._lock:
            self._promote()
            leases = self._claim_now(parked)
            if leases or wait_s <= 0:
                return leases
            self._parked.append(parked)
        assert self._loop is not None
        timer = self._loop.call_later(wait_s, resolve, parked.future, [])
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

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        """See `Store.renew`."""
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

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """See `Store.settle`."""
        self._check_open()
        machine.check_outcomes(outcomes)
        with self._lock:
            now = self._clock.time()
            verdicts = [self._settle(outcome, now) for outcome in outcomes]
            self._serve()
        return verdicts

    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:
        """See `Store.progress`."""
        machine.check_progress(value, note)
        self._check_open()
        with self._lock:
            record = self._owned(job_id, fence)
            if record is None:
                return Verdict.LOST
            record.progress, record.note = value, note
            return Verdict.CANCEL if record.cancel else Verdict.OK

    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:
        """See `Store.once`."""
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

    async def maintain(self) -> None:
        """See `Store.maintain`."""
        self._check_open()
        with self._lock:
            self._promote()
            self._reap()
            self._sweep()
            self._serve()

    # Readers ------------------------------------------------------------------------------------------------------

    async def get(self, job_id: int) -> Job | None:
        """See `Store.get`."""
        self._check_open()
        record = self._jobs.get(job_id)
        return None if record is None else self._view(record)

    async def wait(self, job_id: int, timeout_s: float) -> Job:
        """See `Store.wait`."""
        self._check_open()
        record = self._must(job_id)
        if record.state in FINAL_STATES or timeout_s <= 0:
            return self._view(record)
        assert self._loop is not None
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(job_id, []).append(future)
        timer = self._loop.call_later(timeout_s, resolve, future, None)
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

    async def find(self, where: JobFilter) -> list[Job]:
        """See `Store.find`."""
        self._check_open()
        machine.check_filter(where)
        keep: Callable[[Record], bool] = lambda record: (  # noqa: E731 - read once, right below
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

    async def batch(self, batch_id: int) -> Batch | None:
        """See `Store.batch`."""
        self._check_open()
        return self._batches.get(batch_id)

    async def queues(self) -> list[QueueStatus]:
        """See `Store.queues`."""
        self._check_open()
        return [
            QueueStatus(name=queue.name, paused=queue.paused, counts=dict(queue.counts), config=queue.config)
            for _, queue in sorted(self._queues.items())
        ]

    # Operators and schedules --------------------------------------------------------------------------------------

    async def configure(self, queue: str, config: QueueConfig) -> None:
        """See `Store.configure`."""
        machine.check_queue(queue)
        machine.check_config(config)
        self._check_open()
        with self._lock:
            target = self._queue(queue)
            target.config = config
            moment = self._clock.monotonic()
            target.bucket = None if config.rate is None else machine.Bucket(config.rate, config.burst, moment)
            self._serve()

    async def pause(self, queue: str, paused: bool = True) -> None:
        """See `Store.pause`."""
        self._check_open()
        with self._lock:
            target = self._queues.get(queue)
            if target is None:
                raise QueueNotFound(f"no queue is named {queue!r}")
            target.paused = paused
            self._serve()

    async def put_schedule(self, schedule: Schedule) -> None:
        """See `Store.put_schedule`."""
        machine.check_schedule(schedule, self.options.max_payload)
        self._check_open()
        old = self._schedules.get(schedule.name)
        self._schedules[schedule.name] = ScheduleStatus(
            schedule=schedule,
            created_at=self._clock.time() if old is None else old.created_at,
            last_tick=None if old is None else old.last_tick,
        )

    async def remove_schedule(self, name: str) -> None:
        """See `Store.remove_schedule`."""
        self._check_open()
        if self._schedules.pop(name, None) is None:
            raise ScheduleNotFound(f"no schedule is named {name!r}")

    async def schedules(self) -> list[ScheduleStatus]:
        """See `Store.schedules`."""
        self._check_open()
        return [status for _, status in sorted(self._schedules.items())]

    async def ticked(self, name: str, tick: float) -> None:
        """See `Store.ticked`."""
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
