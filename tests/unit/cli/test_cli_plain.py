"""What is read without Click is what Click reads, and whatever is not plain is left to it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fairway.cli import entry, main, plain, starting
from fairway.cli.project import Project
from fairway.cli.upoptions import UpOptions

Started = tuple[Project, UpOptions]

PLAIN = [
    "up",
    "up shop",
    "up shop cart",
    "up --listen 0.0.0.0:80 --api :7071 shop",
    "up shop --listen=[::1]:8081 cart",
    "up --listen 80 --listen 81",
    "up --workers 4 --access-log 0.25",
    "up --access-log=off --no-watch --background",
    "up --no-watch --watch",
    "up -- --listen",
    "up --listen=127.0.0.1:8080 --api=127.0.0.1:7070 --workers=1 --watch --access-log=1 -- shop",
    "-C . up",
    "--project . up shop",
]
NOT_PLAIN = [
    "",
    "ps",
    "logs up",
    "-C",
    "-C nowhere up",
    "up -d",
    "up --json",
    "up --help",
    "up --tls",
    "up --trusted 10.0.0.0/8",
    "up --listen",
    "up --listen -1",
    "up --listen --api :1",
    "up --listen=",
    "up --listen x:y",
    "up --listen 1.2.3.4:65536",
    "up --workers 0",
    "up --workers 65",
    "up --workers +1",
    "up --access-log 1.5",
    "up --access-log nan",
    "up --watch=yes",
    "up --lis 80",
    "up -",
]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """What `start` was called with, in a folder that is a project."""
    calls: list[Started] = []

    def start(project: Project, told: UpOptions) -> int:
        calls.append((project, told))
        return 0

    monkeypatch.setattr(starting, "start", start)
    monkeypatch.delenv("FAIRWAY_PROJECT", raising=False)
    (tmp_path / "compose" / "app-registry").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return calls


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C as at the start of a process; afterwards as it was."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


@pytest.mark.parametrize("line", PLAIN)
def test_plain_arguments_are_read_as_click_reads_them(started: list[Started], line: str) -> None:
    assert plain.run(line.split()) == 0
    assert main.run(line.split()) == 0
    without, with_click = started
    assert without == with_click


@pytest.mark.parametrize("line", NOT_PLAIN)
def test_everything_else_is_left_to_click(started: list[Started], line: str) -> None:
    assert plain.run(line.split()) is None
    assert started == []


def test_an_empty_name_of_an_app_is_left_to_click(started: list[Started]) -> None:
    assert plain.run(["up", ""]) is None


def test_the_words_of_a_daemon_in_the_background_are_plain(started: list[Started]) -> None:
    told = UpOptions(apps=("shop",), listen=("::1", 80), access_log=None, watch=False, workers=2)
    assert plain.read(["up", "--background", *told.words()]) == (None, UpOptions(
        apps=("shop",), listen=("::1", 80), access_log=None, watch=False, workers=2, background=True,
    ))  # fmt: skip


def test_the_project_of_the_environment_counts(
    started: list[Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("FAIRWAY_PROJECT", str(elsewhere))
    assert plain.run(["up"]) == 0
    assert main.run(["up"]) == 0
    assert started[0] == started[1]
    assert started[0][0].root == elsewhere
    monkeypatch.setenv("FAIRWAY_PROJECT", str(tmp_path / "nowhere"))
    assert plain.run(["up"]) is None


def test_completion_is_clicks(started: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_FAIRWAY_COMPLETE", "bash_complete")
    assert plain.run(["up"]) is None


def test_an_error_is_told_as_ever(
    started: list[Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    said: list[Any] = []
    for run in (plain.run, main.run):
        said.append((run(["-C", str(tmp_path), "up"]), capsys.readouterr().err))
    assert said[0] == said[1]
    assert said[0][0] == 2
    assert "There is no app" in said[0][1]


def test_a_plain_daemon_never_loads_the_command_line(started: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.cli.ahead.begin", lambda _: None)
    monkeypatch.setattr("fairway.cli.main.main", lambda: pytest.fail("it was loaded"))
    monkeypatch.setattr(sys, "argv", ["fairway", "up", "shop"])
    monkeypatch.setattr("gc.disable", lambda: None)
    with interruptible(), pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 0
    assert started[0][1].apps == ("shop",)


def test_ctrl_c_ends_a_daemon_that_loads_by_its_signal(started: list[Started], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    monkeypatch.setattr("fairway.cli.ahead.begin", lambda _: None)
    monkeypatch.setattr("gc.disable", lambda: None)
    monkeypatch.setattr(plain, "run", lambda _: found.append(signal.getsignal(signal.SIGINT)))
    monkeypatch.setattr("fairway.cli.main.main", lambda: found.append(signal.getsignal(signal.SIGINT)))
    monkeypatch.setattr(sys, "argv", ["fairway", "up", "--tls"])
    with interruptible():
        entry.main()
        assert found == [signal.SIG_DFL, signal.default_int_handler]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        entry.main()
        assert found[2:] == [signal.SIG_IGN, signal.SIG_IGN]
