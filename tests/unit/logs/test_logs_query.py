"""Answers from files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.logs import query as queries
from fairway.logs.query import LogQueryError, Query, containing, history, matching, parse_since
from fairway.logs.times import TimesWriter

NS = 1_000_000_000


def texts(folder: Any, query: Query, **options: Any) -> list[str]:
    return [line.text for line in history(folder.list(), query, **options)]


def timed(folder: Any, name: str, *lines: tuple[float, str]) -> None:
    """Write lines with the arrival times that the watcher would have recorded."""
    path = folder.write(name, "")
    writer = TimesWriter(path)
    for at, line in lines:
        folder.write(name, line + "\n", at=at)
        writer.record(path.stat().st_size, int(at * NS))
    writer.close()


def test_interleaves_files_by_time(log_folder: Any) -> None:
    timed(log_folder, "a/web.1", (10.0, "a1"), (30.0, "a2"))
    timed(log_folder, "b/web.1", (20.0, "b1"), (40.0, "b2"))
    assert texts(log_folder, Query()) == ["a1", "b1", "a2", "b2"]
    assert texts(log_folder, Query(tail=3)) == ["b1", "a2", "b2"]
    assert texts(log_folder, Query(tail=0)) == []
    assert texts(log_folder, Query(apps=frozenset({"b"}))) == ["b1", "b2"]


def test_since_and_until(log_folder: Any) -> None:
    timed(log_folder, "a/web.1", *((float(n), f"line {n}") for n in range(1, 50)))
    assert texts(log_folder, Query(since=48.0)) == ["line 48", "line 49"]
    assert texts(log_folder, Query(until=3.0)) == ["line 1", "line 2"]
    assert texts(log_folder, Query(since=47.5, tail=1)) == ["line 49"]
    assert texts(log_folder, Query(since=100.0)) == []


def test_a_gap_while_the_daemon_was_dead_is_shown_rather_than_hidden(log_folder: Any) -> None:
    timed(log_folder, "a/web.1", (10.0, "before"))
    log_folder.write("a/web.1", "in the gap\n", at=90.0)  # nobody recorded anything
    assert texts(log_folder, Query(since=50.0)) == ["in the gap"]
    assert texts(log_folder, Query(since=91.0)) == []
    (_, gap) = history(log_folder.list(), Query())
    assert gap.time == 90.0


def test_a_json_line_in_a_gap_tells_its_own_time(log_folder: Any) -> None:
    timed(log_folder, "a/web.1", (1_700_000_000.0, "before"))
    log_folder.write("a/web.1", '{"time": 1700000042.5, "msg": "hi"}\n', at=1_700_000_090.0)
    (_, line) = history(log_folder.list(), Query())
    assert line.time == 1_700_000_042.5
    assert line.message == "hi"


def test_a_line_that_lies_about_its_time_is_not_believed(log_folder: Any) -> None:
    timed(log_folder, "a/web.1", (1_700_000_000.0, "before"), (1_700_000_001.0, '{"time": 1600000000, "msg": "x"}'))
    assert [line.time for line in history(log_folder.list(), Query())] == [1_700_000_000.0, 1_700_000_001.0]


def test_lines_of_one_file_keep_their_order(log_folder: Any) -> None:
    timed(log_folder, "a/web.1", (1_700_000_000.0, "zero"))
    log_folder.write(
        "a/web.1",
        '{"time": 1700000060, "msg": "1"}\n{"time": 1700000030, "msg": "2"}\nplain\n',
        at=1_700_000_090.0,
    )
    forwards = [line.message or line.text for line in history(log_folder.list(), Query())]
    backwards = [line.message or line.text for line in history(log_folder.list(), Query(tail=10))]
    assert forwards == backwards == ["zero", "1", "2", "plain"]


def test_filters(log_folder: Any) -> None:
    log_folder.write("a/web.1", "GET /ok\nGET /ERROR\nPOST /error\n")
    assert texts(log_folder, Query(match=containing("error"))) == ["GET /ERROR", "POST /error"]
    assert texts(log_folder, Query(match=containing("error"), tail=1)) == ["POST /error"]
    assert texts(log_folder, Query(match=matching(r"^GET .*R$"))) == ["GET /ERROR"]
    assert texts(log_folder, Query(match=matching("error", ignore_case=True))) == ["GET /ERROR", "POST /error"]
    with pytest.raises(re.error):
        matching("(")


def test_fairways_own_lines_are_shown_when_asked_for(log_folder: Any) -> None:
    log_folder.write("_fairway/daemon.0", "own\n")
    log_folder.write("a/web.1", "app\n")
    assert texts(log_folder, Query()) == ["app"]
    assert texts(log_folder, Query(apps=frozenset({"_fairway"}))) == ["own"]


def test_an_unfinished_line_is_shown_and_marked(log_folder: Any) -> None:
    log_folder.write("a/web.1", "done\nhalf")
    for query in (Query(), Query(tail=5)):
        assert [(line.text, line.partial) for line in history(log_folder.list(), query)] == [
            ("done", False),
            ("half", True),
        ]


def test_ends_and_starts_cut_exactly(log_folder: Any) -> None:
    log_folder.write("a/web.1", "one\ntwo\nthree\n")
    assert texts(log_folder, Query(), ends={"a/web.1": 8}) == ["one", "two"]
    assert texts(log_folder, Query(tail=1), ends={"a/web.1": 8}) == ["two"]
    assert texts(log_folder, Query(), starts={"a/web.1": 4}) == ["two", "three"]
    assert texts(log_folder, Query(tail=1), starts={"a/web.1": 4}) == ["three"]


def test_a_file_that_vanished_is_left_out(log_folder: Any) -> None:
    log_folder.write("a/web.1", "x\n")
    files = log_folder.list()
    files[0].path.unlink()
    assert list(history(files, Query())) == []
    assert list(history(files, Query(tail=3))) == []


def test_a_long_line_backwards_is_cut_as_it_is_forwards(log_folder: Any) -> None:
    log_folder.write("a/web.1", "first\n" + "x" * 700_000 + "\nlast\n")
    forwards = list(history(log_folder.list(), Query()))
    backwards = list(history(log_folder.list(), Query(tail=10)))
    assert forwards == backwards
    assert [len(line.text) for line in forwards] == [5, 65_536, 4]
    assert [line.truncated for line in forwards] == [False, True, False]


def test_a_hole_at_the_head_is_skipped(log_folder: Any, punch: Callable[[Path, int], None]) -> None:
    path = log_folder.write("a/web.1", b"".join(b"line %06d\n" % n for n in range(20_000)))
    punch(path, 128 * 1024)
    first = 128 * 1024 // 12 + 1
    expected = [f"line {n:06d}" for n in range(first, 20_000)]
    assert texts(log_folder, Query()) == expected
    assert texts(log_folder, Query(tail=100_000)) == expected
    assert texts(log_folder, Query(tail=2)) == expected[-2:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=30),
    end=st.sampled_from([b"", b"\n"]),
    block=st.integers(1, 50),
    tail=st.integers(0, 35),
)
def test_backwards_is_forwards_from_behind(
    tmp_path: Path, lines: list[bytes], end: bytes, block: int, tail: int
) -> None:
    path = tmp_path / "web.1.log"
    path.write_bytes(b"\n".join(lines) + end)
    before = queries._BLOCK
    queries._BLOCK = block
    try:
        fd = os.open(path, os.O_RDONLY)
        size = path.stat().st_size
        forwards = list(queries._forward(fd, 0, size))
        backwards = list(queries._backward(fd, size))[::-1]
        os.close(fd)
    finally:
        queries._BLOCK = before
    assert backwards == forwards
    assert backwards[-tail:] == forwards[-tail:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 910.0),
        ("30s", 970.0),
        ("10m", 400.0),
        ("0.5m", 970.0),
        ("1h", -2600.0),
        ("1700000000", 1_700_000_000.0),
        ("1700000000.25", 1_700_000_000.25),
        ("2026-01-31T12:00:00Z", 1_769_860_800.0),
        ("2026-01-31T12:00:00+02:00", 1_769_853_600.0),
    ],
)
def test_times_and_ages(text: str, expected: float) -> None:
    assert parse_since(text, 1000.0) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "10 minutes", "-5m", "1e400", "9" * 40, "2026-13-01"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(LogQueryError, match="Expected a time or an age"):
        parse_since(text, 1000.0)
