"""The commands against a daemon of their own: a project with one small app, from `add` to `down`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from cli_project import APP, Project, until

pytestmark = pytest.mark.integration


def test_from_an_empty_folder_to_a_served_app_and_back(project: Project) -> None:
    project.add("hello")
    shown = project.fairway("up", "-d", *project.listen)
    assert f"http://hello.localhost:{project.door}" in shown
    assert project.get("/x") == {"service": "hello", "path": "/x"}

    (app,) = project.json("ps")
    assert (app["name"], app["state"], app["ready"]) == ("hello", "running", 1)
    assert "hello" in project.fairway("ps")
    assert "web.1" in project.fairway("ps", "-a", "hello")
    until(lambda: project.json("health")["targets"][0]["state"] == "healthy")
    assert project.json("health")["healthy"]

    until(lambda: "path=/x" in project.fairway("logs"))
    assert "listening" in project.fairway("logs", "hello", "--grep", "^listening$", "--raw")
    assert (
        project.fairway("run", "hello", "--", "python", "-c", "import os; print(os.environ['FAIRWAY_APP'])")
        == "hello\n"
    )
    asked = "import os, urllib.request as r; u, t = os.environ['FAIRWAY_URL'], os.environ['FAIRWAY_TOKEN']; "
    asked += "q = r.Request(u + '/v1/queues', headers={'Authorization': 'Bearer ' + t}); print(r.urlopen(q).status)"
    assert project.fairway("run", "hello", "--", "python", "-c", asked) == "200\n"

    assert project.json("deploy", "hello", "--plan")["planned"]
    assert not project.json("deploy", "hello")["changed"]
    (project.root / "hello" / "main.py").write_text(APP.replace('"path": self.path}', '"path": "new"}', 1))
    first = project.json("releases", "hello")[0]["id"]
    assert project.json("deploy", "hello")["changed"]
    assert project.get("/x")["path"] == "new"
    assert project.json("rollback", "hello")["release"] == first
    assert project.get("/x")["path"] == "/x"
    assert project.json("scale", "hello", "2")["action"] == "scale"
    assert project.json("ps")[0]["ready"] == 2
    project.fairway("stop", "hello")
    assert project.json("ps")[0]["state"] == "stopped"
    status, retry, page = project.refused("hello")
    assert (status, retry) == (503, "5")
    assert "hello is stopped. `fairway start hello` starts it." in page
    assert project.refused("nobody")[0] == 404
    project.fairway("up", "-d")  # as `up` in the foreground: what was stopped stays so until it is named
    assert project.json("ps")[0]["state"] == "stopped"
    assert "running" in project.fairway("up", "-d", "hello")
    project.fairway("up", "-d", "nobody", status=4)
    project.fairway("health", "nobody", status=4)
    project.fairway("restart", "hello")
    project.fairway("deploy", "nobody", status=4)
    assert (project.root / ".fairway/run/api.sock").stat().st_mode & 0o777 == 0o600
    assert (project.root / ".fairway/token").stat().st_mode & 0o777 == 0o600

    _check_tcp(project)
    project.fairway("up", *project.listen, status=5)  # a second daemon
    assert project.fairway("down") == "Stopped.\n"
    project.fairway("ps", status=3)
    env = project.fairway("run", "hello", "--", "env")
    assert "FAIRWAY_APP=hello" in env
    assert "FAIRWAY_URL" not in env
    assert project.fairway("down").startswith("Nothing runs")
    project.fairway("up", "-d", "nobody", *project.listen, status=4)


def test_a_broken_app_fails_loudly_and_alone(project: Project) -> None:
    project.add("hello")
    project.add("broken", "import sys; print('about to', flush=True); sys.exit('no database')")
    shown = project.fairway("up", "-d", *project.listen, status=1)
    assert "| no database" in shown
    told = project.json("up", "-d", *project.listen, status=1)
    assert {app["name"]: app["state"] for app in told["apps"]} == {"hello": "running", "broken": "failed"}
    assert project.get("/")["service"] == "hello"
    status, retry, page = project.refused("broken")
    assert (status, retry) == (503, "5")
    assert "broken has failed. `fairway ps` says why" in page


def test_a_request_for_an_app_that_is_starting_waits_for_it(project: Project) -> None:
    project.add("hello", APP.replace('print("listening"', 'import time; time.sleep(1.5); print("listening"'))
    with (project.root / "up.out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fairway", "up", *project.listen], cwd=project.root, env=project.env, stdout=out
        )
    try:
        until(lambda: _starts(project))
        assert project.get("/x") == {"service": "hello", "path": "/x"}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _starts(project: Project) -> bool:
    """Whether the app's process runs: its log is there."""
    return any((project.root / ".fairway/logs/hello").glob("web.*.log"))


def test_how_to_mend_a_failed_build_is_said(project: Project) -> None:
    project.add("hello")
    project.env["PATH"] = "/usr/bin:/bin"
    project.env["DOTNET_ROOT"] = str(project.root / "none")
    folder = project.root / "sharp"
    folder.mkdir()
    framework = "<PropertyGroup><TargetFramework>net8.0</TargetFramework></PropertyGroup>"
    (folder / "sharp.csproj").write_text(f'<Project Sdk="Microsoft.NET.Sdk.Web">{framework}</Project>\n')
    project.fairway("add", "./sharp")
    shown = project.fairway("up", "-d", *project.listen, status=1)
    message = next(app["message"] for app in project.json("ps") if app["name"] == "sharp")
    _, _, fix = message.partition("\nfix: ")
    assert ".NET" in fix, message
    assert f"  fix: {fix}" in shown
    assert f"  fix: {fix}" in project.fairway("ps")


def test_killed_and_started_again_no_line_is_lost_and_down_finds_the_orphans(project: Project) -> None:
    project.add("hello")
    project.fairway("up", "-d", *project.listen)
    pid = project.daemon
    os.kill(pid, signal.SIGKILL)
    for n in range(20):
        assert project.get(f"/gap-{n}")["path"] == f"/gap-{n}"
    seen = [line for line in project.fairway("logs", "--json", "--since", "1m").splitlines() if "/gap-" in line]
    assert len(seen) == 20
    project.fairway("up", "-d", *project.listen)
    assert project.daemon != pid
    assert project.json("ps", "-a")[0]["instances"][0]["number"] == 1
    seen = [
        json.loads(line)["text"]
        for line in project.fairway("logs", "--json", "--since", "1m", "--grep", "gap").splitlines()
    ]
    # The app answers before it logs, a thread a request: two lines may change places, but none is missing or twice.
    assert sorted(json.loads(text)["path"] for text in seen) == sorted(f"/gap-{n}" for n in range(20))
    os.kill(project.daemon, signal.SIGKILL)
    assert "an earlier one left behind" in project.fairway("down")


def test_the_foreground_drains_at_the_first_interrupt(project: Project) -> None:
    project.add("hello")
    command = [sys.executable, "-m", "fairway", "up", *project.listen]
    up = subprocess.Popen(
        command, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert up.stdout is not None
    lines = []
    for line in up.stdout:
        lines.append(line)
        if "Ctrl-C stops everything" in line:
            break
    else:
        pytest.fail("".join(lines))
    assert project.get("/")["service"] == "hello"
    up.send_signal(signal.SIGINT)
    rest = up.stdout.read()
    assert up.wait(30) == 0, rest
    assert "Draining and stopping" in rest
    assert rest.endswith("Stopped.\n")
    up.stdout.close()
    assert project.fairway("down").startswith("Nothing runs")


def test_a_second_interrupt_kills_what_does_not_end(project: Project) -> None:
    project.add("hello", APP.replace("lambda *_: os._exit(0)", "signal.SIG_IGN"))
    command = [sys.executable, "-m", "fairway", "up", "--workers=2", *project.listen]
    up = subprocess.Popen(
        command, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert up.stdout is not None
    seen: list[list[int]] = []
    for awaited in ("Ctrl-C stops everything", "Ctrl-C again stops at once"):
        line = next((line for line in up.stdout if awaited in line), None)
        assert line is not None, f"it never said {awaited!r}"
        seen.append(project.processes())
        up.send_signal(signal.SIGINT)
    for _ in range(5):  # a person in a hurry
        up.send_signal(signal.SIGINT)
    assert "Killed" in up.stdout.read()
    assert up.wait(30) == 130
    assert len(seen[0]) >= 3, "two workers of the door and the app"
    assert project.processes() == []
    with socket.socket() as again:
        again.bind(("127.0.0.1", project.door))
    up.stdout.close()
    assert project.fairway("down").startswith("Nothing runs")


def test_up_without_names_starts_what_up_with_a_name_has_left_out(project: Project) -> None:
    for name in ("first", "second", "third"):
        project.add(name)
    project.fairway("up", "-d", "first", *project.listen)
    assert [app["state"] for app in project.json("ps")] == ["running", "stopped", "stopped"]
    project.fairway("stop", "third")
    shown = project.fairway("up", "-d")
    assert [app["state"] for app in project.json("ps")] == ["running", "running", "stopped"]
    assert "`fairway start third` starts it" in shown
    assert project.get("/x", "second")["service"] == "second"
    # As a daemon does that has just been started.
    project.fairway("down")
    assert "`fairway start third` starts it" in project.fairway("up", "-d", *project.listen)
    assert [app["state"] for app in project.json("ps")] == ["running", "running", "stopped"]
    project.fairway("down")


def _check_tcp(project: Project) -> None:
    """The API over TCP: a token is needed; logs follow as events; health and metrics answer."""
    base = f"http://127.0.0.1:{project.api}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{base}/v1/apps", timeout=5)
    token = (project.root / ".fairway/token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(f"{base}/metrics", headers=headers), timeout=5) as answer:
        text = answer.read().decode()
    assert 'fairway_app_ready{app="hello"} 2.0' in text
    follow = urllib.request.Request(f"{base}/v1/logs?follow&app=hello&tail=0", headers=headers)
    with urllib.request.urlopen(follow, timeout=10) as events:
        while not events.readline().startswith(b"event: live"):
            pass
        project.get("/followed")
        for line in events:
            if line.startswith(b"data:") and b"followed" in line:
                break
