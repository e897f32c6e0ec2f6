"""Bodies of the job API: what requests and answers look like, beside the structs of `fairway.jobs.job`."""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType

from fairway.jobs.job import (
    Job,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueStatus,
    ScheduleStatus,
    State,
    Verdict,
)


class NewJobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs that are enqueued all or none; with ``batch``, as a batch."""

    jobs: list[NewJob]
    batch: NewBatch | None = None


class LeaseRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``limit`` jobs for ``lease_s`` seconds, waited for up to ``wait_s`` (60 at most)."""

    worker: str
    limit: int = 1
    lease_s: float = 30.0
    wait_s: float = 0.0


class LeaseFromRequest(LeaseRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lease from several queues, in order of preference."""

    queues: list[str]


class Leased(Struct, frozen=True, kw_only=True):
    """What was leased; empty where nothing came."""

    jobs: list[Lease]


class WorkerRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker whose waiting lease calls end now."""

    worker: str


class Ended(Struct, frozen=True, kw_only=True):
    """How many waiting calls were ended."""

    ended: int


class HeartbeatRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Renew one lease."""

    fence: int
    lease_s: float = 30.0


class HeartbeatsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Renew many leases: pairs of id and fence."""

    leases: list[tuple[int, int]]
    lease_s: float = 30.0


class CompleteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The job is done; ``result`` is any JSON value."""

    fence: int
    result: Raw | UnsetType = UNSET


class FailRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The attempt failed."""

    fence: int
    error: str
    retry: bool = True
    retry_in_s: float | None = None


class SnoozeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put the job off; the attempt is not charged."""

    fence: int
    delay_s: float


class FenceRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only the proof of ownership."""

    fence: int


class ProgressRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Progress from 0.0 to 1.0 and a note on it of at most 1,000 characters."""

    fence: int
    value: float
    note: str | None = None


class OnceRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key of the ledger."""

    fence: int
    key: str


class OnceAnswer(Struct, frozen=True, kw_only=True):
    """What the ledger says."""

    verdict: OnceVerdict


class VerdictAnswer(Struct, frozen=True, kw_only=True):
    """``ok``, or ``cancel``: stop the handler, the job was cancelled."""

    verdict: Verdict


class SettleRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How attempts ended, up to 10,000."""

    outcomes: list[Outcome]


class Verdicts(Struct, frozen=True, kw_only=True):
    """One verdict each, in order."""

    verdicts: list[Verdict]


class ReplayRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which discarded jobs are made available again."""

    queue: str | None = None
    kind: str | None = None
    limit: int = 1000


class Replayed(Struct, frozen=True, kw_only=True):
    """How many were; ask again until 0 for all."""

    replayed: int


class ResultAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """State of a job, and its result once it has completed (until its time to live is over)."""

    id: int
    state: State
    result: Raw | UnsetType = UNSET
    error: str | None = None


class JobList(Struct, frozen=True, kw_only=True):
    """Jobs, newest id first."""

    jobs: list[Job]


class QueueList(Struct, frozen=True, kw_only=True):
    """Queues by name."""

    queues: list[QueueStatus]


class ScheduleList(Struct, frozen=True, kw_only=True):
    """Schedules by name."""

    schedules: list[ScheduleStatus]
