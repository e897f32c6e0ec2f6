"""Apps beside one another: a broken one changes nothing for the others, dependencies and files are followed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from whole_fairway import Daemon, until

pytestmark = pytest.mark.e2e


def test_broken_apps_change_nothing_for_the_one_that_is_well(project, up):
    project.app("well")
    project.app("exits", "env: {FAIL: exit}")
    project.app("silent", "env: {FAIL: silent}\nhealth: {path: /healthz, start_timeout: 1s}")
    project.app("unbuilt", "build: [[/bin/sh, -c, 'echo no such compiler; exit 9']]")
    project.entry("nonsense", "name: [this, is\n  not: yaml")
    project.entry("stranger", "name: stranger\nsource: ../../apps/well\ncommand: ./server\ncolour: blue\n")
    daemon = up()
    assert daemon.get("well")[0] == 200
    states = {a["name"]: a for a in daemon.call("GET", "/v1/apps")[1]["apps"]}
    assert states["well"]["state"] == "running"
    assert {n: states[n]["state"] for n in ("exits", "silent", "unbuilt")} == dict.fromkeys(
        ("exits", "silent", "unbuilt"), "failed"
    )
    assert "exit 3" in states["exits"]["message"]
    assert "nothing listens on port" in states["silent"]["message"]
    assert states["unbuilt"]["message"]
    assert daemon.get("exits")[0] == 503
    # Mended, it comes up by one deploy.
    project.app("exits")
    assert daemon.do("exits", "deploy")["changed"]
    assert daemon.get("exits")[0] == 200


def test_dependencies_come_first_and_a_circle_is_named(project, up):
    project.app("first")
    project.app("second", "depends_on: [first]")
    project.app("third", "depends_on: [second]")
    project.app("ouro", "depends_on: [boros]")
    project.app("boros", "depends_on: [ouro]")
    project.app("lonely", "depends_on: [fails]")
    project.app("fails", "env: {FAIL: exit}")
    daemon = up()
    started = {name: daemon.app(name)["instances"][0]["started_at"] for name in ("first", "second", "third")}
    assert started["first"] < started["second"] < started["third"]
    shown = {a["name"]: a["message"] for a in daemon.call("GET", "/v1/apps")[1]["apps"]}
    assert shown.get("ouro") is None or "ouro" in shown["ouro"]
    assert daemon.app("lonely")["state"] == "blocked"
    assert "fails" in shown["lonely"]
    # What it waited for comes up: so does it, by itself.
    project.app("fails")
    daemon.do("fails", "deploy")
    until(lambda: daemon.app("lonely")["state"] == "running", what="the app that waited")


def test_a_crashing_app_is_restarted_for_ever_with_growing_pauses(project, up):
    project.app("shop")
    daemon = up()
    for _ in range(2):
        (instance,) = daemon.app("shop")["instances"]
        os.kill(instance["pid"], signal.SIGKILL)
        until(
            lambda old=instance: daemon.app("shop")["instances"][0]["restarts"] == old["restarts"] + 1, what="restart"
        )
        until(lambda: daemon.app("shop")["state"] == "running", what="health")
    lines = [line for line in daemon.logged("shop") if line.startswith("fairway:")]
    assert "(SIGKILL), restart 1 now" in lines[0]
    assert "(SIGKILL), restart 2 in 0." in lines[1]


def test_an_unhealthy_instance_gets_no_requests_until_it_is_well_again(project, up):
    project.app("shop", "replicas: 2\nhealth: {path: /healthz, interval: 500ms, rise: 1, fall: 2}")
    daemon = up()
    sick, well = (i["pid"] for i in daemon.app("shop")["instances"])
    mark = Path(f"/proc/{sick}/cwd/sick-{sick}")
    mark.touch()
    until(lambda: daemon.app("shop")["ready"] == 1, what="the verdict")
    assert daemon.app("shop")["state"] == "degraded"
    until(
        lambda: {daemon.get("shop")[1]["pid"] for _ in range(8)} == {well}, what="all requests to the one that is well"
    )
    mark.unlink()
    until(lambda: daemon.app("shop")["ready"] == 2, what="recovery")
    until(lambda: {daemon.get("shop")[1]["pid"] for _ in range(8)} == {sick, well}, what="both again")


def test_registry_files_are_watched(project, up):
    project.app("shop")
    daemon = up(options=("--watch",))
    project.app("other")
    until(lambda: _state(daemon, "other") == "running", what="a new app")
    project.app("shop", "env: {COLOUR: plum}")
    until(lambda: daemon.get("shop")[1].get("colour") == "plum", what="a changed app")
    project.entry("shop", "name: shop\nsource: [\n")
    until(lambda: daemon.app("shop")["message"], what="word of the broken file")
    assert daemon.get("shop")[0] == 200
    (project.registry / "other.yaml").unlink()
    until(lambda: _state(daemon, "other") is None, what="a removed app")
    until(lambda: daemon.get("other")[0] == 404, what="a door that knows it no more")


def _state(daemon: Daemon, name: str) -> str | None:
    status, app = daemon.call("GET", f"/v1/apps/{name}")
    return app["state"] if status == 200 else None


def test_a_stopped_app_stays_stopped_over_a_restart_of_the_daemon(project, up):
    project.app("shop")
    daemon = up()
    daemon.do("shop", "stop")
    assert daemon.get("shop")[0] == 503
    daemon.kill()
    daemon.start()
    assert daemon.app("shop")["state"] == "stopped"
    daemon.do("shop", "start")
    assert daemon.get("shop")[0] == 200


def test_an_unknown_app_names_the_nearest(project, up):
    project.app("shop")
    daemon = up()
    status, problem = daemon.call("POST", "/v1/apps/shpo:restart")
    assert status == 404
    assert "'shop'" in problem["hint"]


def test_two_daemons_a_taken_port_and_a_stale_socket(project, up):
    project.app("shop")
    daemon = up()
    second = _run(Daemon(project))
    assert second.returncode != 0
    assert str(daemon.process.pid) in second.stdout
    daemon.kill()  # leaves its sockets and its lock file behind
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        elsewhere = Daemon(project)
        elsewhere.door_port = taken.getsockname()[1]
        refused = _run(elsewhere)
        assert refused.returncode != 0
        assert str(elsewhere.door_port) in refused.stdout
        assert str(os.getpid()) in refused.stdout
        assert daemon.get("shop")[0] == 200  # what runs was left alone
    daemon.start()
    assert daemon.get("shop")[0] == 200


def _run(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    words = ("--listen", f"127.0.0.1:{daemon.door_port}", "--api", f"127.0.0.1:{daemon.api_port}", "--no-watch")
    return subprocess.run(
        daemon.words("up", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )


def test_secrets_reach_the_app_and_nothing_else(project, up):
    project.app("shop", "secrets: [COLOUR]")
    daemon = up(env={"COLOUR": "hunter2-in-teal"})
    assert daemon.get("shop")[1]["colour"] == "hunter2-in-teal"
    shown = [daemon.said(), *daemon.logged("shop"), *daemon.logged("_fairway"), str(daemon.call("GET", "/v1/apps"))]
    assert not any("hunter2" in text for text in shown)
    for path in daemon.state.rglob("*"):
        if path.is_file() and b"hunter2" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path


def test_an_app_stopped_with_grandchildren_leaves_none(project, up):
    project.app("shop")
    server = project.root / "apps" / "shop" / "server"
    child = "import subprocess; subprocess.Popen(['sleep', '4711.25'], start_new_session=True, env={})\n"
    server.write_text(child + server.read_text())
    daemon = up()
    assert _sleepers()
    daemon.do("shop", "stop")
    until(lambda: not _sleepers(), 5, what="the end of the grandchild")


def _sleepers() -> str:
    return subprocess.run(["pgrep", "-f", "sleep 4711.25"], capture_output=True, text=True, check=False).stdout


def test_a_cold_start_is_quick(project, up):
    project.app("shop")
    began = time.monotonic()
    daemon = up()
    assert daemon.get("shop")[0] == 200
    assert time.monotonic() - began < 15


def test_a_compose_app_without_an_engine_is_told_so_and_the_others_go_on(project, up):
    project.app("shop")
    compose = project.root / "apps" / "boxed" / "docker-compose.yml"
    compose.parent.mkdir(parents=True)
    compose.write_text("services: {web: {image: example, ports: ['8009:80']}}\n")
    entry = "name: boxed\ncompose_file: ../../apps/boxed/docker-compose.yml\nbackend: {port: 8009}\n"
    project.entry("boxed", entry)
    # No engine on PATH, whatever this machine has.
    bare = project.root / "bin"
    bare.mkdir()
    daemon = up(env={"PATH": str(bare)})
    assert daemon.get("shop")[0] == 200
    app = daemon.app("boxed")
    assert app["state"] == "failed"
    assert "docker" in app["message"].lower()
