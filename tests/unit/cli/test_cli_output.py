"""Tables, colours, progress."""

from __future__ import annotations

import io
from typing import Any

import pytest

from fairway.cli import output
from fairway.cli.progress import ProgressView
from fairway.cli.watching import while_drawing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("APP", "STATE"), [("go-api", "running"), ("日本", "x\x1b[2J"), ("e\u0301", "")])
    assert capsys.readouterr().out.splitlines() == [
        "APP     STATE",
        "go-api  running",
        "日本    x\\x1b[2J",
        "e\u0301",
    ]


@pytest.mark.parametrize(
    ("env", "expected"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False)],
)
def test_colours_vanish(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: bool) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert output.coloured(Terminal()) is expected
    assert output.coloured(io.StringIO()) is False


def test_colours_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert output.paint("x", "red") == "\x1b[31mx\x1b[0m"
    assert output.width(output.paint("running", "green")) == 7


@pytest.mark.parametrize(
    ("then", "shown"), [(None, "-"), (100.0, "0s"), (40.0, "60s"), (-50.0, "2m"), (-20_000.0, "6h"), (-1e6, "12d")]
)
def test_ages(then: float | None, shown: str) -> None:
    assert output.ago(then, 100.0) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(None, "-"), (0, "0 B"), (2048, "2 KiB"), (48_234_496, "46 MiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes(count: int | None, shown: str) -> None:
    assert output.size(count) == shown


def test_progress_without_a_terminal_is_a_line_a_phase() -> None:
    stream = io.StringIO()
    view = ProgressView(stream)
    for message in ("pip one", "pip two"):
        view.update("a", "build", message)
    view.update("b", "queued", "")
    view.update("a", "failed", "no \x1b[2J")
    view.draw()
    view.finish()
    assert stream.getvalue() == "a: building: pip one\nb: waiting\na: failed: no \\x1b[2J\n"


def test_progress_on_a_terminal_redraws_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    view = ProgressView(stream)
    view.update("go-api", "build", "x" * 100)
    view.draw()
    view.update("a", "done", "ready")
    view.draw()
    drawn = stream.getvalue()
    assert "\x1b[1A" in drawn  # the second drawing covers the first
    lines = [line for line in drawn.split("\n") if line]
    assert all(
        output.width(line.replace("\x1b[?25l", "").replace("\x1b[1A", "").replace("\x1b[2K", "")) <= 50
        for line in lines
    )
    view.finish()
    assert stream.getvalue().endswith("\x1b[?25h")


def test_events_are_read_while_the_view_is_drawn() -> None:
    view = ProgressView(io.StringIO())
    assert list(while_drawing(iter([1, 2, 3]), view)) == [1, 2, 3]

    def failing() -> Any:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(while_drawing(failing(), view))
