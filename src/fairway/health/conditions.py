"""Conditions of a health check: ``[STATUS] == 200``, ``[BODY].db.state == up``, ``len([BODY].items) > 0``.

Grammar, white space free between tokens::

    condition   = operand operator value
    operand     = placeholder | ("len" | "has") "(" placeholder ")"
    placeholder = "[STATUS]" | "[RESPONSE_TIME]" | "[CONNECTED]" | "[CERTIFICATE_EXPIRATION]"
                | "[BODY]" { "." name | "[" digits "]" }
    operator    = "==" | "!=" | "<" | "<=" | ">" | ">="
    value       = number | duration | "true" | "false" | "null" | word | quoted
                | "any" "(" value { "," value } ")" | "pat" "(" glob ")"

`[RESPONSE_TIME]` is compared in milliseconds where the value has no unit, `[CERTIFICATE_EXPIRATION]` (what is left) in
seconds; durations take ``ms``, ``s``, ``m``, ``h``, ``d``. `any` and `pat` go with ``==`` and ``!=`` only.

Source: the condition language of Gatus, in its documented form.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable
from typing import Any

import msgspec

from fairway.errors import FairwayError

Scalar = str | int | float | bool | None

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_PLACEHOLDERS = ("STATUS", "RESPONSE_TIME", "CONNECTED", "CERTIFICATE_EXPIRATION", "BODY")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_DURATION = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_MAX_LENGTH = 1000
_ABSENT = object()


class ConditionError(FairwayError):
    """A condition cannot be read.

    Attributes:
        source: The condition as given.
        position: Index of the first character that cannot be, from 0.
    """

    code = "health.condition"
    default_hint = "Write it like `[STATUS] == 200`, `[RESPONSE_TIME] < 300` or `[BODY].status == UP`."

    def __init__(self, source: str, position: int, expected: str) -> None:
        found = source[position : position + 20]
        came = f"got {found!r}" if found else "got its end"
        super().__init__(f"condition {source[:200]!r}: expected {expected} at character {position + 1}, {came}")
        self.source = source
        self.position = position


class Facts(msgspec.Struct, frozen=True):
    """What a probe saw.

    Attributes:
        connected: Whether a connection came about.
        status: HTTP status, or None.
        seconds: Response time.
        body: Bytes of the body that were read.
        truncated: Whether the body had more than was read.
        certificate_left: Seconds until the certificate expires, or None without TLS.
    """

    connected: bool = False
    status: int | None = None
    seconds: float = 0.0
    body: bytes = b""
    truncated: bool = False
    certificate_left: float | None = None


class Duration(msgspec.Struct, frozen=True):
    """A value with a unit, in seconds."""

    seconds: float


class AnyOf(msgspec.Struct, frozen=True):
    """Matches where one of the values does."""

    values: tuple[Scalar | Duration, ...]


class Pattern(msgspec.Struct, frozen=True):
    """Matches a whole text: ``*`` any run of characters, ``?`` one."""

    glob: str


Value = Scalar | Duration | AnyOf | Pattern


class Condition(msgspec.Struct, frozen=True):
    """One parsed condition.

    Attributes:
        source: As written.
        placeholder: One of ``STATUS``, ``RESPONSE_TIME``, ``CONNECTED``, ``CERTIFICATE_EXPIRATION``, ``BODY``.
        path: Steps into the JSON body: names and indices.
        function: ``len``, ``has`` or an empty string.
        operator: ``==``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        value: What is compared with.
    """

    source: str
    placeholder: str
    path: tuple[str | int, ...]
    function: str
    operator: str
    value: Value

    @property
    def reads_body(self) -> bool:
        """Whether the body has to be read to decide."""
        return self.placeholder == "BODY"

    def check(self, facts: Facts) -> str | None:
        """Return None where the condition holds, else a sentence with what was seen."""
        seen = self._seen(facts)
        if self._holds(seen):
            return None
        shown = "nothing" if seen is _ABSENT else _show(seen, self.placeholder)
        return f"{self.source}: got {shown}"

    def _seen(self, facts: Facts) -> Any:
        if self.placeholder == "STATUS":
            return _ABSENT if facts.status is None else facts.status
        if self.placeholder == "RESPONSE_TIME":
            return facts.seconds * 1000.0
        if self.placeholder == "CONNECTED":
            return facts.connected
        if self.placeholder == "CERTIFICATE_EXPIRATION":
            return _ABSENT if facts.certificate_left is None else facts.certificate_left
        found = _walk(facts, self.path)
        if self.function == "has":
            return found is not _ABSENT
        if self.function == "len":
            return len(found) if isinstance(found, str | list | dict) else _ABSENT
        return found

    def _holds(self, seen: Any) -> bool:
        if seen is _ABSENT:
            return False
        if isinstance(self.value, Pattern):
            return fnmatch.fnmatchcase(_text(seen), self.value.glob) == (self.operator == "==")
        if isinstance(self.value, AnyOf):
            return any(_equal(seen, v, self.placeholder) for v in self.value.values) == (self.operator == "==")
        if self.operator in {"==", "!="}:
            return _equal(seen, self.value, self.placeholder) == (self.operator == "==")
        left, right = _number(seen), _number(_plain(self.value, self.placeholder))
        return left is not None and right is not None and _OPERATORS[self.operator](left, right)

    def __str__(self) -> str:
        return self.source


def parse(source: str) -> Condition:
    """Return the condition that `source` (at most 1,000 characters) says. Raises `ConditionError` with the position."""
    return _Parser(source).condition()


class _Parser:
    """Recursive descent over one condition."""

    def __init__(self, source: str) -> None:
        if len(source) > _MAX_LENGTH:
            raise ConditionError(source, _MAX_LENGTH, f"at most {_MAX_LENGTH} characters")
        self.source = source
        self.at = 0

    def condition(self) -> Condition:
        function = ""
        for name in ("len", "has"):
            if self._peek(f"{name}("):
                function = name
                self._take(f"{name}(")
        placeholder, path, started = self._placeholder()
        if function:
            if placeholder != "BODY":
                raise ConditionError(self.source, started, f"[BODY] inside {function}()")
            self._expect(")")
        operator_at = self._skip()
        sign = next((text for text in _OPERATORS if self._peek(text)), None)
        if sign is None:
            raise ConditionError(self.source, operator_at, "one of == != < <= > >=")
        self._take(sign)
        value_at = self._skip()
        value = self._value(nested=False)
        if isinstance(value, AnyOf | Pattern) and sign not in {"==", "!="}:
            raise ConditionError(self.source, value_at, f"a number after {sign}")
        if sign not in {"==", "!="} and _number(_plain(value, placeholder)) is None:
            raise ConditionError(self.source, value_at, f"a number or duration after {sign}")
        if self._skip() != len(self.source):
            raise ConditionError(self.source, self.at, "the end of the condition")
        return Condition(self.source.strip(), placeholder, path, function, sign, value)

    def _placeholder(self) -> tuple[str, tuple[str | int, ...], int]:
        started = self._skip()
        for name in _PLACEHOLDERS:
            if self._peek(f"[{name}]"):
                self._take(f"[{name}]")
                return name, self._path() if name == "BODY" else (), started
        raise ConditionError(self.source, started, "one of " + " ".join(f"[{name}]" for name in _PLACEHOLDERS))

    def _path(self) -> tuple[str | int, ...]:
        steps: list[str | int] = []
        while True:
            if match := re.compile(r"\.([A-Za-z0-9_$-]+)").match(self.source, self.at):
                steps.append(match[1])
            elif match := re.compile(r"\[([0-9]{1,9})\]").match(self.source, self.at):
                steps.append(int(match[1]))
            elif self.source[self.at : self.at + 1] in {".", "["}:
                raise ConditionError(self.source, self.at, "a path like .name or [0]")
            else:
                return tuple(steps)
            self.at = match.end()

    def _value(self, *, nested: bool) -> Value:
        started = self._skip()
        if not nested and self._peek("any("):
            return self._any()
        if not nested and self._peek("pat("):
            self._take("pat(")
            end = self.source.rfind(")")
            if end < self.at:
                raise ConditionError(self.source, len(self.source), "a closing parenthesis")
            glob, self.at = self.source[self.at : end].strip(), end + 1
            return Pattern(glob)
        quote = self.source[self.at : self.at + 1]
        if quote and quote in "\"'":
            end = self.source.find(quote, self.at + 1)
            if end < 0:
                raise ConditionError(self.source, len(self.source), f"a closing {quote}")
            text, self.at = self.source[self.at + 1 : end], end + 1
            return text
        match = re.compile(r"[^\s,()]+" if nested else r"\S.*").match(self.source, self.at)
        if match is None:
            raise ConditionError(self.source, started, "a value")
        self.at = match.end()
        return _scalar(match[0].strip())

    def _any(self) -> AnyOf:
        self._take("any(")
        values: list[Scalar | Duration] = []
        while True:
            value = self._value(nested=True)
            assert not isinstance(value, AnyOf | Pattern)
            values.append(value)
            self._skip()
            if self._peek(")"):
                self._take(")")
                return AnyOf(tuple(values))
            self._expect(",")

    def _skip(self) -> int:
        while self.at < len(self.source) and self.source[self.at].isspace():
            self.at += 1
        return self.at

    def _peek(self, text: str) -> bool:
        self._skip()
        return self.source.startswith(text, self.at)

    def _take(self, text: str) -> None:
        self.at += len(text)

    def _expect(self, text: str) -> None:
        if not self._peek(text):
            raise ConditionError(self.source, self.at, repr(text))
        self._take(text)


def _scalar(text: str) -> Scalar | Duration:
    if text in {"true", "false"}:
        return text == "true"
    if text == "null":
        return None
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    if match := _DURATION.fullmatch(text):
        return Duration(float(match[1]) * _UNITS[match[2]])
    return text


def _walk(facts: Facts, path: tuple[str | int, ...]) -> Any:
    """Return what the path leads to in the JSON body; the text itself without a path, `_ABSENT` where it ends."""
    if not path:
        return facts.body.decode("utf-8", "replace")
    if facts.truncated:
        return _ABSENT
    try:
        value = msgspec.json.decode(facts.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _ABSENT
    for step in path:
        named = isinstance(value, dict) and isinstance(step, str) and step in value
        counted = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not (named or counted):
            return _ABSENT
        value = value[step]
    return value


def _plain(value: Value, placeholder: str) -> Any:
    """Return the value in the placeholder's unit: milliseconds for response times, else seconds."""
    if isinstance(value, Duration):
        return value.seconds * 1000.0 if placeholder == "RESPONSE_TIME" else value.seconds
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return None


def _equal(seen: Any, value: Value, placeholder: str) -> bool:
    wanted = _plain(value, placeholder)
    if isinstance(seen, bool) or isinstance(wanted, bool) or seen is None or wanted is None:
        return seen is wanted or _text(seen) == _text(wanted)
    left, right = _number(seen), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return _text(seen) == _text(wanted)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _show(seen: Any, placeholder: str) -> str:
    if placeholder == "RESPONSE_TIME":
        return f"{seen:.0f} ms"
    if placeholder == "CERTIFICATE_EXPIRATION":
        return f"{seen / 3600.0:.1f} h"
    text = _text(seen)
    return repr(text if len(text) <= 80 else text[:77] + "...") if isinstance(seen, str) else text[:80]
