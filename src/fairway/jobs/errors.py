"""The errors of the job subsystem, each with a stable code that the API maps to a status."""

from __future__ import annotations

from typing import ClassVar

from fairway.errors import FairwayError


class JobError(FairwayError):
    """Base of everything that the job subsystem raises on purpose."""

    code = "jobs.error"


class InvalidJob(JobError):
    """A job, a schedule or a call that cannot be accepted; nothing was stored.

    Attributes:
        field: Path of the offending field, such as ``delay_s`` or ``then[0].queue``; empty when none is to blame.
    """

    code = "jobs.invalid"

    def __init__(self, message: str, *, field: str = "", code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.field = field


class PayloadTooLarge(InvalidJob):
    """Arguments or a result above the store's payload limit; nothing was stored."""

    code = "jobs.payload_too_large"
    default_hint: ClassVar[str] = "store the data elsewhere and pass its name"


class UnknownTask(InvalidJob):
    """A kind of job that nobody registered."""

    code = "jobs.unknown_kind"


class JobNotFound(JobError):
    """No job has this id, or its retention has run out."""

    code = "jobs.not_found"
    default_hint: ClassVar[str] = "`fairway jobs list` shows the jobs that are kept"


class QueueNotFound(JobError):
    """No queue has this name."""

    code = "jobs.queue_not_found"
    default_hint: ClassVar[str] = "`fairway jobs queues` lists them; the first job of a queue makes it"


class ScheduleNotFound(JobError):
    """No schedule has this name."""

    code = "jobs.schedule_not_found"


class BatchNotFound(JobError):
    """No batch has this id."""

    code = "jobs.batch_not_found"


class JobConflict(JobError):
    """The job's state does not allow what was asked, such as a retry of a running job."""

    code = "jobs.conflict"


class LeaseLost(JobError):
    """The caller's fence is stale: the job's lease expired, or it was cancelled, or someone else runs it."""

    code = "jobs.lease_lost"
    default_hint: ClassVar[str] = "stop the handler; the job is no longer yours"
    field: str = ""


class StoreUnavailable(JobError):
    """The store cannot take or give anything now (disk full, connection lost, out of memory); nothing was stored."""

    code = "jobs.store_unavailable"
    default_hint: ClassVar[str] = "try again later; workers recover by themselves"


class JobFailed(JobError):
    """`JobHandle.result` of a job that ended discarded or cancelled; the message is the job's own error."""

    code = "jobs.failed"


class ResultGone(JobError):
    """The job completed, and its result is no longer kept: its time to live is over."""

    code = "jobs.result_gone"
    default_hint = "keep it longer with `result_ttl_s`"


class ResultInvalid(JobError):
    """What the handler returned is not of the type that it is annotated with."""

    code = "jobs.result_invalid"
