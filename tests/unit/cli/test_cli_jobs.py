"""`fairway jobs` and `fairway health` against a daemon that is played."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from fairway.cli import health as health_module
from fairway.cli import jobs as module
from fairway.cli.client import Answered


class Daemon:
    """Answers by path; a queue completes ten jobs between two looks. Ctrl-C after `frames` of them."""

    def __init__(self, frames: int = 1) -> None:
        self.frames = frames
        self.looks = 0
        self.posted: list[Any] = []

    def __call__(self, project: object, **_: object) -> Daemon:
        return self

    def get(self, path: str, **query: Any) -> Any:
        if path == "/v1/queues":
            if self.looks == self.frames:
                raise KeyboardInterrupt
            self.looks += 1
            return {"queues": [{"name": "mail", "paused": False, "counts": {"completed": 10 * self.looks}}]}
        if path == "/v1/health":
            if "nope" not in query["app"]:
                return {"healthy": True, "targets": []}
            raise Answered("expected the name of an app in the registry, got 'nope'", code="app.unknown")
        return {"jobs": []}

    def post(self, path: str, body: Any = None) -> Any:
        self.posted.append(body)
        return {"ids": [1], "duplicates": [], "durability": "fsync"}


class Time:
    """Ten seconds pass with every look at the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 10.0
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += 0.0


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "current", lambda: None)
    monkeypatch.setattr(module, "time", Time())

    def run(daemon: Daemon, *words: str) -> Any:
        monkeypatch.setattr(module, "Client", daemon)
        return CliRunner().invoke(module.jobs, words)

    return run


def test_top_is_live_as_json_too(invoke: Any) -> None:
    result = invoke(Daemon(frames=3), "top", "--json")
    assert result.exit_code == 0, result.output
    frames = [json.loads(line) for line in result.stdout.splitlines()]
    assert [frame["queues"][0]["rate"] > 0 for frame in frames] == [False, True, True]
    assert [frame["queues"][0]["counts"]["completed"] for frame in frames] == [10, 20, 30]
    assert all(frame["running"] == [] for frame in frames)


@pytest.mark.parametrize("words", [("top", "--once"), ("top",), ("top", "--once", "--json")])
def test_top_without_a_terminal_is_one_frame(invoke: Any, words: tuple[str, ...]) -> None:
    daemon = Daemon(frames=9)
    result = invoke(daemon, *words)
    assert result.exit_code == 0, result.output
    assert daemon.looks == 1
    assert "mail" in result.stdout


@pytest.mark.parametrize(
    "words",
    [("{bad",), ('{"a": NaN}',), ("-Infinity",), ("[" * 100_000,), ("1", "--delay", "nan"), ("1", "--delay", "-1"),
     ("1", "--timeout", "inf"), ("1", "--wait", "soon")],
)  # fmt: skip
def test_what_has_no_form_in_json_is_refused_where_it_was_typed(invoke: Any, words: tuple[str, ...]) -> None:
    daemon = Daemon()
    result = invoke(daemon, "enqueue", "--", "mail", "send", *words) if len(words) == 1 else invoke(
        daemon, "enqueue", *words[1:], "mail", "send", words[0]
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert "expected" in result.output
    assert daemon.posted == []


def test_health_of_an_app_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "current", lambda: None)
    monkeypatch.setattr(health_module, "Client", Daemon())
    result = CliRunner().invoke(health_module.health, ["nope"])
    assert isinstance(result.exception, Answered)
    result = CliRunner().invoke(health_module.health, ["stopped"])
    assert result.exit_code == 0
    assert "none of these apps runs" in result.output
