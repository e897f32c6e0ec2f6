"""The list of log files is exact at any time, and costs nothing while no name changes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fairway.platform.layout import Layout, LogFile
from fairway.platform.logfiles import LogFiles

OLD = 1_000_000_000 * 10**9  # long ago, in ns


class Counting:
    """A layout that counts how often folders are read."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.logs = layout.logs
        self.read: list[str] = []

    def log_files(self, app: str) -> list[LogFile]:
        self.read.append(app)
        return self._layout.log_files(app)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / ".fairway")
    for app in ("a", "b"):
        (layout.logs / app).mkdir(parents=True)
        (layout.logs / app / "web.1.log").touch()
        os.utime(layout.logs / app, ns=(OLD, OLD))
    return layout


def counting(layout: Layout) -> tuple[Counting, LogFiles]:
    counted = Counting(layout)
    return counted, LogFiles(counted)  # type: ignore[arg-type]  # what it needs of one


def test_a_folder_at_rest_is_read_once(layout: Layout) -> None:
    counted, files = counting(layout)
    for _ in range(3):
        assert list(files()) == layout.log_files()
    assert counted.read == ["a", "b"]


def test_a_file_that_comes_or_goes_is_seen_at_once(layout: Layout) -> None:
    _, files = counting(layout)
    files()
    (layout.logs / "a" / "web.2.log").touch()
    assert list(files()) == layout.log_files()
    (layout.logs / "a" / "web.1.log").unlink()
    assert list(files()) == layout.log_files()
    assert [(f.app, f.number) for f in files()] == [("a", 2), ("b", 1)]


def test_a_folder_that_changed_a_moment_ago_is_read_again(layout: Layout) -> None:
    counted, files = counting(layout)
    (layout.logs / "b" / "web.2.log").touch()
    before = (layout.logs / "b").stat().st_mtime_ns
    files()
    (layout.logs / "b" / "web.3.log").touch()
    os.utime(layout.logs / "b", ns=(before, before))  # within the same tick of the file system's clock
    assert [f.number for f in files() if f.app == "b"] == [1, 2, 3]
    assert counted.read == ["a", "b", "b"]


def test_apps_come_and_go(layout: Layout) -> None:
    _, files = counting(layout)
    files()
    (layout.logs / "c").mkdir()
    (layout.logs / "c" / "web.1.log").touch()
    (layout.logs / "a" / "web.1.log").unlink()
    (layout.logs / "a").rmdir()
    assert [f.app for f in files()] == ["b", "c"]


def test_without_a_folder_there_are_none(tmp_path: Path) -> None:
    assert LogFiles(Layout(tmp_path / "nowhere"))() == ()


def test_what_has_not_changed_is_the_same_tuple(layout: Layout) -> None:
    _, files = counting(layout)
    first = files()
    assert files() is first
    (layout.logs / "a" / "web.2.log").touch()
    second = files()
    assert second is not first
    for file in (layout.logs / "b").iterdir():
        file.unlink()
    (layout.logs / "b").rmdir()
    assert [f.app for f in files()] == ["a", "a"]


def test_a_folder_that_goes_as_soon_as_it_has_come_is_seen(layout: Layout) -> None:
    _, files = counting(layout)
    (layout.logs / "c").mkdir()
    (layout.logs / "c" / "web.1.log").touch()
    assert list(files()) == layout.log_files()
    shutil.rmtree(layout.logs / "c")
    assert list(files()) == layout.log_files()
