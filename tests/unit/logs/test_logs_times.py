"""The index of arrival times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairway.logs import times
from fairway.logs.times import TimesWriter, index_path, load

NS = 1_000_000_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "web.1.log"
    path.write_bytes(b"x" * 1000)
    os.utime(path, (500.0, 500.0))
    return path


def test_tells_between_which_times_a_line_arrived(log: Path) -> None:
    writer = TimesWriter(log)
    assert writer.record(100, 10 * NS)
    assert writer.record(300, 20 * NS)
    assert not writer.record(300, 30 * NS)
    writer.close()
    index = load(log)
    assert index.arrival(50) == (0.0, 10.0)
    assert index.arrival(100) == (0.0, 10.0)
    assert index.arrival(101) == (10.0, 20.0)
    assert index.arrival(301) == (20.0, 500.0)  # behind the last record: by the file's last change


def test_tells_where_a_time_begins(log: Path) -> None:
    writer = TimesWriter(log)
    for size, second in ((100, 10), (300, 20), (600, 30)):
        writer.record(size, second * NS)
    writer.close()
    index = load(log)
    assert [index.start_of(since) for since in (5.0, 10.0, 15.0, 20.0, 25.0, 31.0)] == [0, 0, 100, 100, 300, 600]


def test_goes_on_after_a_restart(log: Path) -> None:
    for size, second in ((100, 10), (300, 20)):
        writer = TimesWriter(log)
        writer.record(size, second * NS)
        writer.close()
    assert len(load(log)) == 2


def test_a_torn_record_is_cut_off(log: Path) -> None:
    writer = TimesWriter(log)
    writer.record(100, 10 * NS)
    writer.close()
    with open(index_path(log), "ab") as file:
        file.write(b"\1\2\3\4\5")
    assert len(load(log)) == 1
    writer = TimesWriter(log)
    writer.record(300, 20 * NS)
    writer.close()
    assert load(log).arrival(200) == (10.0, 20.0)


@pytest.mark.parametrize("garbage", [b"", b"short", b"\0" * 64, b"FWTIMES1" + b"\xff" * 56])
def test_an_index_that_is_none_is_started_over(log: Path, garbage: bytes) -> None:
    index_path(log).write_bytes(garbage)
    assert len(load(log)) == 0
    assert load(log).arrival(5) == (0.0, 500.0)
    writer = TimesWriter(log)
    writer.record(100, 10 * NS)
    writer.close()
    assert len(load(log)) == 1


def test_the_index_of_another_file_does_not_count(log: Path) -> None:
    writer = TimesWriter(log)
    writer.record(100, 10 * NS)
    writer.close()
    log.rename(log.with_name("old.log"))
    log.write_bytes(b"new\n")
    assert len(load(log)) == 0


def test_a_tail_of_zeros_after_a_power_cut_does_not_count(log: Path) -> None:
    writer = TimesWriter(log)
    writer.record(100, 10 * NS)
    writer.close()
    with open(index_path(log), "ab") as file:
        file.write(b"\0" * 160)
    assert len(load(log)) == 1


def test_a_clock_set_back_keeps_the_index_sorted(log: Path) -> None:
    writer = TimesWriter(log)
    writer.record(100, 30 * NS)
    writer.record(300, 10 * NS)
    writer.close()
    index = load(log)
    assert index.arrival(200) == (30.0, 30.0)
    assert index.start_of(29.0) == 0


def test_stays_bounded_and_keeps_the_newest_exact(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "MAX_RECORDS", 16)
    writer = TimesWriter(log)
    for n in range(1, 200):
        writer.record(n, n * NS)
    writer.close()
    index = load(log)
    assert len(index) <= 17
    assert index.arrival(199) == (198.0, 199.0)
    earliest, latest = index.arrival(50)
    assert earliest < 50.0 <= latest
    assert not list(log.parent.glob("*.new"))


def test_is_private(log: Path) -> None:
    writer = TimesWriter(log)
    writer.record(1, 1)
    writer.close()
    assert index_path(log).stat().st_mode & 0o777 == 0o600
