"""What a job is: its states, the record a producer hands in, the one a worker leases and the one a reader sees.

```
                 enqueue(run_at in the future)          enqueue
                            │                              │
                            ▼      promoter, when due      ▼        claim: fence += 1, attempt += 1
                        scheduled ────────────────────► available ─────────────────────────► running
                            ▲                              ▲  ▲                                 │
          snoozed: attempt -= 1                            │  └── released, lease expired ──────┤
                            └───────────────────────────── │ ───────────────────────────────────┤
                                                       retryable ◄──── failed, attempts left ───┤
                                                                                                ▼
                                                       completed · discarded (no attempts left) · cancelled
```

`fence` counts claims and only grows; `attempt` counts the claims that are charged to the job. Both are equal until a
job is handed back (drain, snooze), which gives the attempt back and keeps the fence, or retried by hand, which sets
the attempt to 0. A worker names `(id, fence)` in everything it says about a job; a stale fence is answered with
`Verdict.LOST` and changes nothing.

All structs here are both the Python values and the JSON bodies of the HTTP API. Times are seconds since the Unix
epoch as floats; names of durations end in `_s`.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

State = Literal["scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded"]
"""Where a job is in its life; the last three are final."""

STATES: tuple[State, ...] = ("scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded")
FINAL_STATES: frozenset[State] = frozenset(("completed", "cancelled", "discarded"))

Durability = Literal["memory", "process", "fsync", "replicated"]
"""What an acknowledged job survives: nothing, the death of this process, a power cut, the loss of a machine."""

# Factories of defaults hand these out: msgspec cannot write a Raw as the default in a JSON Schema.
EMPTY_OBJECT = Raw(b"{}")
NULL = Raw(b"null")


class Backoff(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How long a failed job waits: ``min(max_s, base_s * factor ** (attempt - 1))``, spread by ``± jitter``.

    With the defaults: 1, 2, 4, 8 … seconds, at most an hour, each times a random factor in [0.9, 1.1]. ``base_s=0``
    retries at once.

    Attributes:
        base_s: Delay after the first failure, >= 0.
        factor: Growth an attempt, >= 1.
        max_s: Upper bound before jitter, >= 0.
        jitter: Share of the delay that is random, 0 to 1.
    """

    base_s: float = 1.0
    factor: float = 2.0
    max_s: float = 3600.0
    jitter: float = 0.1


DEFAULT_BACKOFF = Backoff()


class NewJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job as a producer hands it in.

    Attributes:
        kind: Name of the task, 1 to 200 characters of ``[A-Za-z0-9_.:/-]``.
        queue: Name of the queue, 1 to 100 characters of ``[A-Za-z0-9_.-]``.
        args: Arguments, any JSON value; at most the store's `max_payload` bytes.
        priority: 0 (first) to 9 (last); jobs of one priority start in the order of their ids.
        delay_s: Seconds until it is due, >= 0; not together with `run_at`.
        run_at: Time it is due; a time in the past means now.
        max_attempts: Attempts before it is discarded, 1 to 1000.
        timeout_s: Seconds one attempt may run, > 0, or None for no limit. Kept by the worker.
        backoff: Delay between attempts.
        unique_key: At most one job of its queue holds this key; a second enqueue answers with the first one's id.
        unique_for_s: Seconds from the enqueue during which the key is held, whatever becomes of the job; None holds
            it until the job reaches a final state.
        concurrency_key: Jobs of its queue with this key share `concurrency_limit`, over all workers.
        concurrency_limit: How many of them may run at once, >= 1.
        result_ttl_s: Seconds after completion for which the result is answered, >= 0.
        keep_s: Seconds that the finished job is kept, or None for the queue's own retention; 0 deletes it at once.
        then: Jobs of the same queue that follow one by one, each enqueued in the same commit that completes the one
            before, whose result it finds in `Lease.previous`.
        meta: Small strings that travel along, such as ``traceparent``.
    """

    kind: str
    queue: str = "default"
    args: Raw = msgspec.field(default_factory=lambda: EMPTY_OBJECT)
    priority: int = 5
    delay_s: float | None = None
    run_at: float | None = None
    max_attempts: int = 10
    timeout_s: float | None = None
    backoff: Backoff = DEFAULT_BACKOFF
    unique_key: str | None = None
    unique_for_s: float | None = None
    concurrency_key: str | None = None
    concurrency_limit: int = 1
    result_ttl_s: float = 86_400.0
    keep_s: float | None = None
    then: tuple[NewJob, ...] = ()
    meta: dict[str, str] = {}


class NewBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Makes one `enqueue` a batch.

    Attributes:
        callback: Job of the same queue, enqueued in the commit that brings the last job of the batch to a final
            state. It finds ``{"batch": id, "total": n, "failed": n}`` in `Lease.previous`.
    """

    callback: NewJob | None = None


class Enqueued(Struct, frozen=True, kw_only=True):
    """The answer to an enqueue, given after the store's commit.

    Attributes:
        ids: Ids in the order of the jobs; an id is an integer, 0 < id < 2**53, growing within a queue.
        duplicates: Those of `ids` that existed already, because of a unique key.
        batch: Id of the batch, or None.
        durability: What these jobs survive from now on.
    """

    ids: list[int]
    duplicates: list[int] = []
    batch: int | None = None
    durability: Durability = "memory"


class Lease(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A claimed job, as its worker sees it.

    Attributes:
        id: The job.
        fence: Proof of ownership for everything that the worker says about the job.
        attempt: Which attempt this is, from 1.
        previous: Result of the job before it in a chain, or a batch's summary.
    """

    id: int
    fence: int
    queue: str
    kind: str
    args: Raw
    attempt: int
    max_attempts: int
    created_at: float
    timeout_s: float | None = None
    previous: Raw | UnsetType = UNSET
    meta: dict[str, str] = {}


class Completed(Struct, frozen=True, tag_field="outcome", tag="completed", forbid_unknown_fields=True):
    """The handler returned; `result` is any JSON value (``null`` where it returned nothing)."""

    id: int
    fence: int
    result: Raw = msgspec.field(default_factory=lambda: NULL)


class Failed(Struct, frozen=True, tag_field="outcome", tag="failed", forbid_unknown_fields=True):
    """The handler raised, or ran out of time.

    Attributes:
        error: What happened, for a person; stores keep the first 8,192 characters.
        retry: False discards the job at once, whatever attempts are left.
        retry_in_s: Seconds until the next attempt, or None to follow the job's `Backoff`.
    """

    id: int
    fence: int
    error: str
    retry: bool = True
    retry_in_s: float | None = None


class Released(Struct, frozen=True, tag_field="outcome", tag="released", forbid_unknown_fields=True):
    """Handed back unfinished: available at once, the attempt is not charged."""

    id: int
    fence: int


class Snoozed(Struct, frozen=True, tag_field="outcome", tag="snoozed", forbid_unknown_fields=True):
    """Put off by its handler for `delay_s` (>= 0) seconds: scheduled, the attempt is not charged."""

    id: int
    fence: int
    delay_s: float


class Stopped(Struct, frozen=True, tag_field="outcome", tag="stopped", forbid_unknown_fields=True):
    """The handler ended because the job was cancelled: cancelled."""

    id: int
    fence: int


Outcome = Completed | Failed | Released | Snoozed | Stopped
"""How an attempt ended: a tagged union, `outcome` names the case in JSON."""


class Verdict(enum.StrEnum):
    """The store's answer to a worker about one `(id, fence)`.

    `OK`: taken. `CANCEL`: taken (a renewal, a progress report), and the handler shall stop: the job was cancelled.
    `LOST`: the fence is stale or the job is gone; nothing was changed.
    """

    OK = "ok"
    CANCEL = "cancel"
    LOST = "lost"


class OnceVerdict(enum.StrEnum):
    """The ledger says: `FIRST` do it, `DONE` it was done, `BUSY` another running job is at it, `LOST` stale fence."""

    FIRST = "first"
    DONE = "done"
    BUSY = "busy"
    LOST = "lost"


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as a reader sees it. Fields that do not apply in its state are None or absent.

    Attributes:
        run_at: When it was or will be due.
        lease_until: Until when the running worker owns it, unless renewed.
        progress: 0.0 to 1.0, as last reported; `note` goes with it.
        result: Present once completed, until its time to live is over.
        error: Last failure.
        cancel_requested: A cancellation is on its way to the running handler.
        parent: The job whose completion enqueued this one, in a chain.
    """

    id: int
    queue: str
    kind: str
    state: State
    args: Raw
    priority: int
    attempt: int
    fence: int
    max_attempts: int
    created_at: float
    run_at: float
    started_at: float | None = None
    finished_at: float | None = None
    lease_until: float | None = None
    worker: str | None = None
    timeout_s: float | None = None
    progress: float | None = None
    note: str | None = None
    result: Raw | UnsetType = UNSET
    error: str | None = None
    cancel_requested: bool = False
    unique_key: str | None = None
    concurrency_key: str | None = None
    batch: int | None = None
    parent: int | None = None
    meta: dict[str, str] = {}

    @property
    def final(self) -> bool:
        """Whether the state is completed, cancelled or discarded."""
        return self.state in FINAL_STATES


class Batch(Struct, frozen=True, kw_only=True):
    """Progress of a batch: `pending` of `total` jobs are not final yet; `failed` ended discarded or cancelled."""

    id: int
    total: int
    pending: int
    failed: int
    callback: int | None = None


class QueueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds for a queue over all workers.

    Attributes:
        rate: Jobs a second that may start, > 0, or None for no limit: a token bucket in the store.
        burst: Tokens the bucket holds, >= 1.
        keep_completed_s: Seconds that completed jobs are kept, >= 0; 0 deletes them on completion.
        keep_failed_s: Seconds that discarded and cancelled jobs are kept, >= 0.
    """

    rate: float | None = None
    burst: int = 1
    keep_completed_s: float = 86_400.0
    keep_failed_s: float = 14 * 86_400.0


DEFAULT_QUEUE_CONFIG = QueueConfig()


class QueueStatus(Struct, frozen=True, kw_only=True):
    """A queue at a glance: `counts` of jobs by state, and its configuration."""

    name: str
    paused: bool
    counts: dict[str, int]
    config: QueueConfig = DEFAULT_QUEUE_CONFIG


class JobFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to list, newest id first.

    Attributes:
        before: Only ids below this one: the last id of the page before.
        limit: At most this many, 1 to 1000.
    """

    queue: str | None = None
    state: State | None = None
    kind: str | None = None
    before: int | None = None
    limit: int = 100


class Schedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job that comes again: by a cron line or by an interval, exactly one of them.

    Attributes:
        name: Unique, as a queue's name.
        job: What is enqueued at each tick; without `delay_s`, `run_at` and `unique_key`, which the tick sets.
        cron: Five fields, or six with seconds first, as cronsim reads them.
        every_s: Interval in seconds, >= 1; ticks are the multiples of it since the epoch.
        tz: IANA time zone of the cron line.
        catch_up: Ticks missed while nothing ran: ``skip`` them, enqueue the ``last`` one, or ``all`` (at most 1000).
        paused: True fires nothing.
    """

    name: str
    job: NewJob
    cron: str | None = None
    every_s: float | None = None
    tz: str = "UTC"
    catch_up: Literal["skip", "last", "all"] = "skip"
    paused: bool = False


class ScheduleStatus(Struct, frozen=True, kw_only=True):
    """A stored schedule: `created_at`, and the time of the last tick that fired, or None."""

    schedule: Schedule
    created_at: float
    last_tick: float | None = None


def raw(value: object) -> Raw:
    """Return `value` as JSON; raises `TypeError` for what JSON has no form for."""
    return Raw(msgspec.json.encode(value))
