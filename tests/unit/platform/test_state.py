"""The state file: what a crash at any point leaves behind can be told apart."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

import apsw
import pytest

from fairway.platform.errors import StateDirError
from fairway.platform.state import AppRow, DoorRow, InstanceRow, StateStore
from fairway.run.process import ProcessRecord

RECORD = ProcessRecord(4711, 99, "boot", "fairway-x/a/web.1", ("/sys/fs/cgroup/x",), "cgroup v2")


@pytest.fixture
def state(tmp_path):
    store = StateStore(tmp_path / "state.db")
    yield store
    store.close()


def row(number: int, standing="staged", **changes) -> InstanceRow:
    return InstanceRow(
        **{
            "app": "a",
            "process": "web",
            "number": number,
            "release": "r1",
            "launch": "l",
            "standing": standing,
            **changes,
        }
    )


def test_an_app_never_written_has_defaults(state):
    assert state.app("a") == AppRow(name="a")
    state.save_app(AppRow(name="a", wanted="stopped", scale=3, scale_base=1, release="r", pinned="r"))
    assert state.app("a") == AppRow(name="a", wanted="stopped", scale=3, scale_base=1, release="r", pinned="r")


def test_numbers_are_never_used_twice_not_even_after_forgetting(state, tmp_path):
    assert [state.next_number("a", "web") for _ in range(3)] == [1, 2, 3]
    assert state.next_number("a", "worker") == 1
    state.forget_app("a")
    state.close()
    again = StateStore(tmp_path / "state.db")
    assert again.next_number("a", "web") == 4
    again.close()


def test_an_instance_survives_with_how_to_find_it_again(state, tmp_path):
    saved = row(1, port=20001, restarts=2, started_at=1.5, record=RECORD)
    state.save_instance(saved)
    state.close()
    again = StateStore(tmp_path / "state.db")
    assert again.instances("a") == [saved]
    again.remove_instance("a", "web", 1)
    assert again.instances() == []
    again.close()


def test_a_swap_is_one_transaction(state):
    for number in (1, 2, 3):
        state.save_instance(row(number, "serving" if number < 3 else "staged"))
    state.commit_swap("a", "r2", [("web", 2), ("web", 3)])
    assert [(r.number, r.standing) for r in state.instances("a")] == [(1, "retiring"), (2, "serving"), (3, "serving")]
    assert state.app("a").release == "r2"


def test_the_order_of_releases_that_served(state):
    for release in ("r1", "r2", "r2", "r1", "r3"):
        state.commit_swap("a", release, [])
    assert state.deployed("a") == ["r3", "r1", "r2"]


def test_doors(state):
    state.save_door(DoorRow(worker=0, listen="127.0.0.1:8080 x1", record=RECORD))
    assert state.doors()[0].record == RECORD
    state.remove_door(0)
    assert state.doors() == []


def test_a_newer_state_file_is_refused(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateDirError, match="got version 99"):
        StateStore(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, certainly not one" * 40)
    with pytest.raises(StateDirError, match="expected a state file"):
        StateStore(path)


def test_the_file_is_private(state):
    assert state.path.stat().st_mode & 0o777 == 0o600


def syncs(state: StateStore) -> str:
    (row,) = state._db.execute("PRAGMA synchronous")
    return {1: "normal", 2: "full"}[row[0]]


def test_it_is_opened_as_it_is_meant_to_be(state):
    assert syncs(state) == "normal"
    assert list(state._db.execute("PRAGMA journal_mode")) == [("wal",)]
    assert list(state._db.execute("PRAGMA cache_size")) == [(-256,)]


def test_what_outlives_a_power_cut_is_on_the_disk_when_it_is_written(state):
    level = "NORMAL"
    seen: list[str] = []

    def trace(_cursor: object, sql: str, _values: object) -> bool:
        nonlocal level
        if sql.startswith("PRAGMA synchronous="):
            level = sql.partition("=")[2]
        elif sql.split()[0] in {"INSERT", "UPDATE", "DELETE"}:
            seen.append(level)
        return True

    def levels(act: Callable[[], object]) -> set[str]:
        seen.clear()
        act()
        return set(seen)

    state._db.set_exec_trace(trace)
    assert levels(lambda: state.next_number("a", "web")) == {"NORMAL"}
    assert levels(lambda: state.save_instance(row(1))) == {"NORMAL"}
    assert levels(lambda: state.commit_swap("a", "r1", [("web", 1)])) == {"FULL"}
    assert levels(lambda: state.commit_swap("a", "r1", [("web", 1)])) == {"NORMAL"}  # it served already
    assert levels(lambda: state.commit_swap("a", "r2", [("web", 1)])) == {"FULL"}
    assert levels(lambda: state.save_app(AppRow(name="a"))) == {"FULL"}
    assert levels(lambda: state.remove_instance("a", "web", 1)) == {"NORMAL"}
    assert levels(lambda: state.forget_app("a")) == {"FULL"}
    state._db.set_exec_trace(None)
    assert syncs(state) == "normal"


def test_a_write_that_fails_leaves_the_next_as_it_should_be(state):
    state._db.set_commit_hook(lambda: True)  # turns the commit into a rollback
    with pytest.raises(apsw.ConstraintError):
        state.save_app(AppRow(name="a", wanted="stopped"))
    state._db.set_commit_hook(None)
    assert syncs(state) == "normal"
    assert state.app("a") == AppRow(name="a")


def test_what_is_settled_is_in_the_main_file(state):
    state.next_number("a", "web")
    state.settle()
    copy = state.path.with_name("copy.db")
    copy.write_bytes(state.path.read_bytes())  # without the log beside it
    with contextlib.closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT last FROM counter").fetchall() == [(1,)]


def test_a_disk_that_is_full_ends_nothing_that_runs(state, monkeypatch, capsys):
    state.next_number("a", "web")

    def full(sql, _):
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(state, "_one", full)
        state.settle()
    assert "state file is not settled" in "".join(capsys.readouterr())
    assert state.next_number("a", "web") == 2
