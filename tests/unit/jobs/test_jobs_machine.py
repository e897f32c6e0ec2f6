"""Decisions about jobs."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from fairway.jobs import machine
from fairway.jobs.errors import InvalidJob
from fairway.jobs.job import Backoff, Completed, Failed, NewBatch, NewJob, QueueConfig


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (2, 2.0), (3, 4.0), (12, 2048.0), (13, 3600.0), (5000, 3600)])
def test_backoff_doubles_up_to_its_bound(attempt: int, delay: float) -> None:
    assert machine.retry_delay(Backoff(jitter=0.0), attempt) == delay


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(attempt: int, rand: float) -> None:
    plain = machine.retry_delay(Backoff(jitter=0.0), attempt)
    assert 0.9 * plain - 1e-9 <= machine.retry_delay(Backoff(), attempt, rand) <= 1.1 * plain + 1e-9


def test_degenerate_backoffs() -> None:
    assert machine.retry_delay(Backoff(base_s=0.0), 7) == 0.0
    assert machine.retry_delay(Backoff(max_s=0.0), 7) == 0.0
    assert machine.retry_delay(Backoff(factor=1.0, jitter=0.0), 900) == 1.0


@pytest.mark.parametrize(
    ("failed", "attempt", "cancelled", "expected"),
    [
        (Failed(1, 1, "x"), 1, False, ("retryable", 1.0)),
        (Failed(1, 1, "x"), 3, False, ("discarded", 0.0)),
        (Failed(1, 1, "x", retry=False), 1, False, ("discarded", 0.0)),
        (Failed(1, 1, "x", retry_in_s=5.0), 1, False, ("retryable", 5.0)),
        (Failed(1, 1, "x", retry_in_s=0.0), 1, False, ("available", 0.0)),
        (Failed(1, 1, "x"), 1, True, ("cancelled", 0.0)),
    ],
)
def test_what_follows_a_failure(failed: Failed, attempt: int, cancelled: bool, expected: tuple[str, float]) -> None:
    assert machine.after_failure(failed, attempt, 3, Backoff(jitter=0.0), cancelled) == expected


def test_what_follows_an_expired_lease() -> None:
    assert machine.after_expiry(1, 2, False) == "available"
    assert machine.after_expiry(2, 2, False) == "discarded"
    assert machine.after_expiry(1, 2, True) == "cancelled"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_numbers_that_are_no_durations_are_refused(value: float) -> None:
    for field in ("delay_s", "run_at", "timeout_s", "result_ttl_s", "keep_s"):
        with pytest.raises(InvalidJob) as caught:
            machine.check_job(NewJob(kind="k", **{field: value}), 100)  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(InvalidJob):
        machine.check_config(QueueConfig(rate=value))
    with pytest.raises(InvalidJob):
        machine.check_progress(value)


def test_the_fast_way_through_accepts_nothing_that_the_slow_one_refuses() -> None:
    for job in (
        NewJob(kind=""),
        NewJob(kind="k", queue=""),
        NewJob(kind="k", priority=10),
        NewJob(kind="k", max_attempts=0),
        NewJob(kind="k", timeout_s=0.0),
        NewJob(kind="k", timeout_s=1e300),
        NewJob(kind="k", concurrency_limit=0),
        NewJob(kind="k", concurrency_limit=10**30),
        NewJob(kind="k", backoff=Backoff(factor=0.0)),
    ):
        with pytest.raises(InvalidJob):
            machine.check_jobs([job], None, 100)


def nested(levels: int, inside: bytes = b"") -> Raw:
    return Raw(
        b'[{"a":' * (levels // 2) + b"[" * (levels % 2) + (inside or b"1") + b"]" * (levels % 2) + b"}]" * (levels // 2)
    )


@pytest.mark.parametrize(
    ("data", "deep"),
    [
        (nested(machine.MAX_DEPTH), False),
        (nested(machine.MAX_DEPTH + 1), True),
        (nested(2, b"[1]," * 2_000 + b"1"), False),
        (nested(2, b'"' + b"[" * 2_000 + b'"'), False),
        (nested(2, b'"\\"' + b"[{" * 2_000 + b'\\\\"'), False),
        (nested(machine.MAX_DEPTH, b'["' + b"]" * 2_000 + b'"]'), True),
    ],
)
def test_what_is_nested_too_deep_is_found_whatever_stands_in_strings(data: Raw, deep: bool) -> None:
    assert machine.is_deep(data) is deep
    failure = machine.unfit(Completed(1, 2, data), 1_000_000)
    assert failure == (Failed(1, 2, "the result is nested deeper than 500 levels") if deep else None)
    for job in (NewJob(kind="k", args=data), NewJob(kind="k", args=data, priority=9, meta={"a": "b"})):
        if deep:
            with pytest.raises(InvalidJob, match="at most 500 levels"):
                machine.check_jobs([job], None, 1_000_000)
        else:
            machine.check_jobs([job], None, 1_000_000)


@pytest.mark.parametrize("part", [b'\\"', b'\\"\\\n', b'"\\'])
def test_what_is_no_json_is_looked_through_once(part: bytes) -> None:
    data = b"[" * (machine.MAX_DEPTH + 1) + part * 300_000
    began = time.process_time()
    assert machine.is_deep(data)
    assert time.process_time() - began < 2.0  # it took hours


@pytest.mark.parametrize("fields", [{"unique_key": "\ud800"}, {"concurrency_key": "\ud800"}, {"meta": {"a": "\ud800"}}])
def test_text_that_has_no_bytes_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="surrogates") as caught:
        machine.check_jobs([NewJob(kind="k", **fields)], None, 100)
    assert caught.value.field == f"jobs[0].{next(iter(fields))}"
    with pytest.raises(InvalidJob, match="surrogates"):
        machine.check_outcomes([Failed(1, 1, "\ud800")])


def test_no_jobs_are_refused() -> None:
    with pytest.raises(InvalidJob, match="at least one job"):
        machine.check_jobs([], None, 100)


def test_queues_have_to_agree_where_a_store_asks_for_it() -> None:
    there = NewJob(kind="k", queue="b")
    for jobs, batch, field in (
        ([NewJob(kind="k", then=(there,))], None, "jobs[0].then[0].queue"),
        ([NewJob(kind="k"), there], NewBatch(), "jobs[1].queue"),
        ([NewJob(kind="k")], NewBatch(callback=there), "batch.callback.queue"),
    ):
        with pytest.raises(InvalidJob) as caught:
            machine.check_queues_agree(jobs, batch)
        assert caught.value.field == field
    machine.check_queues_agree([NewJob(kind="k"), there], None)


def test_bucket_refills_and_never_overflows() -> None:
    bucket = machine.Bucket(10.0, 3, now=0.0)
    assert bucket.peek(0.0) == 3
    bucket.take(3)
    assert bucket.peek(0.05) == 0
    assert bucket.ready_in() == pytest.approx(0.05)
    assert bucket.peek(0.1) == 1
    assert bucket.peek(99.0) == 3
    assert bucket.peek(50.0) == 3, "a clock that goes back takes nothing away"
