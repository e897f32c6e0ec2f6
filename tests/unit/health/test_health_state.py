"""States of a target, from results alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.health.probe import ProbeResult, ProbeTarget
from fairway.health.state import FLAP_CHANGES, FLAP_WINDOW, Check, Machine, next_due

TARGET = ProbeTarget("127.0.0.1", 80, "/healthz")
CHECK = Check("a/web.1", "a", TARGET, interval=10.0, rise=2, fall=3)


def play(machine: Machine, results: str, *, start: float = 0.0, step: float = 1.0) -> list[str]:
    """Feed ``+`` and ``-``, return the state after each."""
    states = []
    for index, sign in enumerate(results):
        result = ProbeResult(ok=sign == "+", seconds=0.01, error="" if sign == "+" else "refused")
        states.append(machine.apply(result, start + index * step).state)
    return states


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("+", ["starting"]),
        ("++", ["starting", "healthy"]),
        ("+-++", ["starting", "starting", "starting", "healthy"]),
        ("---", ["starting", "starting", "unhealthy"]),
        ("++-", ["starting", "healthy", "degraded"]),
        ("++-+", ["starting", "healthy", "degraded", "degraded"]),
        ("++-++", ["starting", "healthy", "degraded", "degraded", "healthy"]),
        ("++---", ["starting", "healthy", "degraded", "degraded", "unhealthy"]),
        ("---+", ["starting", "starting", "unhealthy", "unhealthy"]),
        ("---++", ["starting", "starting", "unhealthy", "unhealthy", "healthy"]),
    ],
)
def test_rise_and_fall(results: str, states: list[str]) -> None:
    assert play(Machine(CHECK), results) == states


def test_one_pass_and_one_failure_decide_where_asked_for() -> None:
    eager = Check("a", "a", TARGET, rise=1, fall=1)
    assert play(Machine(eager), "+-+") == ["healthy", "unhealthy", "healthy"]


def test_a_state_knows_since_when() -> None:
    machine = Machine(CHECK)
    play(machine, "++", start=100.0)
    status = machine.apply(ProbeResult(ok=True, seconds=0.01), 150.0)
    assert (status.state, status.since, status.checked_at, status.passes) == ("healthy", 101.0, 150.0, 3)


def test_looks_more_often_while_in_doubt() -> None:
    machine = Machine(CHECK)
    assert machine.interval == 2.0
    play(machine, "++")
    assert machine.interval == 10.0
    play(machine, "-")
    assert machine.interval == 2.0
    play(machine, "--")
    assert machine.interval == 10.0
    play(machine, "+")
    assert machine.interval == 2.0


@pytest.mark.parametrize(("interval", "fast"), [(10.0, 2.0), (60.0, 12.0), (1.0, 0.5), (0.2, 0.2)])
def test_fast_interval(interval: float, fast: float) -> None:
    assert Check("a", "a", TARGET, interval=interval).fast_interval == fast


def test_flapping_comes_after_four_changes_and_goes_when_it_is_quiet() -> None:
    machine = Machine(Check("a", "a", TARGET, rise=1, fall=1))
    play(machine, "+" + "-+" * (FLAP_CHANGES // 2 - 1) + "-", step=10.0)
    assert not machine.flapping
    last = machine.apply(ProbeResult(ok=True, seconds=0.0), 100.0)
    assert last.flapping
    assert machine.apply(ProbeResult(ok=True, seconds=0.0), 200.0).flapping
    assert not machine.apply(ProbeResult(ok=True, seconds=0.0), 101.0 + FLAP_WINDOW).flapping


def test_phases_spread_over_the_interval() -> None:
    phases = sorted(Check(f"app-{n}/web.1", "a", TARGET, interval=10.0).phase for n in range(1000))
    assert phases[0] >= 0.0
    assert phases[-1] < 10.0
    per_second = [sum(1 for phase in phases if second <= phase < second + 1) for second in range(10)]
    assert min(per_second) > 60


@pytest.mark.parametrize(
    ("previous", "interval", "now", "due"),
    [(0.0, 10.0, 3.0, 10.0), (0.0, 10.0, 10.0, 20.0), (0.0, 10.0, 25.0, 30.0), (5.0, 10.0, 5.0, 15.0), (9.0, 5, 1, 14)],
)
def test_next_due(previous: float, interval: float, now: float, due: float) -> None:
    assert next_due(previous, interval, now) == due


def test_next_due_refuses_no_interval() -> None:
    with pytest.raises(ValueError, match="interval > 0"):
        next_due(0.0, 0.0, 1.0)


@given(st.floats(0, 1e6), st.floats(0.1, 1e4), st.floats(0, 1e6))
def test_next_due_is_ahead_and_no_further_than_one_interval(previous: float, interval: float, late: float) -> None:
    now = previous + late
    due = next_due(previous, interval, now)
    slack = 1e-6 * (now + interval)
    assert now - slack <= due <= now + interval + slack
