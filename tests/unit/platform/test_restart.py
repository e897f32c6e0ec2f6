"""Backoff between restarts."""

from __future__ import annotations

import random

from fairway.platform.restart import Backoff


def test_first_at_once_then_doubling_up_to_a_minute_and_never_giving_up():
    backoff = Backoff(jitter=0.0)
    assert [backoff.next(1.0) for _ in range(11)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert [backoff.next(1.0) for _ in range(500)] == [60.0] * 500


def test_a_minute_of_health_forgives():
    backoff = Backoff(jitter=0.0)
    for _ in range(8):
        backoff.next(1.0)
    assert backoff.next(60.0) == 0.0
    assert backoff.next(59.9) == 0.5


def test_jitter_spreads_but_never_beyond_the_cap():
    rng = random.Random(7)
    delays = []
    for _ in range(50):
        backoff = Backoff(failures=4)
        delays.append(backoff.next(0.0, rng=rng))
    assert 3.2 <= min(delays) < max(delays) <= 4.8
    assert len(set(delays)) > 40
    assert max(Backoff(failures=20).next(0.0, rng=rng) for _ in range(50)) <= 60.0
