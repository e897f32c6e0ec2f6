"""What a JSON line says of itself: level, message, time. Any other line says nothing, and costs one comparison."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from fairway.logs.line import Level

_LEVELS: dict[str, Level] = {
    "trace": "trace",
    "debug": "debug",
    "verbose": "debug",
    "info": "info",
    "information": "info",
    "notice": "info",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "critical": "fatal",
    "fatal": "fatal",
    "panic": "fatal",
    "alert": "fatal",
    "emergency": "fatal",
}
# pino and bunyan number them.
_NUMBERED: dict[int, Level] = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}


class _Fields(msgspec.Struct, gc=False):
    level: Any = None
    severity: Any = None
    lvl: Any = None
    LogLevel: Any = None
    msg: Any = None
    message: Any = None
    event: Any = None
    Message: Any = None
    time: Any = None
    ts: Any = None
    timestamp: Any = None
    Timestamp: Any = None
    at_timestamp: Any = msgspec.field(default=None, name="@timestamp")


class Said(NamedTuple):
    """What a line says of itself; None for what it does not say."""

    level: Level | None = None
    message: str | None = None
    time: float | None = None


NOTHING = Said()
_decoder = msgspec.json.Decoder(_Fields)


def read(data: bytes | str) -> Said:
    """Return what the line says; `NOTHING` where it is no JSON object."""
    if not data or data[:1] not in {b"{", "{"}:
        return NOTHING
    try:
        fields = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return NOTHING
    message = next((m for m in (fields.msg, fields.message, fields.event, fields.Message) if isinstance(m, str)), None)
    return Said(_level(fields), message, _time(fields))


def _level(fields: _Fields) -> Level | None:
    for value in (fields.level, fields.severity, fields.lvl, fields.LogLevel):
        if isinstance(value, str):
            return _LEVELS.get(value.lower())
        if isinstance(value, int):
            return _NUMBERED.get(value)
    return None


def _time(fields: _Fields) -> float | None:
    for value in (fields.time, fields.ts, fields.timestamp, fields.at_timestamp, fields.Timestamp):
        if isinstance(value, str):
            try:
                when = datetime.fromisoformat(value)
            except ValueError:
                return None
            return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _seconds(float(value))
    return None


def _seconds(value: float) -> float | None:
    """Return an epoch in seconds, milliseconds, microseconds or nanoseconds as seconds; None where it is none."""
    for divisor in (1.0, 1e3, 1e6, 1e9):
        if 1e9 <= value / divisor < 1e10:
            return value / divisor
    return None
