"""JSON lines, cursors and terminal escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.logs import structured
from fairway.logs.escape import neutralise
from fairway.logs.line import format_cursor, parse_cursor


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        (b'{"level":"info","msg":"hi"}', "info", "hi"),
        (b'{"level":"WARNING","message":"hi"}', "warn", "hi"),
        (b'{"severity":"CRITICAL","event":"hi"}', "fatal", "hi"),
        (b'{"level":30,"msg":"pino"}', "info", "pino"),
        (b'{"lvl":"err"}', "error", None),
        (b'{"level":"loud","msg":7}', None, None),
        (b'{"LogLevel":"Information","Message":"csharp"}', "info", "csharp"),
        (b'{"level":["info"]}', None, None),
        (b"plain", None, None),
        (b"", None, None),
        (b"{not json", None, None),
        (b"[1]", None, None),
        (b'{"a":' + b"[" * 10_000, None, None),
        (b'{"msg":"\xff"}', None, None),
    ],
)
def test_what_a_json_line_says(line: bytes, level: str | None, message: str | None) -> None:
    said = structured.read(line)
    assert (said.level, said.message) == (level, message)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'"2026-01-31T12:00:00Z"', 1_769_860_800.0),
        (b'"2026-01-31T12:00:00.250+00:00"', 1_769_860_800.25),
        (b'"2026-01-31 12:00:00"', 1_769_860_800.0),
        (b"1769860800", 1_769_860_800.0),
        (b"1769860800250", 1_769_860_800.25),
        (b"1769860800250000000", 1_769_860_800.25),
        (b'"noon"', None),
        (b"true", None),
        (b"12", None),
        (b"{}", None),
    ],
)
def test_when_a_json_line_says_it_was(value: bytes, expected: float | None) -> None:
    assert structured.read(b'{"time":' + value + b"}").time == pytest.approx(expected)
    assert structured.read(b'{"@timestamp":' + value + b"}").time == pytest.approx(expected)


@given(st.binary(max_size=80))
def test_no_line_makes_the_reader_raise(data: bytes) -> None:
    structured.read(data)
    structured.read(b"{" + data)


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,9}/[a-z]{1,5}\.[0-9]{1,3}", fullmatch=True), st.integers(0, 10**15)))
def test_cursors_come_back(positions: dict[str, int]) -> None:
    assert parse_cursor(format_cursor(positions)) == positions


@pytest.mark.parametrize("text", ["", "x", "=5", "a=", "a=-1", "a=1.5", "a=" + "9" * 30, ",,,", "a=²"])
def test_what_is_no_cursor_is_left_out(text: str) -> None:
    assert parse_cursor(text) == {}


@pytest.mark.parametrize(
    ("hostile", "safe"),
    [
        ("plain é 漢字 👩‍💻\t.", "plain é 漢字 👩‍💻\t."),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        (
            "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
            "\\x1b]8;;https://evil.example\\x1b\\click\\x1b]8;;\\x1b\\",
        ),
        ("\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        ("a\rb\x08c\x00\x7f", "a\\x0db\\x08c\\x00\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\u2066x\u2069\ufeff\u2028", "\\u2066x\\u2069\\ufeff\\u2028"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_escapes_are_shown_not_obeyed(hostile: str, safe: str) -> None:
    assert neutralise(hostile) == safe


def test_colours_can_be_let_through_and_nothing_else() -> None:
    assert neutralise("\x1b[1;31mred\x1b[0m \x1b[2J", colours=True) == "\x1b[1;31mred\x1b[0m \\x1b[2J"


@given(st.text())
def test_nothing_unprintable_is_left(text: str) -> None:
    safe = neutralise(text)
    assert not any(ord(char) < 0x20 and char != "\t" for char in safe)
    assert "\x1b" not in safe
    assert not any(0x7F <= ord(char) < 0xA0 for char in safe)
