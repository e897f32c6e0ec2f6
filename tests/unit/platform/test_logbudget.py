"""The disk budget of logs: what goes first, and that nothing new is ever lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairway.platform.layout import Layout, LogFile
from fairway.platform.logbudget import Budget, Relief, Usage, decide, punch, relieve

BUDGET = Budget(file_bytes=100_000, app_bytes=250_000, app_files=2)


def usage(number: int, disk: int, *, live: bool = False, size: int | None = None) -> Usage:
    return Usage(LogFile(Path(f"/web.{number}.log"), "a", "web", number), size or disk, disk, live)


def test_within_the_budget_nothing_is_touched():
    assert decide([usage(1, 90_000), usage(2, 100_000, live=True)], BUDGET) == []


def test_too_many_ended_files_go_oldest_first():
    found = decide([usage(n, 10) for n in (1, 2, 3, 4)], BUDGET)
    assert found == [Relief(Path("/web.1.log"), None), Relief(Path("/web.2.log"), None)]


def test_over_the_apps_budget_ended_files_go_before_live_heads():
    found = decide([usage(1, 90_000), usage(2, 90_000), usage(3, 90_000, live=True)], BUDGET)
    assert found == [Relief(Path("/web.1.log"), None)]


def test_a_live_file_gives_its_head_back_in_whole_blocks():
    (relief,) = decide([usage(3, 150_000, live=True, size=1_000_000)], BUDGET)
    assert relief.upto is not None
    assert relief.upto % 4096 == 0
    assert 1_000_000 - 100_000 < relief.upto <= 1_000_000 - 75_000 + 4096


def test_a_writer_loses_no_line_while_its_head_is_given_back(tmp_path):
    layout = Layout(tmp_path)
    path = layout.log_file("a", "web", 1)
    path.parent.mkdir(parents=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        written = 0
        for round_ in range(5):
            for i in range(2000):
                written += os.write(fd, f"line {round_} {i} {'x' * 60}\n".encode())
            if round_ == 0 and not punch(path, 4096):
                pytest.skip("no holes on this file system")
            relieve(layout.log_files("a"), {path}, BUDGET)
            assert path.stat().st_size == written  # offsets stay valid for ever
            assert path.stat().st_blocks * 512 <= BUDGET.file_bytes + 8192
        last = path.read_bytes().split(b"\n")[-2]
        assert last.startswith(b"line 4 1999")
    finally:
        os.close(fd)


def test_files_of_ended_instances_are_deleted_with_their_index(tmp_path):
    layout = Layout(tmp_path)
    for number in (1, 2, 3):
        path = layout.log_file("a", "web", number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
        path.with_suffix(".times").write_text("")
    relieve(layout.log_files("a"), set(), BUDGET)
    assert sorted(p.name for p in path.parent.iterdir()) == ["web.2.log", "web.2.times", "web.3.log", "web.3.times"]
