"""A daemon that is interrupted before it has the state folder ends nothing of the one that runs there."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from fairway.cli import foreground
from fairway.cli.project import Project
from fairway.platform.config import DaemonConfig
from fairway.platform.lock import DaemonLock
from fairway.run import environment

pytestmark = pytest.mark.integration

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"


def interrupted(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project in which Ctrl-C comes at once; the signals of this process are put back afterwards."""
    monkeypatch.delenv("FAIRWAY_STATE_DIR", raising=False)
    monkeypatch.setattr(foreground, "_run", interrupted)
    monkeypatch.setattr("fairway.telemetry.log.configure", lambda **_: None)
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    project = Project(tmp_path, found=True)
    project.layout.create()
    yield project
    for number, handler in earlier.items():
        signal.signal(number, handler)


def run(project: Project) -> int:
    return foreground.run(project, DaemonConfig(project.registry, project.layout.root), background=True)


def instance(project: Project) -> subprocess.Popen[str]:
    env = environment.of_module(f"{project.layout.owner}/shop/web.1.0")
    argv = [sys.executable, "-S", "-c", WAITS]
    process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_what_another_daemon_runs_is_left_alone(project: Project) -> None:
    with DaemonLock(project.layout.lock) as lock, instance(project) as process:
        lock.write("http://127.0.0.1:7070")
        said = project.layout.lock.read_text()
        assert run(project) == 0
        assert process.poll() is None
        assert project.layout.lock.read_text() == said
        process.communicate()
        assert process.returncode == 0


def test_what_this_one_has_started_is_ended(project: Project) -> None:
    with instance(project) as process:
        assert run(project) == 130
        assert process.wait(10) == -signal.SIGTERM or process.returncode == -signal.SIGKILL


def test_before_there_is_a_state_folder_there_is_nothing_to_end(tmp_path: Path, project: Project) -> None:
    assert run(Project(tmp_path / "new", found=False)) == 0
    assert not (tmp_path / "new").exists()
