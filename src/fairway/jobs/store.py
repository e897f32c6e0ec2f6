"""The contract of a job store: one state machine, kept by `stores/{memory,sqlite,redis}.py`.

`fairway.testing.stores.StoreConformance` runs over every implementation; what it checks is the meaning of this file.
A store decides everything about a job's state, atomically, by its own clock; workers and producers only ask. All
methods are safe to call from many tasks at once. Unless a method says otherwise, a call that is cancelled may or may
not have taken effect, and never in part.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence

from msgspec import Struct

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.jobs.job import (
    Batch,
    Durability,
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
    Schedule,
    ScheduleStatus,
    Verdict,
)

ERROR_LIMIT = 8_192
"""Characters of a failure's text that are kept."""

LEDGER_KEEP_S = 14 * 86_400.0
"""Seconds for which done keys of the `once` ledger and finished batches are kept."""


class Features(Struct, frozen=True, kw_only=True):
    """What a store guarantees; the conformance suite checks each claim.

    Attributes:
        durability: What an acknowledged write survives.
        shared: Other processes may use the same store at the same time (else: over the daemon's API).
        cross_queue: Chains and batches may span queues; else `InvalidJob`.
        survives_restart: Closing and opening again finds the same jobs.
    """

    durability: Durability
    shared: bool
    cross_queue: bool
    survives_restart: bool


class StoreOptions(Struct, frozen=True, kw_only=True):
    """Bounds of a store.

    Attributes:
        max_payload: Bytes of JSON that `args` and a result may have, each.
        restart_grace_s: Lease that jobs found running get when the store opens: their workers may be alive, and
            could not renew while the store was down. They are not charged for it.
        clock: Where the time comes from. Leases follow the monotonic clock where the store can; due times the wall.
    """

    max_payload: int = 1_048_576
    restart_grace_s: float = 30.0
    clock: Clock = SYSTEM_CLOCK


class Store(abc.ABC):
    """A job store. Open it with `async with`, or `open` and `close`.

    Raises, from any method: `StoreUnavailable` when the store is closed or cannot answer now; then nothing was
    stored, except that a lost connection may hide an answer.
    """

    features: Features
    options: StoreOptions

    # Life ---------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect, create what is missing, take up what an earlier process left. Opening twice is a no-op."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish what was accepted, answer every waiting claim with an empty list, release everything. Idempotent."""

    async def __aenter__(self) -> Store:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Producers ----------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:
        """Store all of `jobs` (at least one) or none; answered once they are as durable as `features` says.

        The queue of a job comes into being with its first job. A job whose unique key is held is not stored; the
        holder's id is answered in its place (and listed in `duplicates`). With `batch`, the jobs that were stored
        anew make up a batch; a batch of duplicates only is finished at once.

        Raises:
            InvalidJob: A field is out of its bounds (`field` names it, e.g. ``jobs[3].priority``).
            PayloadTooLarge: `args` exceed `options.max_payload`.
        """

    def enqueue_soon(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> asyncio.Future[Enqueued]:
        """`enqueue` without waiting: what is wrong with the jobs may be raised at once, the rest is the future's.

        Raised at once means that nothing was stored. For faces that have no task to wait in; a store overrides it
        where it saves one.
        """
        return asyncio.ensure_future(self.enqueue(jobs, batch))

    @abc.abstractmethod
    async def cancel(self, job_id: int) -> Job:
        """Cancel: a waiting job is cancelled at once, a running one when its worker hears of it.

        The worker of a running job is answered `Verdict.CANCEL` at its next renewal or progress report, and settles
        with `Stopped` (or anything else: what it did is recorded as it says, except that a failure, a release and a
        snooze become cancelled). A final job stays as it is. Returns the job as it is now.

        Raises:
            JobNotFound: There is no such job.
        """

    @abc.abstractmethod
    async def retry(self, job_id: int) -> Job:
        """Make a scheduled, retryable, discarded or cancelled job available now, its attempts back at 0.

        The fence goes on growing. A unique key that it gave up is taken again, if no other job holds it. A batch that
        counted the job as finished is not told.

        Raises:
            JobNotFound: There is no such job.
            JobConflict: It is available, running or completed.
        """

    @abc.abstractmethod
    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:
        """`retry` up to `limit` discarded jobs, oldest id first, and return how many; call again until 0 for all."""

    # Workers ------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def claim(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        """Lease up to `limit` (>= 1) available jobs for `lease_s` (> 0) seconds.

        `queues` is in order of preference: what the first gives is taken before the second is asked. Within a queue
        by priority, then id. Paused queues, the queue's rate limit and the jobs' concurrency limits are respected.
        With nothing to lease it waits up to `wait_s` seconds for something; ``[]`` when nothing came. A queue that
        does not exist is waited for. Cancelled, it leaves no job leased.
        """

    @abc.abstractmethod
    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        """Renew the leases of ``(id, fence)`` to `lease_s` from now; one verdict each, in order.

        Synchronous and callable from any thread, without help of the event loop that opened the store: the worker's
        heartbeat thread calls it while a handler may be blocking that loop.
        """

    @abc.abstractmethod
    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """Record how attempts ended; one verdict each, in order.

        `OK` when the job was running with this fence, or was completed by this very fence before (a repeated
        `Completed` after a lost answer). `LOST` otherwise. A lease that ran out but was not reaped yet is still owned.
        Failed with attempts left: retryable after its backoff; else discarded. An oversize result turns into a
        failure that says so. Completion, the chain's next job, the batch's count and callback, the `once` ledger, the
        unique key and the concurrency slot change in one commit.
        """

    @abc.abstractmethod
    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:
        """Note progress, 0.0 to 1.0, and a text of at most 1,000 characters.

        May be less durable than a job. Does not renew the lease. Raises `InvalidJob` outside these bounds.
        """

    @abc.abstractmethod
    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:
        """Ask the ledger of the job's queue whether `key` is still to be done.

        `FIRST` reserves the key for this ``(id, fence)`` while that runs (again `FIRST` if asked again); it becomes
        `DONE` in the commit of the job's completion and is forgotten if the attempt ends otherwise. `BUSY` while
        another running job holds it. Done keys are kept 14 days.
        """

    # Readers ------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def get(self, job_id: int) -> Job | None:
        """Return the job, or None when there is none (any more)."""

    @abc.abstractmethod
    async def wait(self, job_id: int, timeout_s: float) -> Job:
        """Return the job once it is final, or as it is after `timeout_s` seconds (0: now).

        Raises:
            JobNotFound: There is no such job, or it was deleted while waiting (`keep_s=0`).
        """

    @abc.abstractmethod
    async def find(self, where: JobFilter) -> list[Job]:
        """List jobs, newest id first."""

    @abc.abstractmethod
    async def batch(self, batch_id: int) -> Batch | None:
        """Return the batch's progress, or None when there is none."""

    @abc.abstractmethod
    async def queues(self) -> list[QueueStatus]:
        """Return every queue that has had a job or a configuration, by name."""

    # Operators ----------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def configure(self, queue: str, config: QueueConfig) -> None:
        """Set what holds for a queue, creating it."""

    @abc.abstractmethod
    async def pause(self, queue: str, paused: bool = True) -> None:
        """Stop (or, with False, resume) leasing from a queue; running jobs go on. Durable.

        Raises:
            QueueNotFound: There is no such queue.
        """

    @abc.abstractmethod
    async def maintain(self) -> None:
        """Do now what the store also does by itself: promote due jobs, reap expired leases, delete what is over."""

    # Schedules ----------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def put_schedule(self, schedule: Schedule) -> None:
        """Store or replace a schedule by its name; `created_at` and `last_tick` of an existing one stay."""

    @abc.abstractmethod
    async def remove_schedule(self, name: str) -> None:
        """Delete a schedule.

        Raises:
            ScheduleNotFound: There is no such schedule.
        """

    @abc.abstractmethod
    async def schedules(self) -> list[ScheduleStatus]:
        """Return all schedules, by name."""

    @abc.abstractmethod
    async def ticked(self, name: str, tick: float) -> None:
        """Note that a schedule's tick was enqueued: `last_tick` becomes ``max(last_tick, tick)``."""
