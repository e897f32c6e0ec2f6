"""The canary's verdict."""

from __future__ import annotations

import pytest

from fairway.apps.spec import CanarySpec
from fairway.platform.canary import Sample, judge

SPEC = CanarySpec(weight=10, watch=30.0, max_error_rate=0.05, max_latency=0.5)


@pytest.mark.parametrize(
    ("sample", "elapsed", "outcome"),
    [
        (Sample(100, 5, 1.0), 10.0, "wait"),
        (Sample(100, 6, 1.0), 10.0, "back"),
        (Sample(100, 5, 1.0), 30.0, "keep"),
        (Sample(5, 1, 0.1), 10.0, "wait"),
        (Sample(5, 1, 0.1), 30.0, "keep"),  # one error of few is no evidence
        (Sample(5, 2, 0.1), 30.0, "back"),
        (Sample(0, 0, 0.0), 29.9, "wait"),
        (Sample(0, 0, 0.0), 30.0, "keep"),
        (Sample(40, 0, 24.0), 10.0, "back"),
        (Sample(4, 0, 2.4), 10.0, "wait"),
        (Sample(4, 0, 2.4), 30.0, "back"),
    ],
)
def test_verdict(sample, elapsed, outcome):
    assert judge(SPEC, sample, elapsed).outcome == outcome


def test_the_reason_says_what_was_seen_and_expected():
    assert judge(SPEC, Sample(100, 6, 1.0), 1.0).reason == "6 of 100 answers were errors (6.0%), expected at most 5.0%"


def test_a_restarted_worker_counts_from_zero():
    assert Sample(3, 1, 0.5) - Sample(10, 0, 2.0) == Sample(0, 1, 0.0)
