"""What the SQLite store does with a job, as SQL on one connection plus what one owner can keep in memory.

Everything here runs on the writer thread, inside the transaction that the writer commits; `sqlite_state` has what
the operations share.

Size: a job's whole life on one connection; what its steps share is theirs alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec
from msgspec import UNSET, Raw

from fairway.jobs import machine
from fairway.jobs.errors import JobConflict, JobNotFound, QueueNotFound, ScheduleNotFound
from fairway.jobs.job import (
    Completed,
    Enqueued,
    Failed,
    Job,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueConfig,
    Released,
    Schedule,
    Snoozed,
    Verdict,
)
from fairway.jobs.store import ERROR_LIMIT, LEDGER_KEEP_S
from fairway.jobs.stores import sqlite_rows as rows
from fairway.jobs.stores.sqlite_schema import (
    AVAILABLE,
    BLOCKED,
    CANCELLED,
    COMPLETED,
    DISCARDED,
    RETRYABLE,
    RUNNING,
    SCHEDULED,
    STATE_CODES,
    STATE_NAMES,
)
from fairway.jobs.stores.sqlite_state import EngineState, QueueState, Run

_FINAL = (COMPLETED, CANCELLED, DISCARDED)
_SLICE = 1_000  # rows that one transaction promotes, reaps or deletes, or reads ahead for its claims
_NOTHING: tuple[list[Lease], dict[int, rows.Extra]] = ([], {})


class Engine(EngineState):
    """The store's operations. Not thread-safe, except for `running`, whose values `renew` reads and stamps."""

    # Queues -------------------------------------------------------------------------------------------------------

    def configure(self, name: str, config: QueueConfig) -> None:
        """See `Store.configure`."""
        self._begin()
        queue = self._queue(name)
        self._db.execute("UPDATE queues SET config = ? WHERE id = ?", (rows.text(rows.encode(config)), queue.id))
        queue.config = config
        self._set_bucket(queue, None)

    def pause(self, name: str, paused: bool) -> None:
        """See `Store.pause`."""
        queue = self.queues.get(name)
        if queue is None:
            raise QueueNotFound(f"no queue is named {name!r}")
        self._begin()
        self._db.execute("UPDATE queues SET paused = ? WHERE id = ?", (int(paused), queue.id))
        queue.paused = paused

    # Enqueue ------------------------------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None) -> Enqueued:
        """See `Store.enqueue`; the jobs have been checked."""
        if batch is None and len(jobs) == 1 and jobs[0].unique_key is None:
            return Enqueued(ids=[self._insert(jobs[0])], durability="fsync")
        batch_id = None
        if batch is not None:
            self.last_id += 1
            batch_id = self.last_id
        ids: list[int] = []
        duplicates: list[int] = []
        for job in jobs:
            held = None if job.unique_key is None else self._holder(job)
            if held is None:
                ids.append(self._insert(job, batch=batch_id))
            else:
                ids.append(held)
                if held not in duplicates:
                    duplicates.append(held)
        if batch is not None and batch_id is not None:
            self._open_batch(batch_id, batch, len(set(ids)) - len(duplicates))
        return Enqueued(ids=ids, duplicates=duplicates, batch=batch_id, durability="fsync")

    def _holder(self, job: NewJob) -> int | None:
        """Return the job that holds `job`'s unique key, or take the key for the job inserted next."""
        self._begin()
        queue = self._queue(job.queue)
        row = self._db.execute(
            "SELECT job FROM unique_keys WHERE queue = ? AND key = ? AND (until IS NULL OR until > ?)",
            (queue.id, job.unique_key, self._now),
        ).get
        if row is not None:
            return int(row)
        until = None if job.unique_for_s is None else self._now + job.unique_for_s
        sql = "INSERT OR REPLACE INTO unique_keys (queue, key, job, until) VALUES (?, ?, ?, ?)"
        self._db.execute(sql, (queue.id, job.unique_key, self.last_id + 1, until))
        if until is not None:
            self._next_keep = min(self._next_keep, until)
        return None

    def _open_batch(self, batch_id: int, batch: NewBatch, total: int) -> None:
        self._begin()
        callback = None if batch.callback is None else rows.text(rows.encode(batch.callback))
        sql = "INSERT INTO batches (id, total, pending, failed, callback) VALUES (?, ?, ?, 0, ?)"
        self._db.execute(sql, (batch_id, total, total, callback))
        if total == 0:
            self._finish_batch(batch_id, 0, 0, callback)

    # Claim --------------------------------------------------------------------------------------------------------

    def claim(self, queues: Sequence[str], limit: int, lease_s: float, worker: str) -> list[Lease]:
        """Lease what is available now; see `Store.claim`."""
        leases: list[Lease] = []
        for name in queues:
            queue = self.queues.get(name)
            if queue is None or queue.paused or not queue.counts[AVAILABLE]:
                continue
            allowed = limit - len(leases)
            if queue.bucket is not None:
                allowed = min(allowed, queue.bucket.peek(self._clock.monotonic()))
                if not allowed:
                    continue
            got = self._claim_from(queue, allowed, lease_s, worker)
            if queue.bucket is not None:
                queue.bucket.take(len(got))
            leases = leases + got if leases else got
            if len(leases) == limit:
                break
        return leases

    def _claim_from(self, queue: QueueState, limit: int, lease_s: float, worker: str) -> list[Lease]:
        if len(queue.fresh) == queue.counts[AVAILABLE]:
            return self._claim_fresh(queue, limit, lease_s, worker)
        leases, extras = self._look(queue, limit)
        if not leases:
            return leases
        ids = [lease.id for lease in leases]
        self._started.append((ids, worker))
        until = self._clock.monotonic() + lease_s
        running = self.running
        for n, lease in enumerate(leases):
            extra = extras.get(lease.id)
            running[lease.id] = Run(queue, lease, worker, until, extra is not None)
            if extra is not None and (extra.meta or extra.previous is not UNSET):
                leases[n] = msgspec.structs.replace(lease, previous=extra.previous, meta=extra.meta)
        self._push_lease(until, ids)
        queue.counts[AVAILABLE] -= len(leases)
        queue.counts[RUNNING] += len(leases)
        return leases

    def _look(self, queue: QueueState, limit: int) -> tuple[list[Lease], dict[int, rows.Extra]]:
        """Return the first of the queue's waiting jobs, and what few of them set; the file is asked once for many."""
        ahead, extras = self._ahead.pop(queue.id, _NOTHING)
        if len(ahead) < min(limit, queue.counts[AVAILABLE]):
            self._begin()
            others, self._ahead = self._ahead, {}  # still first in their queues: claims take from their own alone
            self.flush()
            self._ahead = others
            most = limit if self.wanted is None else max(limit, min(self.wanted(queue.name), _SLICE))
            column, extras_column = self._first_rows(queue, most)
            ahead = rows.decode_leases(column)
            extras = {} if extras_column is None else dict(rows.decode_extras(extras_column))
        if len(ahead) > limit:
            self._ahead[queue.id] = ahead[limit:], extras
            ahead = ahead[:limit]
        return ahead, extras

    def _first_rows(self, queue: QueueState, most: int) -> Any:
        """Read up to `most` of the first waiting jobs; fewer, one at least, where SQLite has no string for all."""
        while True:
            try:
                return self._db.execute(rows.CLAIM, (queue.name, queue.id, most)).get
            except apsw.TooBigError:
                if most == 1:
                    raise
                most = max(1, most // 4)

    # Settle -------------------------------------------------------------------------------------------------------

    def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """See `Store.settle`; the delays have been checked."""
        verdicts = []
        running, limit = self.running, self._options.max_payload
        short = min(limit // 4, machine.FLAT)  # characters of a result that fits whatever it is
        for outcome in outcomes:
            run = running.get(outcome.id)
            if run is None or run.fence != outcome.fence:
                verdicts.append(self._settled_before(outcome))
                continue
            del running[outcome.id]
            run.queue.counts[RUNNING] -= 1
            if type(outcome) is Completed:
                result = str(outcome.result, "utf-8")
                if len(result) > short and (failure := machine.unfit(outcome, limit)) is not None:
                    self._settle_slow(failure, run)
                else:
                    keep = run.queue.config.keep_completed_s
                    if run.extra or keep <= 0:
                        self._settle_slow(outcome, run)
                    else:
                        if outcome.id in self._waited_for:
                            self.finished.append(outcome.id)
                        self._done.setdefault(keep, []).extend((outcome.id, result))
                        self._next_keep = min(self._next_keep, self._now + keep)
                        run.queue.counts[COMPLETED] += 1
            else:
                self._settle_slow(outcome, run)
            verdicts.append(Verdict.OK)
        return verdicts

    def _settled_before(self, outcome: Outcome) -> Verdict:
        if type(outcome) is Completed and 0 < outcome.id <= self.last_id:  # any integer may come
            self.flush()
            row = self._db.execute("SELECT state, fence FROM jobs WHERE id = ?", (outcome.id,)).get
            if row == (COMPLETED, outcome.fence):
                return Verdict.OK
        return Verdict.LOST

    def _settle_slow(self, outcome: Outcome, run: Run) -> None:
        """Settle a job on whose ending something hangs, or that did not complete."""
        self._begin()
        self.flush()
        key, column = self._db.execute("SELECT ckey, extra FROM jobs WHERE id = ?", (outcome.id,)).get
        extra = rows.read_extra(column)
        if key is not None:
            self._free_slot(run.queue, key)
        attempt, delay, error, result = run.attempt, 0.0, None, None
        if isinstance(outcome, Completed):
            state, result = COMPLETED, str(outcome.result, "utf-8")
        elif isinstance(outcome, Failed):
            error = outcome.error[:ERROR_LIMIT]
            after, delay = machine.after_failure(outcome, attempt, run.max_attempts, extra.backoff, run.cancel)
            state = STATE_CODES[after]
        elif isinstance(outcome, Released):
            state, attempt = CANCELLED if run.cancel else AVAILABLE, attempt - 1
        elif isinstance(outcome, Snoozed):
            state, attempt, delay = CANCELLED if run.cancel else SCHEDULED, attempt - 1, outcome.delay_s
        else:
            state = CANCELLED
        if state in _FINAL:
            self._finish(outcome.id, run.queue, state, extra, result=result, error=error)
            if state == COMPLETED:
                self._completed(outcome.id, outcome.fence, extra, result)
        else:
            self._put_back(outcome.id, run, state, (key, extra), attempt=attempt, delay=delay, error=error)

    def _put_back(
        self,
        job_id: int,
        run: Run,
        state: int,
        waiting: tuple[str | None, rows.Extra],
        *,
        attempt: int,
        delay: float = 0.0,
        error: str | None = None,
    ) -> None:
        """Make a job that was running wait again; `waiting` is its concurrency key and its rare fields."""
        queue, (key, extra) = run.queue, waiting
        run_at = self._now + delay
        if state == AVAILABLE and key is not None:
            state = self._take_slot(queue, key, extra.concurrency_limit)
        elif state in {SCHEDULED, RETRYABLE}:
            self._next_due = min(self._next_due, run_at)
        self._db.execute(
            "UPDATE jobs SET state = ?, attempt = ?, run_at = ?, error = coalesce(?, error) WHERE id = ?",
            (state, attempt, run_at, error, job_id),
        )
        queue.counts[state] += 1

    def _completed(self, job_id: int, fence: int, extra: rows.Extra, result: str | None) -> None:
        """Commit the ledger's reservations and enqueue the chain's next job."""
        until = self._now + LEDGER_KEEP_S
        self._db.execute(
            "UPDATE ledger SET until = ? WHERE job = ? AND fence = ? AND until IS NULL", (until, job_id, fence)
        )
        if extra.then:
            previous = Raw((result or "null").encode())
            self._insert(machine.next_link(extra.then), parent=job_id, previous=previous)

    def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:
        """See `Store.once`."""
        run = self.running.get(job_id)
        if run is None or run.fence != fence:
            return OnceVerdict.LOST
        sql = "SELECT job, fence, until FROM ledger WHERE queue = ? AND key = ?"
        row = self._db.execute(sql, (run.queue.id, key)).get
        if row is not None:
            other_id, other_fence, until = row
            if until is not None and until > self._now:
                return OnceVerdict.DONE
            other = self.running.get(other_id)
            if until is None and other_id != job_id and other is not None and other.fence == other_fence:
                return OnceVerdict.BUSY
        self._begin()
        self._db.execute(
            "INSERT OR REPLACE INTO ledger (queue, key, job, fence) VALUES (?, ?, ?, ?)",
            (run.queue.id, key, job_id, fence),
        )
        run.extra = True
        self._next_keep = min(self._next_keep, self._now + LEDGER_KEEP_S)
        return OnceVerdict.FIRST

    # Cancel, retry ------------------------------------------------------------------------------------------------

    def cancel(self, job_id: int) -> Job:
        """See `Store.cancel`."""
        run = self.running.get(job_id)
        if run is not None:
            self._begin()
            self._db.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))
            run.cancel = True
            return self.view(job_id)
        queue, state, key, extra = self._waiting(job_id)
        if state in _FINAL:
            return self.view(job_id)
        self._begin()
        queue.counts[state] -= 1
        before = self.view(job_id)
        if key is not None and state == AVAILABLE:
            self._db.execute("UPDATE jobs SET state = ? WHERE id = ?", (CANCELLED, job_id))
            self._free_slot(queue, key)
        elif key is not None and state == BLOCKED:
            self._unblocked(queue, key)
        self._finish(job_id, queue, CANCELLED, extra)
        gone = msgspec.structs.replace(before, state="cancelled", finished_at=self._now)
        return self._find(job_id) or gone

    def _waiting(self, job_id: int) -> tuple[QueueState, int, str | None, rows.Extra]:
        self.flush()
        row = self._db.execute("SELECT queue, state, ckey, extra FROM jobs WHERE id = ?", (job_id,)).get
        if row is None:
            raise JobNotFound(f"no job has id {job_id}")
        return self._by_id[row[0]], row[1], row[2], rows.read_extra(row[3])

    def retry(self, job_id: int) -> Job:
        """See `Store.retry`."""
        queue, state, key, extra = self._waiting(job_id)
        if state not in {SCHEDULED, RETRYABLE, DISCARDED, CANCELLED}:
            raise JobConflict(f"job {job_id} is {STATE_NAMES[state]}: only waiting or failed jobs can be retried")
        self._begin()
        queue.counts[state] -= 1
        self._revive(job_id, queue, key, extra)
        return self.view(job_id)

    def _revive(self, job_id: int, queue: QueueState, key: str | None, extra: rows.Extra) -> None:
        state = AVAILABLE if key is None else self._take_slot(queue, key, extra.concurrency_limit)
        queue.counts[state] += 1
        if extra.unique_key is not None and extra.unique_for_s is None:
            sql = "INSERT OR IGNORE INTO unique_keys (queue, key, job) VALUES (?, ?, ?)"
            self._db.execute(sql, (queue.id, extra.unique_key, job_id))
        self._db.execute(
            "UPDATE jobs SET state = ?, attempt = 0, cancel = 0, run_at = ?, finished_at = NULL, keep_until = NULL "
            "WHERE id = ?",
            (state, self._now, job_id),
        )

    def replay(self, queue: str | None, kind: str | None, limit: int) -> int:
        """See `Store.replay`."""
        self.flush()
        sql = "SELECT id, queue, ckey, extra FROM jobs WHERE state = 6"
        values: list[Any] = []
        if queue is not None:
            sql += " AND queue = ?"
            values.append(self.queues[queue].id if queue in self.queues else -1)
        if kind is not None:
            sql += " AND kind = ?"
            values.append(kind)
        dead: list[Any] = self._db.execute(sql + " ORDER BY id LIMIT ?", (*values, limit)).fetchall()
        if dead:
            self._begin()
        for job_id, queue_id, key, column in dead:
            state = self._by_id[queue_id]
            state.counts[DISCARDED] -= 1
            self._revive(job_id, state, key, rows.read_extra(column))
        return len(dead)

    # Time ---------------------------------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Promote what is due, reap what expired, delete what is over: a slice of each."""
        if self._next_due <= self._now:
            self._promote()
        if self._leases and self._leases[0][0] <= self._clock.monotonic():
            self._reap()
        if self._next_keep <= self._now:
            self._sweep()

    def _promote(self) -> None:
        self.flush()
        sql = (
            "SELECT id, queue, state, ckey, extra FROM jobs WHERE state IN (0, 3) AND run_at <= ? "
            "ORDER BY run_at LIMIT ?"
        )
        plain: list[int] = []
        due: list[Any] = self._db.execute(sql, (self._now, _SLICE)).fetchall()
        if due:
            self._begin()
        for job_id, queue_id, state, key, column in due:
            queue = self._by_id[queue_id]
            queue.counts[state] -= 1
            after = AVAILABLE
            if key is not None:
                after = self._take_slot(queue, key, rows.read_extra(column).concurrency_limit)
            queue.counts[after] += 1
            if after == AVAILABLE:
                plain.append(job_id)
            else:
                self._db.execute("UPDATE jobs SET state = ? WHERE id = ?", (after, job_id))
        if plain:
            sql = "UPDATE jobs SET state = 1 WHERE id IN (SELECT value FROM json_each(?))"
            self._db.execute(sql, (rows.text(rows.encode(plain)),))
        due_next = self._db.execute("SELECT min(run_at) FROM jobs WHERE state IN (0, 3)").get
        self._next_due = math.inf if due_next is None else due_next

    def _reap(self) -> None:
        moment = self._clock.monotonic()
        reaped = 0
        while self._leases and self._leases[0][0] <= moment and reaped < _SLICE:
            _, _, ids = heapq.heappop(self._leases)
            alive: dict[float, list[int]] = {}
            for job_id in ids:
                run = self.running.get(job_id)
                if run is None:
                    continue
                if run.lease_until > moment:
                    alive.setdefault(run.lease_until, []).append(job_id)
                    continue
                reaped += 1
                self._expire(job_id, run)
            for until, renewed in alive.items():
                self._push_lease(until, renewed)

    def _expire(self, job_id: int, run: Run) -> None:
        del self.running[job_id]
        self.silent.add(run.worker)
        run.queue.counts[RUNNING] -= 1
        self._begin()
        self.flush()
        key, column = self._db.execute("SELECT ckey, extra FROM jobs WHERE id = ?", (job_id,)).get
        extra = rows.read_extra(column)
        if key is not None:
            self._free_slot(run.queue, key)
        error = f"the lease of worker {run.worker!r} ran out in attempt {run.attempt}"
        state = STATE_CODES[machine.after_expiry(run.attempt, run.max_attempts, run.cancel)]
        if state in _FINAL:
            self._finish(job_id, run.queue, state, extra, error=error)
        else:
            self._put_back(job_id, run, state, (key, extra), attempt=run.attempt, error=error)

    def _sweep(self) -> None:
        self.flush()
        self._begin()
        sql = "SELECT id, queue, state FROM jobs WHERE keep_until IS NOT NULL AND keep_until <= ? LIMIT ?"
        over: list[Any] = self._db.execute(sql, (self._now, _SLICE)).fetchall()
        for _, queue_id, state in over:
            self._by_id[queue_id].counts[state] -= 1
        ids = rows.text(rows.encode([row[0] for row in over]))
        self._db.execute("DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?))", (ids,))
        self._db.execute("DELETE FROM batches WHERE keep_until IS NOT NULL AND keep_until <= ?", (self._now,))
        self._db.execute("DELETE FROM unique_keys WHERE until IS NOT NULL AND until <= ?", (self._now,))
        self._db.execute("DELETE FROM ledger WHERE until IS NOT NULL AND until <= ?", (self._now,))
        self._look_ahead()

    # Schedules ----------------------------------------------------------------------------------------------------

    def put_schedule(self, schedule: Schedule) -> None:
        """See `Store.put_schedule`."""
        self._begin()
        self._db.execute(
            "INSERT INTO schedules (name, schedule, created_at) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule",
            (schedule.name, rows.text(rows.encode(schedule)), self._now),
        )

    def remove_schedule(self, name: str) -> None:
        """See `Store.remove_schedule`."""
        self._begin()
        self._db.execute("DELETE FROM schedules WHERE name = ?", (name,))
        if self._db.changes() == 0:
            raise ScheduleNotFound(f"no schedule is named {name!r}")

    def ticked(self, name: str, tick: float) -> None:
        """See `Store.ticked`."""
        self._begin()
        sql = "UPDATE schedules SET last_tick = max(coalesce(last_tick, 0), ?) WHERE name = ?"
        self._db.execute(sql, (tick, name))
