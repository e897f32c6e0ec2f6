"""Bytes into lines."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.logs.assembler import LineAssembler, RawLine


def lines_of(data: bytes, cuts: list[int], **options: int) -> list[RawLine]:
    assembler = LineAssembler(**options)
    found: list[RawLine] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        found += assembler.feed(data[start:end])
    rest = assembler.flush()
    return [*found, rest] if rest is not None else found


def test_offsets_and_partial_line() -> None:
    assert lines_of(b"one\n\ntwo\nth", [2, 5]) == [
        RawLine(0, 4, b"one"),
        RawLine(4, 5, b""),
        RawLine(5, 9, b"two"),
        RawLine(9, 11, b"th", partial=True),
    ]


def test_goes_on_behind_a_partial_line() -> None:
    assembler = LineAssembler(100)
    assert assembler.feed(b"Password: ") == []
    assert assembler.start == 100
    assert assembler.flush() == RawLine(100, 110, b"Password: ", partial=True)
    assert assembler.flush() is None
    assert assembler.feed(b"thanks\n") == [RawLine(110, 117, b"thanks")]


def test_a_long_line_is_cut_marked_and_left_behind() -> None:
    data = b"x" * 25 + b"\nshort\n"
    assert lines_of(data, [7, 13], max_line=10) == [
        RawLine(0, 26, b"x" * 10, truncated=True),
        RawLine(26, 32, b"short"),
    ]


@pytest.mark.parametrize(("room", "kept"), [(4, "aaa"), (5, "aaaé"), (6, "aaaé"), (8, "aaaé€")])
def test_a_long_line_is_cut_between_characters(room: int, kept: str) -> None:
    (line,) = lines_of("aaaé€zzzz\n".encode(), [], max_line=room)
    assert line.text == kept
    assert line.truncated


def test_resync_drops_the_rest_of_a_line() -> None:
    assembler = LineAssembler(50, resync=True)
    assert assembler.feed(b"tail of") == []
    assert assembler.flush() is None
    assert assembler.feed(b" a line\nwhole\n") == [RawLine(65, 71, b"whole")]


def test_a_hole_that_nobody_named_swallows_the_line_it_cuts() -> None:
    data = b"\0" * 4096 + b"end of a line\nwhole\n"
    assert [line.data for line in lines_of(data, [100, 4097])] == [b"whole"]
    assert [line.data for line in lines_of(b"first\n" + data, [])] == [b"first", b"whole"]


def test_a_few_nuls_are_part_of_a_line() -> None:
    (line,) = lines_of(b"a\0b\n", [])
    assert line.text == "a\0b"


def test_text_of_bytes_that_are_none() -> None:
    assert RawLine(0, 5, b"a\xff\xfeb\r").text == "a\ufffd\ufffdb"


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line)), st.lists(st.integers(0, 200)))
def test_however_it_is_cut_the_lines_are_the_same(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    found = lines_of(data, cuts)
    assert [line.data for line in found] == lines
    assert [line.start for line in found] == [0, *(line.end for line in found)][:-1]
    assert (found[-1].end if found else 0) == len(data)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)), st.integers(1, 20))
def test_any_bytes_cover_the_file_without_gap_or_overlap(data: bytes, cuts: list[int], most: int) -> None:
    found = lines_of(data, cuts, max_line=most)
    assert [line.start for line in found] == [0, *(line.end for line in found)][:-1] or not found
    assert (found[-1].end if found else 0) == len(data)
    assert all(len(line.data) <= most for line in found)
