"""Trace context: parsing and writing ``traceparent``, without a tracing library.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/, "traceparent Header Field Values".
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in a trace something happens.

    Attributes:
        trace_id: 32 hexadecimal digits, not all zero.
        span_id: 16 hexadecimal digits, not all zero.
        sampled: Whether the caller records the trace.
    """

    trace_id: str
    span_id: str
    sampled: bool = False

    def child(self) -> TraceContext:
        """Return a new span of the same trace."""
        return TraceContext(self.trace_id, _digits(8), self.sampled)

    def __str__(self) -> str:
        """Return the value of a ``traceparent`` field, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse(value: str | None) -> TraceContext | None:
    """Return the context that a ``traceparent`` field says, or None where it says none that is valid.

    A version above 00 may carry more after the flags; 00 may not, and ff is no version.

    >>> parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").sampled
    True
    """
    match = _FORM.fullmatch(value.strip()) if value is not None else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def start(*, sampled: bool = False) -> TraceContext:
    """Return the context of a new trace."""
    return TraceContext(_digits(16), _digits(8), sampled)


def _digits(size: int) -> str:
    digits = secrets.token_hex(size)
    return digits if digits.strip("0") else _digits(size)
