"""`fairway events` against a daemon that goes away, cuts off, and carries hostile events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from fairway.cli import events as module
from fairway.cli.client import Unreachable


def item(offset: int, kind: str = "made") -> dict[str, Any]:
    event = {"type": kind, "time": "2026-01-31T12:00:00Z", "data": offset, "id": str(offset), "source": "s"}
    return {"topic": "t", "offset": offset, "event": event}


class Daemon:
    """Plays one script a connection; an exception in it is raised there. At the end the user presses Ctrl-C."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = list(scripts)
        self.queries: list[dict[str, Any]] = []
        self.logs = ["one"]  # of the looks to come; the last one stays

    def __call__(self, project: object) -> Daemon:
        return self

    def get(self, path: str) -> dict[str, Any]:
        return {"last": 41, "log_id": self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]}

    def stream(self, method: str, path: str, **query: Any) -> Any:
        self.queries.append(query)
        if not self.scripts:
            raise KeyboardInterrupt
        for step in self.scripts.pop(0):
            if isinstance(step, BaseException):
                raise step
            yield step


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setattr(module, "current", lambda: None)
    monkeypatch.setattr(module, "time", type("time", (), {"sleep": staticmethod(lambda _: None), "time": lambda: 0.0}))

    def run(daemon: Daemon, *words: str) -> Any:
        monkeypatch.setattr(module, "Client", daemon)
        return CliRunner().invoke(module.events, words)

    return run


def shown(result: Any) -> list[int]:
    return [json.loads(line)["offset"] for line in result.stdout.splitlines() if line.startswith("{")]


def test_subscribe_goes_on_where_it_was_when_the_daemon_restarts(invoke) -> None:
    daemon = Daemon(
        [("made", item(42))],
        [Unreachable("The daemon went away.")],
        [("made", item(43)), Unreachable("The daemon went away.")],
    )
    result = invoke(daemon, "subscribe", "t", "--json")
    assert result.exit_code == 0, result.output
    assert shown(result) == [42, 43]
    assert [query["after"] for query in daemon.queries] == [41, 42, 42, 43]


def test_subscribe_begins_again_where_the_daemon_comes_back_with_another_log(invoke) -> None:
    daemon = Daemon([("made", item(42)), Unreachable("The daemon went away.")], [("made", item(1))])
    daemon.logs = ["one", "two"]
    result = invoke(daemon, "subscribe", "t", "--json")
    assert shown(result) == [42, 1]
    assert [query["after"] for query in daemon.queries] == [41, 0, 1]
    assert "The log was lost" in result.stderr


def test_subscribe_says_so_where_there_is_no_daemon_at_all(invoke, monkeypatch) -> None:
    daemon = Daemon([])
    monkeypatch.setattr(daemon, "get", lambda path: (_ for _ in ()).throw(Unreachable("No daemon.")))
    assert isinstance(invoke(daemon, "subscribe").exception, Unreachable)


def test_an_event_of_the_type_of_the_cut_off_message_is_shown_and_the_real_one_resumes(invoke) -> None:
    daemon = Daemon(
        [("fairway.disconnected", item(42, "fairway.disconnected"))],
        [("fairway.disconnected", {"code": "events.slow_subscriber", "detail": "slow", "offset": 40})],
    )
    result = invoke(daemon, "subscribe", "--json")
    assert shown(result) == [42]
    assert [query["after"] for query in daemon.queries] == [41, 42, 40]


@pytest.mark.parametrize(
    "words",
    [
        ("subscribe", "--after", "1", "--since", "1h"),
        ("replay", "--after", "1", "--since", "1h"),
        ("replay", "orders.>", "--dead", "g"),
        ("replay", "--dead", "g", "--after", "1"),
        ("subscribe", "--after", "-1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(invoke, words) -> None:
    result = invoke(Daemon(), *words)
    assert result.exit_code == 2
    assert "Error: " in result.output


class Groups:
    """A daemon with one group, which can be deleted."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def __call__(self, project: object) -> Groups:
        return self

    def get(self, path: str) -> list[dict[str, Any]]:
        numbers = {"cursor": 7, "lag": 3, "waiting": 2, "leased": 1, "dead": 0}
        return [{"name": "billing", "pattern": "orders.>", **numbers, "seen": -2 * 86_400.0}]

    def delete(self, path: str) -> None:
        self.deleted.append(path)


def test_groups_tell_lag_and_who_was_last_seen_when(invoke) -> None:
    result = invoke(Groups(), "groups")
    assert "SEEN" in result.stdout
    assert "billing" in result.stdout
    assert "2d ago" in result.stdout


def test_a_group_is_deleted_only_after_a_yes(invoke) -> None:
    daemon = Groups()
    assert invoke(daemon, "groups", "--delete", "a/b").exit_code == 1
    assert daemon.deleted == []
    result = invoke(daemon, "groups", "--delete", "a/b", "--yes", "--json")
    assert json.loads(result.stdout) == {"deleted": "a/b"}
    assert daemon.deleted == ["/v1/events/groups/a%2Fb"]
