"""The condition language: what it says, what it refuses and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.health.conditions import ConditionError, Facts, parse

UP = Facts(
    connected=True,
    status=200,
    seconds=0.120,
    body=b'{"status":"UP","db":{"pool":[3,4]},"ok":true,"none":null,"v":"1.5"}',
    certificate_left=50 * 3600.0,
)


@pytest.mark.parametrize(
    "condition",
    [
        "[STATUS] == 200",
        "[STATUS]==200",
        "  [STATUS]  <  300  ",
        "[STATUS] == any(200, 204)",
        "[STATUS] != any(500, 503)",
        "[RESPONSE_TIME] < 300",
        "[RESPONSE_TIME] < 300ms",
        "[RESPONSE_TIME] <= 0.2s",
        "[CONNECTED] == true",
        "[CERTIFICATE_EXPIRATION] > 48h",
        "[CERTIFICATE_EXPIRATION] > 2d",
        "[BODY].status == UP",
        '[BODY].status == "UP"',
        "[BODY].db.pool[1] >= 4",
        "[BODY].ok == true",
        "[BODY].none == null",
        "[BODY].v == 1.5",
        "len([BODY].db.pool) == 2",
        "has([BODY].db) == true",
        "has([BODY].nothing) == false",
        "[BODY] == pat(*UP*)",
        "[BODY].status == pat(U?)",
        "[BODY].status != pat(DOWN*)",
    ],
)
def test_holds(condition: str) -> None:
    assert parse(condition).check(UP) is None


@pytest.mark.parametrize(
    ("condition", "seen"),
    [
        ("[STATUS] == 204", "200"),
        ("[STATUS] == any(204, 301)", "200"),
        ("[RESPONSE_TIME] < 100", "120 ms"),
        ("[CERTIFICATE_EXPIRATION] > 72h", "50.0 h"),
        ("[BODY].status == DOWN", "'UP'"),
        ("[BODY].missing == 1", "nothing"),
        ("[BODY].missing != 1", "nothing"),
        ("[BODY].db.pool[7] == 1", "nothing"),
        ("len([BODY].ok) == 1", "nothing"),
        ("[BODY].ok == 1", "true"),
        ("[BODY].none == 0", "null"),
    ],
)
def test_says_what_was_seen(condition: str, seen: str) -> None:
    assert parse(condition).check(UP) == f"{condition}: got {seen}"


def test_without_an_answer_nothing_holds() -> None:
    nothing = Facts()
    assert parse("[STATUS] != 500").check(nothing) == "[STATUS] != 500: got nothing"
    assert parse("[CERTIFICATE_EXPIRATION] > 1h").check(nothing) is not None
    assert parse("[CONNECTED] == false").check(nothing) is None


def test_a_truncated_body_is_not_read_as_json() -> None:
    cut = Facts(status=200, body=b'{"a": 1}', truncated=True)
    assert parse("[BODY].a == 1").check(cut) is not None


def test_a_deeply_nested_body_is_no_crash() -> None:
    deep = Facts(status=200, body=b"[" * 60_000)
    assert parse("[BODY].a == 1").check(deep) == "[BODY].a == 1: got nothing"


@pytest.mark.parametrize(
    ("condition", "position", "expected"),
    [
        ("", 0, "one of [STATUS]"),
        ("[STATU] == 1", 0, "one of [STATUS]"),
        ("[STATUS] = 200", 9, "one of == !="),
        ("[STATUS]", 8, "one of == !="),
        ("[STATUS] == ", 12, "a value"),
        ("[STATUS] < fast", 11, "a number or duration"),
        ("[STATUS] < pat(2*)", 11, "a number"),
        ("[STATUS] == any(200", 19, "','"),
        ("[STATUS] == any(200,", 20, "a value"),
        ("[STATUS] == pat(2*", 18, "a closing parenthesis"),
        ('[BODY].a == "x', 14, 'a closing "'),
        ('[BODY].a == "x" y', 16, "the end"),
        ("[BODY]. == 1", 6, "a path"),
        ("[BODY][x] == 1", 6, "a path"),
        ("len([STATUS]) == 1", 4, "[BODY] inside len()"),
        ("len([BODY].a == 1", 13, "')'"),
    ],
)
def test_refuses_and_says_where(condition: str, position: int, expected: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse(condition)
    assert caught.value.position == position
    assert expected in caught.value.message
    assert f"at character {position + 1}" in caught.value.message
    assert caught.value.code == "health.condition"


def test_refuses_what_is_too_long() -> None:
    with pytest.raises(ConditionError, match="at most 1000 characters"):
        parse("[BODY] == " + "x" * 1000)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_a_clear_error(text: str) -> None:
    try:
        condition = parse(text)
    except ConditionError as error:
        refused = error
    else:
        assert (condition.check(UP) or condition.source).startswith(condition.source)
        return
    assert 0 <= refused.position <= len(text)


@given(st.sampled_from(["[STATUS] ", "[BODY].a ", "len([BODY].x) "]), st.text(max_size=30), st.binary(max_size=40))
def test_no_answer_of_a_target_raises(left: str, right: str, body: bytes) -> None:
    try:
        condition = parse(f"{left}== {right}")
    except ConditionError:
        return
    condition.check(Facts(status=200, body=body))
