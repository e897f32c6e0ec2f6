"""What the SQLite store's owner keeps in memory, and how it follows the file.

Memory holds the running jobs with their leases, the queues with their counts, token buckets and concurrency slots.
After a failed transaction `load` rebuilds it from the file, so the file is always the truth. Inserts and plain
completions are gathered and written many at a time (`flush`); a statement that might look at them flushes first.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Callable, Container
from typing import Any

import apsw
import msgspec
from msgspec import UNSET, Raw, UnsetType

from fairway.jobs import machine
from fairway.jobs.errors import JobNotFound
from fairway.jobs.job import (
    DEFAULT_QUEUE_CONFIG,
    Job,
    Lease,
    NewJob,
    QueueConfig,
)
from fairway.jobs.store import LEDGER_KEEP_S, StoreOptions
from fairway.jobs.stores import sqlite_rows as rows
from fairway.jobs.stores.sqlite_schema import (
    AVAILABLE,
    BLOCKED,
    CANCELLED,
    COMPLETED,
    DISCARDED,
    RUNNING,
    SCHEDULED,
    STATE_NAMES,
)

_FINAL = (COMPLETED, CANCELLED, DISCARDED)
_UNCOUNTED = 10_000  # jobs that may be inserted until the meta row is written again
_SLICE = 1_000  # rows that one transaction promotes, reaps or deletes


class Run:
    """A running job, in memory."""

    __slots__ = (
        "attempt", "cancel", "extra", "fence", "lease_until", "max_attempts", "note", "progress", "queue", "worker"
    )  # fmt: skip

    def __init__(self, queue: QueueState, lease: Lease, worker: str, lease_until: float, extra: bool) -> None:
        self.queue = queue
        self.fence = lease.fence
        self.attempt = lease.attempt
        self.max_attempts = lease.max_attempts
        self.worker = worker
        self.lease_until = lease_until
        self.extra = extra  # something hangs on its completion: it takes the slow way
        self.cancel = False
        self.progress: float | None = None
        self.note: str | None = None


class QueueState:
    """A queue, in memory."""

    __slots__ = ("blocked", "bucket", "config", "counts", "fresh", "id", "name", "paused", "slots")

    def __init__(self, queue_id: int, name: str, paused: bool, config: QueueConfig) -> None:
        self.id = queue_id
        self.name = name
        self.paused = paused
        self.config = config
        self.counts = [0] * 8
        self.fresh: list[int] = []  # where available jobs that were not written yet begin in `EngineState._new`
        self.bucket: machine.Bucket | None = None
        self.slots: dict[str, int] = {}  # concurrency key -> jobs available or running
        self.blocked: dict[str, int] = {}  # concurrency key -> jobs that wait for a slot


class EngineState:
    """The transaction, the memory beside the file, and what several operations have in common."""

    def __init__(self, connection: apsw.Connection, options: StoreOptions, waited_for: Container[int]) -> None:
        self._db = connection
        self._clock = options.clock
        self._options = options
        self._waited_for = waited_for
        self.running: dict[int, Run] = {}
        self.queues: dict[str, QueueState] = {}
        self.finished: list[int] = []  # jobs that became final and that somebody waits for
        self.silent: set[str] = set()  # workers whose leases ran out in this transaction
        self.last_id = 0
        self._saved_id = 0  # `last_id` in the file's meta row
        self._by_id: dict[int, QueueState] = {}
        self._leases: list[tuple[float, int, array[int]]] = []
        self._lease_no = 0
        self._new: list[Any] = []
        self._done: dict[float, list[Any]] = {}
        self.wanted: Callable[[str], int] | None = None  # jobs of a queue that the claims under way may still take
        self._ahead: dict[int, tuple[list[Lease], dict[int, rows.Extra]]] = {}  # read for claims that follow, by queue
        self._started: list[tuple[list[int], str]] = []  # leased, with the worker, and not yet written
        self._next_due = math.inf
        self._next_keep = math.inf
        self._in_transaction = False
        self._now = 0.0

    def _begin(self) -> None:
        if not self._in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            self._in_transaction = True

    def commit(self) -> None:
        """Write what was gathered and commit; a no-op where nothing was written.

        Inserts alone are one statement that commits itself, without the meta row: `load` counts what came after it.
        Every statement gives up the interpreter's lock and has to win it back from a busy event loop.
        """
        if not self._in_transaction and not self._done and self._is_one_insert():
            self._insert_new()
            return
        self.flush()
        if self._in_transaction:
            state = {"last_id": self.last_id, "counts": {q.id: q.counts for q in self._by_id.values()}}
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('state', ?)", (rows.text(rows.encode(state)),))
            self._db.execute("COMMIT")
            self._in_transaction = False
            self._saved_id = self.last_id

    def _is_one_insert(self) -> bool:
        rows_new = len(self._new) // rows.INSERT_WIDTH
        return 0 < rows_new <= rows.EXACT and self.last_id - self._saved_id < _UNCOUNTED

    def _insert_new(self) -> None:
        """Write the gathered inserts."""
        flat, width = self._new, rows.INSERT_WIDTH
        self._forget_new()
        for start, size in rows.chunks(len(flat) // width):
            self._db.execute(rows.insert_sql(size), flat[start * width : (start + size) * width])

    def _forget_new(self) -> None:
        self._new = []
        for queue in self.queues.values():
            if queue.fresh:
                queue.fresh = []

    def begin_log(self) -> None:
        """Write something, and change nothing.

        The first transaction after a checkpoint gives the log a new header, which SQLite brings to the disk before the
        transaction itself. Source: walFrames in https://sqlite.org/src/file/src/wal.c
        """
        self._begin()

    def rollback(self) -> None:
        """Undo the transaction; `load` has to follow."""
        self._forget_new()
        self._done.clear()
        self._ahead.clear()
        self._started = []
        self.finished.clear()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._in_transaction = False

    def flush(self) -> None:
        """Write the gathered inserts, leases and completions."""
        self._ahead.clear()
        if self._new:
            self._begin()
            self._insert_new()
        if self._started:
            started, self._started = self._started, []
            for ids, worker in started:
                if max(ids) - min(ids) == len(ids) - 1:  # nothing else is between them
                    self._db.execute(rows.START_RANGE, (self._now, worker, min(ids), max(ids)))
                else:
                    self._db.execute(rows.START, (self._now, worker, rows.text(rows.encode(ids))))
        if self._done:
            self._begin()
            done, self._done = self._done, {}
            for keep, flat in done.items():
                for start, size in rows.chunks(len(flat) // 2):
                    values = flat[start * 2 : (start + size) * 2]
                    values += (self._now, self._now + keep)
                    self._db.execute(rows.complete_sql(size), values)

    def load(self) -> None:
        """Rebuild the memory from the file; running jobs that were not known get `restart_grace_s`."""
        before, moment = self.running, self._clock.monotonic()
        buckets = {queue.name: queue.bucket for queue in self.queues.values()}
        self.queues, self._by_id, self._leases = {}, {}, []
        for queue_id, name, paused, config in self._db.execute("SELECT id, name, paused, config FROM queues"):
            queue = self._add_queue(
                QueueState(queue_id, name, bool(paused), msgspec.json.decode(config, type=QueueConfig))
            )
            self._set_bucket(queue, buckets.get(name))
        self._load_counts()
        running: dict[int, Run] = {}
        sql = (
            "SELECT id, fence, queue, kind, attempt, max_attempts, created_at, worker, cancel FROM jobs WHERE state = 2"
        )
        for job_id, fence, queue_id, kind, attempt, most, created, worker, cancel in self._db.execute(sql):
            queue = self._by_id[queue_id]
            lease = Lease(
                id=job_id, fence=fence, queue=queue.name, kind=kind, args=Raw(b"null"), attempt=attempt,
                max_attempts=most, created_at=created,
            )  # fmt: skip
            run = Run(queue, lease, worker, moment + self._options.restart_grace_s, extra=True)
            known = before.get(job_id)
            if known is not None and known.fence == fence:
                run.lease_until, run.progress, run.note = known.lease_until, known.progress, known.note
            run.cancel = bool(cancel)
            running[job_id] = run
            self._push_lease(run.lease_until, [job_id])
        self.running = running
        sql = (
            "SELECT queue, ckey, sum(state IN (1, 2)), sum(state = 7) FROM jobs "
            "WHERE ckey IS NOT NULL AND state IN (1, 2, 7) GROUP BY queue, ckey"
        )
        for queue_id, key, slots, blocked in self._db.execute(sql):
            if slots:
                self._by_id[queue_id].slots[key] = slots
            if blocked:
                self._by_id[queue_id].blocked[key] = blocked
        self._look_ahead()

    def _load_counts(self) -> None:
        column = self._db.execute("SELECT value FROM meta WHERE key = 'state'").get
        if column is not None:
            state = msgspec.json.decode(column)
            self.last_id = state["last_id"]
            for queue_id, counts in state["counts"].items():
                self._by_id[int(queue_id)].counts = counts
        else:
            self.last_id = 0
        self._saved_id = self.last_id
        # What plain inserts have added since the meta row was written.
        sql = "SELECT queue, state, count(*), max(id) FROM jobs WHERE id > ? GROUP BY queue, state"
        added: list[Any] = self._db.execute(sql, (self._saved_id,)).fetchall()
        for queue_id, code, count, last in added:
            self._by_id[queue_id].counts[code] += count
            self.last_id = max(self.last_id, last)

    def _look_ahead(self) -> None:
        """Read when something is due next."""
        due = self._db.execute("SELECT min(run_at) FROM jobs WHERE state IN (0, 3)").get
        self._next_due = math.inf if due is None else due
        keeps = [
            self._db.execute("SELECT min(keep_until) FROM jobs WHERE keep_until IS NOT NULL").get,
            self._db.execute("SELECT min(keep_until) FROM batches WHERE keep_until IS NOT NULL").get,
            self._db.execute("SELECT min(until) FROM unique_keys WHERE until IS NOT NULL").get,
            self._db.execute("SELECT min(until) FROM ledger WHERE until IS NOT NULL").get,
        ]
        self._next_keep = min((keep for keep in keeps if keep is not None), default=math.inf)

    def _add_queue(self, queue: QueueState) -> QueueState:
        self.queues[queue.name] = self._by_id[queue.id] = queue
        return queue

    def _queue(self, name: str) -> QueueState:
        queue = self.queues.get(name)
        if queue is None:
            self._begin()
            config = rows.text(rows.encode(DEFAULT_QUEUE_CONFIG))
            sql = "INSERT INTO queues (name, config) VALUES (?, ?) RETURNING id"
            queue = self._add_queue(
                QueueState(self._db.execute(sql, (name, config)).get, name, False, DEFAULT_QUEUE_CONFIG)
            )
        return queue

    def _set_bucket(self, queue: QueueState, old: machine.Bucket | None) -> None:
        rate, burst = queue.config.rate, queue.config.burst
        if rate is None:
            queue.bucket = None
        elif old is not None and (old.rate, old.burst) == (rate, burst):
            queue.bucket = old
        else:
            queue.bucket = machine.Bucket(rate, burst, self._clock.monotonic())

    def tick(self) -> None:
        """Read the wall clock for the operations that follow."""
        self._now = self._clock.time()

    def _insert(
        self,
        job: NewJob,
        batch: int | None = None,
        parent: int | None = None,
        previous: Raw | UnsetType = UNSET,
    ) -> int:
        now = self._now
        queue = self.queues.get(job.queue) or self._queue(job.queue)
        self.last_id = job_id = self.last_id + 1
        state, run_at = AVAILABLE, now
        if job.delay_s is not None or job.run_at is not None:
            at = now + job.delay_s if job.delay_s is not None else job.run_at
            assert at is not None
            if at > now:
                state, run_at = SCHEDULED, at
                self._next_due = min(self._next_due, at)
        key = job.concurrency_key
        if key is not None and state == AVAILABLE:
            state = self._take_slot(queue, key, job.concurrency_limit)
        queue.counts[state] += 1
        if state == AVAILABLE:
            queue.fresh.append(len(self._new))
        self._new += (
            job_id, queue.id, job.kind, state, job.priority, job.max_attempts, str(job.args, "utf-8"), now, run_at,
            job.timeout_s, key, rows.make_extra(job, batch, parent, previous), 0, 0, None, None,
        )  # fmt: skip
        return job_id

    def _claim_fresh(self, queue: QueueState, limit: int, lease_s: float, worker: str) -> list[Lease]:
        """Lease jobs of this very transaction before they are written: they go into the file as running."""
        new, now = self._new, self._now
        order = sorted(queue.fresh, key=lambda at: new[at + 4]) if len(queue.fresh) > 1 else queue.fresh
        taken, queue.fresh = order[:limit], sorted(order[limit:])
        until = self._clock.monotonic() + lease_s
        running = self.running
        leases = []
        for at in taken:
            job_id, _, kind, _, _, most, args, created, _, timeout, _, column = new[at : at + 12]
            new[at + 3] = RUNNING
            new[at + 12 : at + 16] = (1, 1, now, worker)
            extra = rows.read_extra(column)
            lease = Lease(
                id=job_id, fence=1, queue=queue.name, kind=kind, args=Raw(args.encode()), attempt=1,
                max_attempts=most, created_at=created, timeout_s=timeout, previous=extra.previous, meta=extra.meta,
            )  # fmt: skip
            running[job_id] = Run(queue, lease, worker, until, column is not None)
            leases.append(lease)
        self._push_lease(until, [lease.id for lease in leases])
        queue.counts[AVAILABLE] -= len(leases)
        queue.counts[RUNNING] += len(leases)
        return leases

    def _take_slot(self, queue: QueueState, key: str, limit: int) -> int:
        """Return the state of a job of `key` that is to become available."""
        taken = queue.slots.get(key, 0)
        if taken >= limit:
            queue.blocked[key] = queue.blocked.get(key, 0) + 1
            return BLOCKED
        queue.slots[key] = taken + 1
        return AVAILABLE

    def _free_slot(self, queue: QueueState, key: str) -> None:
        """Give a slot back, and make the next blocked job of the key available."""
        left = queue.slots.get(key, 1) - 1
        if left > 0:
            queue.slots[key] = left
        else:
            queue.slots.pop(key, None)
        if not queue.blocked.get(key):
            return
        self.flush()
        sql = (
            "SELECT id FROM jobs WHERE queue = ? AND ckey = ? AND ckey IS NOT NULL AND state = 7 "
            "ORDER BY priority, id LIMIT 1"
        )
        waiting = self._db.execute(sql, (queue.id, key)).get
        assert waiting is not None, f"{queue.blocked[key]} jobs were counted as blocked on {key!r}, none is"
        self._begin()
        self._db.execute("UPDATE jobs SET state = 1 WHERE id = ?", (waiting,))
        self._unblocked(queue, key)
        queue.slots[key] = queue.slots.get(key, 0) + 1
        queue.counts[BLOCKED] -= 1
        queue.counts[AVAILABLE] += 1

    def _unblocked(self, queue: QueueState, key: str) -> None:
        left = queue.blocked[key] - 1
        if left:
            queue.blocked[key] = left
        else:
            del queue.blocked[key]

    def _push_lease(self, until: float, ids: list[int]) -> None:
        self._lease_no += 1
        # An array: thousands of short jobs a second leave their ids here until their leases would have run out.
        heapq.heappush(self._leases, (until, self._lease_no, array("q", ids)))

    def _finish(
        self,
        job_id: int,
        queue: QueueState,
        state: int,
        extra: rows.Extra,
        *,
        result: str | None = None,
        error: str | None = None,
    ) -> None:
        """Bring a job, which the counts no longer hold, to a final state, with all that hangs on it."""
        if job_id in self._waited_for:
            self.finished.append(job_id)
        if extra.unique_key is not None and extra.unique_for_s is None:
            sql = "DELETE FROM unique_keys WHERE queue = ? AND key = ? AND job = ?"
            self._db.execute(sql, (queue.id, extra.unique_key, job_id))
        keep = machine.keep_for(STATE_NAMES[state], extra.keep_s, queue.config)  # type: ignore[arg-type]  # a literal
        if keep <= 0:
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        else:
            self._next_keep = min(self._next_keep, self._now + keep)
            self._db.execute(
                "UPDATE jobs SET state = ?, result = ?, error = coalesce(?, error), finished_at = ?, keep_until = ? "
                "WHERE id = ?",
                (state, result, error, self._now, self._now + keep, job_id),
            )
            queue.counts[state] += 1
        if extra.batch is not None and not extra.counted:
            counted = msgspec.structs.replace(extra, counted=True)
            self._db.execute("UPDATE jobs SET extra = ? WHERE id = ?", (rows.text(rows.encode(counted)), job_id))
            self._count_in_batch(extra.batch, state != COMPLETED)

    def _count_in_batch(self, batch_id: int, failed: bool) -> None:
        row = self._db.execute(
            "UPDATE batches SET pending = pending - 1, failed = failed + ? WHERE id = ? "
            "RETURNING total, pending, failed, callback",
            (int(failed), batch_id),
        ).get
        if row is not None and row[1] == 0:
            self._finish_batch(batch_id, row[0], row[2], row[3])

    def _finish_batch(self, batch_id: int, total: int, failed: int, callback: str | None) -> None:
        called = None
        if callback is not None:
            job = msgspec.json.decode(callback, type=NewJob)
            called = self._insert(job, previous=machine.batch_summary(batch_id, total, failed))
        until = self._now + LEDGER_KEEP_S
        self._db.execute("UPDATE batches SET called = ?, keep_until = ? WHERE id = ?", (called, until, batch_id))

    def _find(self, job_id: int) -> Job | None:
        self.flush()
        row = self._db.execute(rows.VIEW + "WHERE jobs.id = ?", (job_id,)).get
        return None if row is None else self.overlay(rows.view(row, self._now))

    def view(self, job_id: int) -> Job:
        """Return a job that exists, as this transaction has it."""
        job = self._find(job_id)
        if job is None:
            raise JobNotFound(f"no job has id {job_id}")
        return job

    def overlay(self, job: Job) -> Job:
        """Add what only memory knows of a running job."""
        run = self.running.get(job.id)
        if run is None or job.state != "running":
            return job
        until = self._clock.time() + run.lease_until - self._clock.monotonic()
        return msgspec.structs.replace(
            job, lease_until=until, progress=run.progress, note=run.note, cancel_requested=run.cancel
        )

    def next_event(self) -> float:
        """Return the seconds until `maintain` has something to do; infinity when nothing is ahead."""
        now = self._clock.time()
        wait = min(self._next_due - now, max(1.0, self._next_keep - now))
        while self._leases and not any(job_id in self.running for job_id in self._leases[0][2]):
            heapq.heappop(self._leases)
        if self._leases:
            wait = min(wait, self._leases[0][0] - self._clock.monotonic())
        return wait

    def next_token(self) -> float:
        """Return the seconds until a queue that waits for its rate limit has a token."""
        waits = [
            queue.bucket.ready_in()
            for queue in self.queues.values()
            if queue.bucket is not None and queue.counts[AVAILABLE] and not queue.paused
        ]
        return min(waits, default=math.inf)
