"""Deploys under load: whatever happens to an app, its clients notice nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from whole_fairway import Load, until

pytestmark = pytest.mark.e2e


async def test_twenty_deploys_in_a_row_under_fifty_clients_without_a_failed_request(project, up):
    project.app("shop", "deploy: {drain: 5s, grace: 5s, keep: 3}")
    daemon = up()
    async with Load(daemon.door_port, "shop", 50, pause=0.01) as load:
        for version in range(2, 22):
            project.version("shop", str(version))
            result = await asyncio.to_thread(daemon.do, "shop", "deploy")
            assert result["changed"]
            assert result["release"] != result["previous"]
        await load.more(100)
    assert load.failures == Counter()
    assert load.versions["21"] > 0
    assert len(load.versions) >= 20
    status = daemon.app("shop")
    assert (status["state"], status["ready"], len(status["instances"])) == ("running", 1, 1)
    _, answer = daemon.call("GET", "/v1/apps/shop/releases")
    assert len(answer["releases"]) <= 4  # the budget of releases, and the one that was built last


async def test_an_instance_that_is_killed_is_back_within_two_seconds_without_a_failed_request(project, up):
    project.app("shop")
    daemon = up()
    async with Load(daemon.door_port, "shop", 20, pause=0.01) as load:
        for _ in range(3):
            before = (await asyncio.to_thread(daemon.get, "shop"))[1]["pid"]
            import os
            import signal
            import time

            os.kill(before, signal.SIGKILL)
            began = time.monotonic()
            _, answer = await asyncio.to_thread(daemon.get, "shop")
            assert answer["pid"] != before
            assert time.monotonic() - began < 2.0
            await load.more(50)
            await asyncio.to_thread(
                until, lambda: daemon.app("shop")["instances"][0]["state"] == "healthy", what="health after a restart"
            )
            # A minute of health would make the next restart immediate too; a fresh instance does the same.
            await asyncio.to_thread(daemon.do, "shop", "restart")
    assert load.failures == Counter()
    assert load.slowest < 2.0


async def test_scale_restart_and_rollback_under_load(project, up):
    project.app("shop")
    daemon = up()
    async with Load(daemon.door_port, "shop", 20) as load:
        await asyncio.to_thread(daemon.do, "shop", "scale", {"replicas": 3})
        assert daemon.app("shop")["ready"] == 3
        pids = {(await asyncio.to_thread(daemon.get, "shop"))[1]["pid"] for _ in range(12)}
        assert len(pids) == 3
        project.version("shop", "2")
        first = (await asyncio.to_thread(daemon.do, "shop", "deploy"))["previous"]
        await asyncio.to_thread(daemon.do, "shop", "restart")
        assert not pids & {i["pid"] for i in daemon.app("shop")["instances"]}
        back = await asyncio.to_thread(daemon.do, "shop", "rollback")
        assert back["release"] == first
        assert daemon.get("shop")[1]["version"] == "1"
        await asyncio.to_thread(daemon.do, "shop", "scale", {"replicas": 1})
        await load.more(100)
    assert load.failures == Counter()
    assert daemon.app("shop")["ready"] == 1


async def test_recreate_holds_requests_and_never_runs_two_at_once(project, up):
    project.app("shop", "deploy: {strategy: recreate, drain: 5s, grace: 5s}")
    daemon = up()
    async with Load(daemon.door_port, "shop", 20) as load:
        for version in ("2", "3", "4"):
            project.version("shop", version)
            result = await asyncio.to_thread(daemon.do, "shop", "deploy")
            assert result["steps"][0].startswith("hold")
        await load.more(50)
    assert load.failures == Counter()
    life = [line for line in daemon.logged("shop") if line.startswith(("started", "stopped"))]
    assert life[:7] == ["started 1", "stopped 1", "started 2", "stopped 2", "started 3", "stopped 3", "started 4"]


async def test_a_failed_recreate_brings_the_old_release_back(project, up):
    project.app("shop", "deploy: {strategy: recreate, grace: 5s}")
    daemon = up()
    async with Load(daemon.door_port, "shop", 10) as load:
        project.app("shop", "deploy: {strategy: recreate, grace: 5s}\nenv: {FAIL: exit}", version="2")
        status, problem = await asyncio.to_thread(daemon.call, "POST", "/v1/apps/shop:deploy")
        assert status >= 400
        assert "exit 3" in problem["detail"]
        await load.more(50)
    assert load.failures == Counter()
    assert daemon.get("shop")[1]["version"] == "1"
    assert daemon.app("shop")["state"] == "degraded"


@pytest.mark.parametrize(
    ("fail", "seen"),
    [("exit", "exit 3"), ("health", "answered 500"), ("silent", "nothing listens on port")],
)
async def test_a_release_that_does_not_come_up_leaves_the_old_one_and_says_why(project, up, fail, seen):
    project.app("shop")
    daemon = up()
    async with Load(daemon.door_port, "shop", 10) as load:
        more = f"env: {{FAIL: {fail}}}\nhealth: {{path: /healthz, start_timeout: 1s}}"
        project.app("shop", more, version="2")
        status, problem = await asyncio.to_thread(daemon.call, "POST", "/v1/apps/shop:deploy")
        await load.more(20)
    assert status >= 400
    assert seen in problem["detail"]
    assert problem["log_lines"][-1] in {"cannot find my settings", "started 2"}
    assert load.failures == Counter()
    assert set(load.versions) == {"1"}
    app = daemon.app("shop")
    assert (app["state"], len(app["instances"])) == ("degraded", 1)
    assert seen in app["message"]


async def test_a_canary_that_errs_is_rolled_back_and_a_good_one_is_kept(project, up):
    canary = "deploy: {canary: {weight: 30, watch: 1s, max_error_rate: 0.2}}"
    project.app("shop", canary)
    daemon = up()
    async with Load(daemon.door_port, "shop", 10) as load:
        project.app("shop", f"{canary}\nenv: {{STATUS: '503'}}", version="2")
        status, problem = await asyncio.to_thread(daemon.call, "POST", "/v1/apps/shop:deploy")
        assert status >= 400
        assert "was rolled back" in problem["detail"]
        await asyncio.sleep(0)
        seen = sum(n for kind, n in load.failures.items() if kind.startswith("503"))
        assert seen == sum(load.failures.values()) > 0  # the canary's own answers, and only a share of all
        assert seen < len(load.answered)
        load.failures.clear()

        project.app("shop", canary, version="3")
        result = await asyncio.to_thread(daemon.do, "shop", "deploy")
        assert any("30 % of requests" in step for step in result["steps"])
        await load.more(50)
    assert load.failures == Counter()
    assert daemon.get("shop")[1]["version"] == "3"


def test_a_plan_says_what_would_happen_and_touches_nothing(project, up):
    project.app("shop")
    daemon = up()
    before = daemon.app("shop")
    project.version("shop", "2")
    result = daemon.do("shop", "deploy", {"plan": True})
    assert result["planned"]
    assert [step.split()[0] for step in result["steps"]] == ["start", "wait", "route", "let", "stop"]
    after = daemon.app("shop")
    assert [i["pid"] for i in after["instances"]] == [i["pid"] for i in before["instances"]]
    assert daemon.get("shop")[1]["version"] == "1"
    assert not daemon.do("shop", "restart")["planned"]


def test_a_changed_environment_is_a_new_release_and_no_change_is_none(project, up):
    project.app("shop", "env: {COLOUR: teal}")
    daemon = up()
    assert daemon.get("shop")[1]["colour"] == "teal"
    assert not daemon.do("shop", "deploy")["changed"]
    project.app("shop", "env: {COLOUR: ochre}")
    assert daemon.do("shop", "deploy")["changed"]
    assert daemon.get("shop")[1]["colour"] == "ochre"
