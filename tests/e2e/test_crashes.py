"""Crash-only: the daemon is killed with SIGKILL, and neither a request nor a log line is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter

import pytest
from whole_fairway import Load, until

from fairway.run import proctable

pytestmark = pytest.mark.e2e


def alive(pid: int) -> bool:
    entry = proctable.read_entry(pid)
    return entry is not None and entry.state != "Z"


def served(daemon, app: str) -> Counter[str]:
    found = (re.fullmatch(r"served (\S+)", line) for line in daemon.logged(app))
    return Counter(m[1] for m in found if m)


async def test_the_daemon_killed_under_load_loses_no_request_and_no_line_and_adopts_what_runs(project, up):
    project.app("shop", "replicas: 2")
    daemon = up()
    async with Load(daemon.door_port, "shop", 20) as load:
        before = {i["id"]: i["pid"] for i in daemon.app("shop")["instances"]}
        for _ in range(2):
            await load.more(50)
            await asyncio.to_thread(daemon.kill)
            await load.more(50)  # nobody but the door and the instances is there
            await asyncio.to_thread(daemon.start)
            after = {i["id"]: i["pid"] for i in daemon.app("shop")["instances"]}
            assert after == before
            assert daemon.app("shop")["state"] == "running"
        # An adopted instance is supervised as any other, and an adopted door takes new routes.
        os.kill(next(iter(before.values())), signal.SIGKILL)
        await asyncio.to_thread(until, lambda: daemon.app("shop")["ready"] == 2, what="two instances again")
        project.version("shop", "2")
        await asyncio.to_thread(daemon.do, "shop", "deploy")
        await load.more(50)
    assert load.failures == Counter()
    assert load.versions["2"] > 0
    # Each answer's line is in the log; a request that was sent again, because its instance was killed, may be twice.
    missing = set(load.answered) - served(daemon, "shop").keys()
    assert not missing


async def test_a_deploy_that_was_interrupted_is_finished_or_undone_by_the_next_daemon(project, up):
    project.app("shop")
    daemon = up()
    async with Load(daemon.door_port, "shop", 10) as load:
        moments = {  # when the daemon is killed: at once, with the new instance beside the old, after the swap
            "2": lambda: True,
            "3": lambda: "started 3" in daemon.logged("shop"),
            "4": lambda: load.versions["4"] > 0,
        }
        for version, moment in moments.items():
            project.version("shop", version)
            deploying = asyncio.create_task(asyncio.to_thread(_try, daemon))
            await asyncio.to_thread(until, moment, what=f"the moment in the deploy of {version}")
            await asyncio.to_thread(daemon.kill)
            await deploying
            await load.more(20)
            await asyncio.to_thread(daemon.start)
            await asyncio.to_thread(until, lambda: daemon.app("shop")["state"] == "running", what="running again")
            await load.more(20)
    assert load.failures == Counter()
    assert daemon.get("shop")[1]["version"] == "4"
    # Whatever the crashes left half done is gone: one instance, and no stranger of this project beside it.
    until(lambda: _processes_of(daemon, "shop") == {i["pid"] for i in daemon.app("shop")["instances"]}, what="tidiness")
    assert len(daemon.app("shop")["instances"]) == 1


def _try(daemon) -> None:
    try:
        daemon.call("POST", "/v1/apps/shop:deploy", timeout=20)
    except OSError:
        return  # the daemon was killed while it answered


def _processes_of(daemon, app: str) -> set[int]:
    from fairway.platform.host import Host
    from fairway.platform.layout import Layout

    owner = Host(Layout(daemon.state), None).owner
    return set(proctable.marked(proctable.snapshot(), f"{owner}/{app}/"))


def test_what_died_while_no_daemon_ran_is_started_again(project, up):
    project.app("shop")
    daemon = up()
    (instance,) = daemon.app("shop")["instances"]
    daemon.kill()
    os.kill(instance["pid"], signal.SIGKILL)
    daemon.start()
    (again,) = daemon.app("shop")["instances"]
    assert again["pid"] != instance["pid"]
    assert daemon.get("shop")[0] == 200


def test_a_door_that_dies_is_replaced_and_one_that_hangs_is_not_adopted(project, up):
    project.app("shop")
    daemon = up()
    (door,) = _processes_of(daemon, "_fairway")
    os.kill(door, signal.SIGKILL)
    until(lambda: _answers(daemon), what="a new door")
    assert _processes_of(daemon, "_fairway").isdisjoint({door})
    (door,) = _processes_of(daemon, "_fairway")
    daemon.kill()
    os.kill(door, signal.SIGSTOP)
    daemon.start()
    assert daemon.get("shop")[0] == 200
    assert not alive(door)


def _answers(daemon) -> bool:
    try:
        return daemon.get("shop")[0] == 200
    except OSError:
        return False


async def test_one_of_two_door_workers_dies_and_the_other_goes_on(project, up):
    project.app("shop")
    daemon = up(options=("--no-watch", "--workers", "2"))
    doors = _processes_of(daemon, "_fairway")
    assert len(doors) == 2
    victim = min(doors)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(_processes_of(daemon, "_fairway") - {victim}) == 2, what="a second worker again")
    async with Load(daemon.door_port, "shop", 10) as load:
        await load.more(50)
    assert load.failures == Counter()


def test_ctrl_c_stops_everything_and_leaves_nothing(project, up):
    project.app("shop", "replicas: 2")
    daemon = up()
    pids = {i["pid"] for i in daemon.app("shop")["instances"]} | _processes_of(daemon, "_fairway")
    assert len(pids) == 3
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10
    assert not any(alive(pid) for pid in pids)
    assert [line for line in daemon.logged("shop") if line.startswith("stopped")] == ["stopped 1", "stopped 1"]
