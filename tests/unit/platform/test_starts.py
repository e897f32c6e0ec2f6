"""The slowest app is started first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.platform.starts import Starts


def test_the_slowest_comes_first_and_the_unknown_before(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts.json")
    for name, seconds in (("go", 0.02), ("python", 0.4), ("node", 0.2)):
        starts.note(name, seconds)
    starts.save(["go", "python", "node", "gone"])
    again = Starts(tmp_path / "starts.json")
    assert again.order(["go", "new", "node", "other", "python"]) == ["new", "other", "python", "node", "go"]


def test_apps_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts.json")
    starts.note("a", 1.0)
    starts.note("b", 2.0)
    starts.save(["b"])
    assert (tmp_path / "starts.json").read_bytes() == b'{"b":2.0}'


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a":"b"}', b"\xff"])
def test_a_damaged_file_is_no_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "starts.json").write_bytes(content)
    assert Starts(tmp_path / "starts.json").order(["b", "a"]) == ["b", "a"]


def test_a_folder_that_is_missing_is_no_error(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "missing" / "starts.json")
    starts.note("a", 1.0)
    starts.save(["a"])
    assert not (tmp_path / "missing").exists()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "starts.new").touch(mode=0o644)
    starts = Starts(tmp_path / "starts.json")
    starts.note("a", 1.0)
    starts.save(["a"])
    assert (tmp_path / "starts.json").stat().st_mode & 0o777 == 0o600
