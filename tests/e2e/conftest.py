"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported by path; what they share is a module

from whole_fairway import Daemon, Project  # needs the line above


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


@pytest.fixture
def up(project: Project) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons on the project, and ends them with the test."""
    started: list[Daemon] = []

    def start(
        *, env: dict[str, str] | None = None, options: tuple[str, ...] = ("--no-watch",), wait: bool = True
    ) -> Daemon:
        daemon = Daemon(project, env=env, options=options)
        started.append(daemon)
        return daemon.start(wait=wait)

    yield start
    for daemon in started:
        daemon.stop()
