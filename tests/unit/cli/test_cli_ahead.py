"""When `fairway up` starts a worker of the door before its command line is loaded, and when not."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from fairway.cli import ahead, entry, plain
from fairway.platform.layout import Layout


class Recorded:
    """Stands in for a spare worker."""

    def __init__(self, marker: str) -> None:
        self.marker = marker


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project whose last daemon has ended in order, with the current folder below it."""
    monkeypatch.setattr("fairway.run.spare.Spare", Recorded)
    monkeypatch.delenv("FAIRWAY_STATE_DIR", raising=False)
    monkeypatch.delenv("FAIRWAY_PROJECT", raising=False)
    layout = Layout(tmp_path / "project" / ".fairway")
    layout.create()
    layout.lock.touch()
    below = tmp_path / "project" / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    return layout


def started(*arguments: str) -> str | None:
    ahead.begin(arguments)
    spare = ahead.take_spare()
    assert ahead.take_spare() is None
    return spare.marker if spare is not None else None


@pytest.mark.parametrize("arguments", [["up"], ["up", "shop", "--listen", ":80"], ["up", "--background", "--", "shop"]])
def test_a_daemon_gets_a_worker(layout: Layout, arguments: list[str]) -> None:
    assert started(*arguments) == layout.door_marker(0)


@pytest.mark.parametrize("option", ["-C", "--project"])
def test_of_the_project_that_is_named(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir("/")
    assert started(option, str(tmp_path / "project"), "up") == layout.door_marker(0)
    assert started(option, str(tmp_path / "nowhere"), "up") is None
    assert started(option) is None
    assert started("up") is None


@pytest.mark.parametrize(
    "arguments", [[], ["ps"], ["logs", "up"], ["up", "-d"], ["up", "--detach"], ["up", "--help"], ["up", "-h"]]
)
def test_nothing_else_does(layout: Layout, arguments: list[str]) -> None:
    assert started(*arguments) is None


def test_beside_a_daemon_or_after_a_crash_none_is_started(layout: Layout) -> None:
    layout.lock.write_text("4711 http://127.0.0.1:7070\n")
    assert started("up") is None


def test_before_the_first_start_none_is_started(layout: Layout) -> None:
    layout.lock.unlink()
    assert started("up") is None


def test_the_project_of_the_environment_counts(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("FAIRWAY_PROJECT", str(tmp_path / "project"))
    assert started("up") == layout.door_marker(0)
    assert started("-C", str(tmp_path / "nowhere"), "up") is None


def test_a_current_folder_that_is_gone_is_the_commands_to_tell(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert started("up") is None


@pytest.mark.parametrize(
    ("arguments", "collects"),
    [
        (["up"], False),
        (["-C", "up", "up", "shop"], False),
        (["up", "-d"], True),
        (["logs", "-f", "up"], True),
        (["-C", "up", "worker", "tasks"], True),
    ],
)
def test_the_collector_rests_for_a_daemon_alone(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], collects: bool
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("fairway.cli.main.main", lambda: seen.append(gc.isenabled()))
    monkeypatch.setattr(ahead, "begin", lambda _: None)
    monkeypatch.setattr(plain, "run", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["fairway", *arguments])
    try:
        entry.main()
    finally:
        gc.enable()
    assert seen == [collects]
