"""Following one file through all that can happen to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.logs.tail import Tail


def read_all(tail: Tail) -> list[str]:
    found = []
    while lines := tail.read():
        found += [line.text for line in lines]
    return found


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_gives_lines_as_they_are_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = Tail(path)
    assert tail.read() == []
    append(path, b"one\ntw")
    assert read_all(tail) == ["one"]
    assert (tail.checkpoint, tail.position) == (4, 6)
    append(path, b"o\n")
    assert read_all(tail) == ["two"]
    assert tail.generation == 0
    tail.close()


def test_begins_at_the_end_and_leaves_a_half_written_line_out(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"before\nhal")
    tail = Tail(path, None)
    append(path, b"f\nafter\n")
    assert read_all(tail) == ["after"]
    tail.close()


def test_begins_at_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"one\ntwo\n")
    tail = Tail(path, 4)
    assert read_all(tail) == ["two"]
    tail.close()


def test_a_large_file_comes_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"".join(b"line %d\n" % n for n in range(100_000)))
    tail = Tail(path)
    assert len(tail.read()) < 100_000
    assert read_all(tail)[-1] == "line 99999"
    tail.close()


def test_rename_and_create_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"one\n")
    tail = Tail(path)
    assert read_all(tail) == ["one"]
    append(path, b"two\nthr")
    path.rename(tmp_path / "a.log.1")
    append(path, b"new one\n")
    append(tmp_path / "a.log.1", b"ee\n")
    assert read_all(tail) == ["two", "three"]  # the old file first, to its end
    append(tmp_path / "a.log.1", b"a late one\n")
    assert read_all(tail) == ["a late one"]
    assert read_all(tail) == ["new one"]
    assert tail.generation == 1
    tail.close()


def test_a_line_without_newline_is_given_out_when_its_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"last words")
    tail = Tail(path)
    assert tail.read() == []
    path.rename(tmp_path / "a.log.1")
    append(path, b"new\n")
    assert tail.read() == []
    (last,) = tail.read()
    assert (last.text, last.partial) == ("last words", True)
    assert read_all(tail) == ["new"]
    tail.close()


def test_a_reused_inode_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"one\n" * 10)
    tail = Tail(path)
    assert len(read_all(tail)) == 10
    # The same inode, other content, longer than what was read: only the first bytes tell.
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(b"completely different\n" * 4)
    assert read_all(tail) == ["completely different"] * 4
    assert tail.generation == 1
    tail.close()


def test_truncation_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"one\ntwo\n")
    tail = Tail(path)
    assert read_all(tail) == ["one", "two"]
    os.truncate(path, 0)
    append(path, b"1\n")
    assert read_all(tail) == ["1"]
    assert tail.generation == 1
    tail.close()


def test_vanishes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, b"one\n")
    tail = Tail(path)
    assert read_all(tail) == ["one"]
    path.unlink()
    assert tail.read() == []
    append(path, b"two\n")
    assert tail.read() == []
    assert read_all(tail) == ["two"]
    tail.close()


def test_a_head_given_back_to_the_disk_is_skipped(tmp_path: Path, punch: Callable[[Path, int], None]) -> None:
    path = tmp_path / "a.log"
    append(path, b"".join(b"line %06d\n" % n for n in range(10_000)))
    punch(path, 64 * 1024)
    tail = Tail(path)
    found = read_all(tail)
    first = 64 * 1024 // 12 + 1
    assert found == [f"line {n:06d}" for n in range(first, 10_000)]
    tail.close()


def test_a_head_given_back_while_it_is_followed_is_no_other_file(
    tmp_path: Path, punch: Callable[[Path, int], None]
) -> None:
    path = tmp_path / "a.log"
    append(path, b"x" * 299 + b"\n" + b"y" * 70_000 + b"\n")
    tail = Tail(path)
    assert len(read_all(tail)) == 2
    punch(path, 64 * 1024)
    append(path, b"next\n")
    assert read_all(tail) == ["next"]
    assert tail.generation == 0
    tail.close()


@pytest.mark.parametrize("size", [1, 255, 256, 257])
def test_a_young_file_is_told_apart_too(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.log"
    append(path, b"a" * size + b"\n")
    tail = Tail(path)
    assert read_all(tail) == ["a" * size]
    append(path, b"b\n")
    assert read_all(tail) == ["b"]
    assert tail.generation == 0
    tail.close()
