"""Decisions about jobs as pure functions: what is valid, how long to wait, what follows an outcome.

Every store asks these, so that three stores cannot come to three opinions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Raw

from fairway.jobs.errors import InvalidJob, PayloadTooLarge
from fairway.jobs.job import (
    DEFAULT_BACKOFF,
    Backoff,
    Completed,
    Failed,
    JobFilter,
    NewBatch,
    NewJob,
    Outcome,
    QueueConfig,
    Schedule,
    Snoozed,
    State,
    raw,
)

_KIND = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_KEY_LIMIT = 500
_MAX_META = 16_384
_YEARS_100 = 100 * 366 * 86_400.0

MAX_DEPTH = 500
"""Levels that arguments and results may be nested: SQLite reads 1,000, readers of JSON in some languages fewer."""

MAX_NOTE = 1000
"""Characters of the note that goes with a job's progress."""

FLAT = 2 * MAX_DEPTH
"""Bytes of JSON that cannot be nested deeper than that."""

# One that does not end goes to the end of the text: whatever comes is read once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("]"): -1}


@lru_cache(4096)
def _is_kind(name: str) -> bool:
    return _KIND.fullmatch(name) is not None


@lru_cache(4096)
def _is_queue(name: str) -> bool:
    return _QUEUE.fullmatch(name) is not None


def check_queue(name: str, field: str = "queue") -> None:
    """Raise `InvalidJob` unless `name` can be a queue's (or a schedule's) name."""
    if not _is_queue(name):
        raise InvalidJob(f"expected {field} to be 1 to 100 characters of A-Z a-z 0-9 _ . -, got {name!r}", field=field)


def check_jobs(jobs: Sequence[NewJob], batch: NewBatch | None, max_payload: int) -> None:
    """Raise `InvalidJob` or `PayloadTooLarge`, naming the field, unless all of `jobs` may be stored."""
    if not jobs:
        raise InvalidJob("expected at least one job, got none", field="jobs")
    for n, job in enumerate(jobs):
        if not _is_plain(job, max_payload):
            check_job(job, max_payload, f"jobs[{n}].")
    if batch is not None and batch.callback is not None:
        check_job(batch.callback, max_payload, "batch.callback.")


def _is_plain(job: NewJob, max_payload: int) -> bool:
    """Whether the fields that most jobs set are valid and the rest is at its default: the fast way through."""
    return (
        0 <= job.priority <= 9
        and job.delay_s is None
        and job.run_at is None
        and 1 <= job.max_attempts <= 1000
        and (job.timeout_s is None or 0 < job.timeout_s <= _YEARS_100)
        and job.backoff is DEFAULT_BACKOFF
        and job.unique_key is None
        and job.unique_for_s is None
        and job.concurrency_key is None
        and job.concurrency_limit == 1
        and job.result_ttl_s == 86_400.0
        and job.keep_s is None
        and not job.then
        and not job.meta
        and _is_kind(job.kind)
        and _is_queue(job.queue)
        and 0 < (size := len(memoryview(job.args))) <= max_payload
        and (size <= FLAT or not is_deep(job.args))
    )


def check_job(job: NewJob, max_payload: int, at: str = "") -> None:
    """Raise `InvalidJob` or `PayloadTooLarge` unless `job` is valid; `at` prefixes the field's name."""

    def refuse(field: str, expected: str, got: object) -> InvalidJob:
        return InvalidJob(f"expected {at}{field} to be {expected}, got {got!r}", field=f"{at}{field}")

    def bound(field: str, value: float | None, low: float, high: float) -> None:
        # A comparison chain is False for NaN, which is what is wanted.
        if value is not None and not low <= value <= high:
            raise refuse(field, f"between {low:g} and {high:g}", value)

    if not _is_kind(job.kind):
        raise refuse("kind", "1 to 200 characters of A-Z a-z 0-9 _ . : / -", job.kind)
    check_queue(job.queue, f"{at}queue")
    size = len(memoryview(job.args))
    if size > max_payload:
        raise PayloadTooLarge(f"expected {at}args of at most {max_payload:,} bytes, got {size:,}", field=f"{at}args")
    if size == 0:
        raise refuse("args", "a JSON value", "")
    if is_deep(job.args):
        raise refuse("args", f"nested at most {MAX_DEPTH} levels", "more")
    bound("priority", job.priority, 0, 9)
    if job.delay_s is not None and job.run_at is not None:
        raise refuse("delay_s", "absent where run_at is given", job.delay_s)
    bound("delay_s", job.delay_s, 0, _YEARS_100)
    bound("run_at", job.run_at, 0, 1e11)
    bound("max_attempts", job.max_attempts, 1, 1000)
    bound("result_ttl_s", job.result_ttl_s, 0, _YEARS_100)
    bound("keep_s", job.keep_s, 0, _YEARS_100)
    if job.timeout_s is not None and not 0 < job.timeout_s <= _YEARS_100:
        raise refuse("timeout_s", "above 0", job.timeout_s)
    _check_backoff(job.backoff, at)
    for field, key in (("unique_key", job.unique_key), ("concurrency_key", job.concurrency_key)):
        if key is not None and not 0 < len(key) <= _KEY_LIMIT:
            raise refuse(field, f"1 to {_KEY_LIMIT} characters", key[:50])
        if key is not None and not _is_text(key):
            raise refuse(field, "text without lone surrogates", key[:50])
    if job.unique_for_s is not None:
        if job.unique_key is None:
            raise refuse("unique_for_s", "absent where unique_key is", job.unique_for_s)
        if not 0 < job.unique_for_s <= _YEARS_100:
            raise refuse("unique_for_s", "above 0", job.unique_for_s)
    bound("concurrency_limit", job.concurrency_limit, 1, 1_000_000)
    if job.meta and sum(len(k) + len(v) for k, v in job.meta.items()) > _MAX_META:
        raise refuse("meta", f"at most {_MAX_META:,} characters", "more")
    if not all(_is_text(word) for pair in job.meta.items() for word in pair):
        raise refuse("meta", "text without lone surrogates", job.meta)
    if len(job.then) > 100:
        raise refuse("then", "at most 100 jobs", len(job.then))
    for n, link in enumerate(job.then):
        if link.then:
            raise refuse(f"then[{n}].then", "absent: the list of the first job is the whole chain", link.then)
        check_job(link, max_payload, f"{at}then[{n}].")


def _is_text(value: str) -> bool:
    """Whether `value` can be written as UTF-8, which no store and no JSON goes without."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_deep(data: bytes | Raw) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH` levels."""
    if len(memoryview(data)) <= FLAT:
        return False
    text = bytes(data)
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", text).translate(_BRACKETS, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH


def _check_backoff(backoff: Backoff, at: str) -> None:
    for field, value, low, high in (
        ("base_s", backoff.base_s, 0.0, _YEARS_100),
        ("factor", backoff.factor, 1.0, 1000.0),
        ("max_s", backoff.max_s, 0.0, _YEARS_100),
        ("jitter", backoff.jitter, 0.0, 1.0),
    ):
        if not low <= value <= high:
            name = f"{at}backoff.{field}"
            raise InvalidJob(f"expected {name} to be between {low:g} and {high:g}, got {value!r}", field=name)


def check_queues_agree(jobs: Sequence[NewJob], batch: NewBatch | None) -> None:
    """Raise `InvalidJob` where a chain or a batch spans queues, for stores that cannot do that."""
    first = jobs[0].queue
    for n, job in enumerate(jobs):
        if batch is not None and job.queue != first:
            raise InvalidJob(f"expected all jobs of the batch in queue {first!r}", field=f"jobs[{n}].queue")
        for m, link in enumerate(job.then):
            if link.queue != job.queue:
                raise InvalidJob(
                    f"expected the chain to stay in queue {job.queue!r}", field=f"jobs[{n}].then[{m}].queue"
                )
    if batch is not None and batch.callback is not None and batch.callback.queue != first:
        raise InvalidJob(f"expected the callback in queue {first!r}", field="batch.callback.queue")


def check_claim(queues: Sequence[str], limit: int, lease_s: float, wait_s: float) -> None:
    """Raise `InvalidJob` unless these are arguments that `Store.claim` takes."""
    if not queues:
        raise InvalidJob("expected at least one queue, got none", field="queues")
    for name in queues:
        check_queue(name, "queues")
    if not 1 <= limit <= 10_000:
        raise InvalidJob(f"expected limit to be between 1 and 10000, got {limit!r}", field="limit")
    if not 0 < lease_s <= 86_400:
        raise InvalidJob(f"expected lease_s to be above 0 and at most 86400, got {lease_s!r}", field="lease_s")
    if not 0 <= wait_s <= 86_400:
        raise InvalidJob(f"expected wait_s to be between 0 and 86400, got {wait_s!r}", field="wait_s")


def check_progress(value: float, note: str | None = None) -> None:
    """Raise `InvalidJob` unless `value` is between 0 and 1 and `note` is text of at most `MAX_NOTE` characters."""
    if not 0.0 <= value <= 1.0:
        raise InvalidJob(f"expected value to be between 0.0 and 1.0, got {value!r}", field="value")
    if note is not None and (len(note) > MAX_NOTE or not _is_text(note)):
        expected = f"at most {MAX_NOTE} characters" if len(note) > MAX_NOTE else "text without lone surrogates"
        raise InvalidJob(f"expected note to be {expected}, got {len(note)}: {note[:50]!r}", field="note")


def check_key(key: str) -> None:
    """Raise `InvalidJob` unless `key` can be a key of the `once` ledger."""
    if not 0 < len(key) <= _KEY_LIMIT:
        raise InvalidJob(f"expected key to be 1 to {_KEY_LIMIT} characters, got {key[:50]!r}", field="key")
    if not _is_text(key):
        raise InvalidJob(f"expected key to be text without lone surrogates, got {key[:50]!r}", field="key")


def check_filter(where: JobFilter) -> None:
    """Raise `InvalidJob` unless `where` has a limit of 1 to 1000."""
    if not 1 <= where.limit <= 1000:
        raise InvalidJob(f"expected limit to be between 1 and 1000, got {where.limit!r}", field="limit")


def check_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Raise `InvalidJob` where an outcome has a negative delay, or an error that is no text."""
    for n, outcome in enumerate(outcomes):
        if isinstance(outcome, Failed):
            check_delay(outcome.retry_in_s, f"outcomes[{n}].retry_in_s")
            if not _is_text(outcome.error):
                field = f"outcomes[{n}].error"
                raise InvalidJob(f"expected {field} to be text without lone surrogates", field=field)
        elif isinstance(outcome, Snoozed):
            check_delay(outcome.delay_s, f"outcomes[{n}].delay_s")


def unfit(outcome: Completed, max_payload: int) -> Failed | None:
    """Return the failure that takes the place of a completion whose result is too large or nested too deep, or None."""
    size = len(memoryview(outcome.result))
    if size > max_payload:
        why = f"the result has {size:,} bytes, more than the limit of {max_payload:,}"
    elif is_deep(outcome.result):
        why = f"the result is nested deeper than {MAX_DEPTH} levels"
    else:
        return None
    return Failed(outcome.id, outcome.fence, why)


def check_delay(delay_s: float | None, field: str) -> None:
    """Raise `InvalidJob` unless `delay_s` is None or a duration >= 0."""
    if delay_s is not None and not 0 <= delay_s <= _YEARS_100:
        raise InvalidJob(f"expected {field} to be 0 or more seconds, got {delay_s!r}", field=field)


def check_config(config: QueueConfig) -> None:
    """Raise `InvalidJob` unless `config` is within its bounds."""
    if config.rate is not None and not 0 < config.rate <= 1e9:
        raise InvalidJob(f"expected rate to be above 0, got {config.rate!r}", field="rate")
    if not 1 <= config.burst <= 1_000_000_000:
        raise InvalidJob(f"expected burst to be at least 1, got {config.burst!r}", field="burst")
    check_delay(config.keep_completed_s, "keep_completed_s")
    check_delay(config.keep_failed_s, "keep_failed_s")


def check_schedule(schedule: Schedule, max_payload: int) -> None:
    """Raise `InvalidJob`, naming the field, unless `schedule` can be stored and ticks."""
    check_queue(schedule.name, "name")
    check_job(schedule.job, max_payload, "job.")
    for field in ("delay_s", "run_at", "unique_key", "unique_for_s"):
        if getattr(schedule.job, field) is not None:
            raise InvalidJob(f"expected job.{field} to be absent: the tick sets it", field=f"job.{field}")
    if schedule.cron is None and schedule.every_s is None:
        raise InvalidJob("expected cron or every_s, got neither", field="cron")
    if schedule.every_s is not None:
        if schedule.cron is not None:
            raise InvalidJob("expected cron or every_s, got both", field="every_s")
        if not 1 <= schedule.every_s <= _YEARS_100:
            raise InvalidJob(f"expected every_s to be at least 1, got {schedule.every_s!r}", field="every_s")
    try:
        zone = ZoneInfo(schedule.tz)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidJob(f"expected tz to be an IANA time zone, got {schedule.tz!r}", field="tz") from error
    if schedule.cron is not None:
        _check_cron(schedule.cron, zone)


def _check_cron(line: str, zone: ZoneInfo) -> None:
    from datetime import datetime

    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(line, datetime(2025, 1, 1, tzinfo=zone)))
    except (CronSimError, StopIteration) as error:
        message = f"expected cron to be five fields (or six, seconds first) that come true some day, got {line!r}"
        raise InvalidJob(message, field="cron", hint=str(error)) from error


def retry_delay(backoff: Backoff, attempt: int, rand: float | None = None) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1); `rand` in [0, 1) for tests.

    With the defaults about 1, 2, 4, 8, 16 …, at most 3,600, each ± 10 %. A huge attempt gives `max_s`.
    """
    try:
        delay = min(backoff.max_s, backoff.base_s * backoff.factor ** (attempt - 1))
    except OverflowError:
        delay = backoff.max_s
    if backoff.jitter == 0.0:
        return delay
    spread = random.random() if rand is None else rand  # noqa: S311 - spreads load, guards nothing
    return delay * (1.0 + backoff.jitter * (2.0 * spread - 1.0))


class AfterFailure(NamedTuple):
    """What a failure leads to: `delay` seconds until the next attempt (0 unless retryable)."""

    state: Literal["retryable", "available", "discarded", "cancelled"]
    delay: float


def after_failure(
    outcome: Failed, attempt: int, max_attempts: int, backoff: Backoff, cancel_requested: bool
) -> AfterFailure:
    """Decide what becomes of a job whose attempt failed."""
    if cancel_requested:
        return AfterFailure("cancelled", 0.0)
    if not outcome.retry or attempt >= max_attempts:
        return AfterFailure("discarded", 0.0)
    delay = retry_delay(backoff, attempt) if outcome.retry_in_s is None else outcome.retry_in_s
    return AfterFailure("retryable", delay) if delay > 0 else AfterFailure("available", 0.0)


def after_expiry(attempt: int, max_attempts: int, cancel_requested: bool) -> State:
    """Decide what becomes of a job whose lease ran out: it is available at once while attempts are left."""
    if cancel_requested:
        return "cancelled"
    return "available" if attempt < max_attempts else "discarded"


def keep_for(state: State, keep_s: float | None, config: QueueConfig) -> float:
    """Return for how many seconds a job is kept that has reached the final `state`."""
    if keep_s is not None:
        return keep_s
    return config.keep_completed_s if state == "completed" else config.keep_failed_s


def next_link(then: tuple[NewJob, ...]) -> NewJob:
    """Return the chain's next job, carrying the rest of the chain."""
    return msgspec.structs.replace(then[0], then=then[1:])


def batch_summary(batch_id: int, total: int, failed: int) -> Raw:
    """Return what a batch's callback finds in `Lease.previous`."""
    return raw({"batch": batch_id, "total": total, "failed": failed})


class Bucket:
    """A token bucket: `rate` tokens a second up to `burst`; time is handed in.

    Source: golang.org/x/time/rate, without reservations.
    """

    __slots__ = ("burst", "rate", "tokens", "updated")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = float(burst)
        self.updated = now

    def peek(self, now: float) -> int:
        """Return how many whole tokens there are at `now`."""
        self.tokens = min(float(self.burst), self.tokens + max(0.0, now - self.updated) * self.rate)
        self.updated = now
        # The sum of many small steps falls short of a whole number by rounding.
        return int(self.tokens + 1e-9)

    def take(self, n: int) -> None:
        """Take `n` tokens that `peek` reported."""
        self.tokens = max(0.0, self.tokens - n)

    def ready_in(self) -> float:
        """Return the seconds from the last `peek` until there is a whole token."""
        return max(0.0, (1.0 - self.tokens) / self.rate)

    def __repr__(self) -> str:
        return f"<Bucket {self.tokens:.2f} of {self.burst}, {self.rate:g}/s>"
