"""When `fairway up` starts a worker of the door before its command line is loaded, and when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.cli import ahead
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
