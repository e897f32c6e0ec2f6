"""The planner of rollouts: from what runs to what is wanted, as named steps."""

from __future__ import annotations

import pytest

from fairway.apps.spec import CanarySpec
from fairway.platform.rollout import Canary, Drain, Hold, Probe, Start, Stop, Swap, Unit, Wanted, plan

OLD = (Unit("web", 1, "old"), Unit("web", 2, "old"), Unit("worker", 1, "old"))


def wanted(**changes) -> Wanted:
    values = {"release": "r2", "launch": "new", "counts": {"web": 2, "worker": 1}, "drain": 5.0, "grace": 9.0}
    return Wanted(**{**values, **changes})


def test_rolling_starts_beside_probes_swaps_drains_and_stops():
    assert plan(OLD, wanted()).steps == (
        Start("web", 2, "r2"),
        Start("worker", 1, "r2"),
        Probe(),
        Swap("r2"),
        Drain(OLD[:2], 5.0),
        Stop(OLD, 9.0),
    )


def test_recreate_holds_requests_and_stops_before_it_starts():
    kinds = [type(step) for step in plan(OLD, wanted(strategy="recreate")).steps]
    assert kinds == [Hold, Drain, Stop, Start, Start, Probe, Swap]


def test_nothing_to_do():
    found = plan(OLD, wanted(launch="old"))
    assert (found.steps, found.kept, str(found)) == ((), OLD, "nothing to do")


def test_the_first_deploy_has_nothing_to_stop():
    assert [type(s) for s in plan((), wanted()).steps] == [Start, Start, Probe, Swap]


def test_recreate_of_a_first_deploy_holds_nothing():
    assert [type(s) for s in plan((), wanted(strategy="recreate")).steps] == [Start, Start, Probe, Swap]


def test_scaling_up_keeps_what_fits():
    found = plan(OLD, wanted(launch="old", counts={"web": 4, "worker": 1}))
    assert found.steps == (Start("web", 2, "r2"), Probe(), Swap("r2"))
    assert found.kept == OLD


def test_scaling_down_stops_the_newest_after_they_have_drained():
    found = plan(OLD, wanted(launch="old", counts={"web": 1, "worker": 1}))
    assert found.steps == (Swap("r2"), Drain((OLD[1],), 5.0), Stop((OLD[1],), 9.0))


def test_scaling_to_zero():
    found = plan(OLD, wanted(launch="old", counts={"web": 0, "worker": 1}))
    assert [type(s) for s in found.steps] == [Swap, Drain, Stop]


def test_a_restart_replaces_what_would_fit():
    found = plan(OLD, wanted(launch="old", fresh=True))
    assert found.kept == ()
    assert found.steps[-1] == Stop(OLD, 9.0)


def test_a_process_that_is_no_longer_wanted_goes():
    found = plan(OLD, wanted(launch="old", counts={"web": 2}))
    assert found.steps == (Swap("r2"), Stop((OLD[2],), 9.0))


def test_a_canary_only_where_another_release_serves():
    spec = CanarySpec(weight=20, watch=3.0)
    kinds = [type(s) for s in plan(OLD, wanted(canary=spec), serving="r1").steps]
    assert kinds == [Start, Start, Probe, Canary, Swap, Drain, Stop]
    assert Canary not in [type(s) for s in plan(OLD, wanted(canary=spec), serving="r2").steps]
    assert Canary not in [type(s) for s in plan((), wanted(canary=spec), serving=None).steps]


@pytest.mark.parametrize("text", ["1. start 2 instances of web from release r2", "4. route all requests to release r2"])
def test_a_plan_reads_like_prose(text):
    assert text in str(plan(OLD, wanted()))
