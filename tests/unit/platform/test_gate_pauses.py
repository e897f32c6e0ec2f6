"""When the gate of a deploy looks: often when an app is likely to be ready, seldom long before and long after."""

from __future__ import annotations

import itertools

import pytest

from fairway.platform.gate import pause


def looks(expected: float, until: float) -> list[float]:
    """The times of all looks until `until`."""
    at, found = 0.0, [0.0]
    while (at := at + pause(at, expected)) < until:
        found.append(at)
    return found


@pytest.mark.parametrize(
    ("waited", "expected", "seconds"),
    [
        (0.0, 0.0, 0.005),
        (0.05, 0.0, 0.005),
        (1.0, 0.0, 0.05),
        (60.0, 0.0, 0.25),
        (0.0, 0.4, 0.04),
        (0.38, 0.4, 0.005),
        (0.45, 0.4, 0.005),
        (1.4, 0.4, 0.05),
        (0.0, 30.0, 0.25),
    ],
)
def test_pauses(waited: float, expected: float, seconds: float) -> None:
    assert pause(waited, expected) == pytest.approx(seconds)


@pytest.mark.parametrize("expected", [0.05, 0.4, 3.0])
def test_what_comes_up_as_ever_is_seen_at_once_and_asked_less(expected: float) -> None:
    seen = looks(expected, expected * 1.1)
    near = [b - a for a, b in itertools.pairwise(seen) if abs(b - expected) < expected * 0.02]
    assert all(step <= 0.0101 for step in near)
    assert len(seen) <= len(looks(0.0, expected * 1.1))


def test_what_is_ready_much_sooner_is_not_kept_waiting() -> None:
    late = [next(at for at in looks(expected, 60.0) if at >= ready) - ready
            for expected in (0.4, 2.0, 30.0) for ready in (0.01, 0.1, 0.3)]  # fmt: skip
    assert max(late) <= 0.25
