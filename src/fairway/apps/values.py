"""The written forms of single values: durations, sizes, names, domains, ports, commands. Pure text in, value out.

Every function returns the value or raises `ValueError` with "expected …" in the message.
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Callable
from typing import Final

NAME: Final = r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]*"
PROCESS: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
DURATION: Final = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
SIZE: Final = r"[0-9]+(\.[0-9]+)?([KMGT](i?B)?|B)?"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_POWERS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
METHOD: Final = r"[A-Z][A-Z0-9_-]{0,31}"
FIELD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
SCRYPT: Final = r"scrypt\$\d{1,8}\$\d{1,3}\$\d{1,3}\$[A-Za-z0-9+/=]{8,128}\$[A-Za-z0-9+/=]{8,172}"
LONGEST_S: Final = 366 * 86400.0
LONGEST_WAIT_S: Final = 86400.0
LARGEST: Final = 1 << 50


class WithheldError(ValueError):
    """A value that is wrong and perhaps a secret: whoever reports it does not repeat it."""


def text(value: str) -> str:
    """Return text that shows all of itself: no control, zero-width or direction characters."""
    if _UNSEEN.search(value):
        raise ValueError("expected text without control or invisible characters")
    return value


def multi_line(value: str) -> str:
    """Return a variable's value: anything but NUL."""
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


def name(value: str) -> str:
    """Return an app's name: 1 to 40 of a to z, 0 to 9 and dashes, no dash at either end."""
    if not re.fullmatch(NAME, value):
        raise ValueError("expected 1 to 40 of a-z, 0-9 and dashes, no dash at either end")
    return value


def process(value: str) -> str:
    """Return a process name: 1 to 40 of letters, digits, ``-`` and ``_``."""
    if not re.fullmatch(PROCESS, value):
        raise ValueError("expected 1 to 40 letters, digits, dashes and underscores")
    return value


def variable(value: str) -> str:
    """Return the name of an environment variable."""
    if not re.fullmatch(VARIABLE, value) or len(value) > 200:
        raise ValueError("expected letters, digits and underscores, no digit first")
    return value


def domain(value: str) -> str:
    """Return a host name in lower case: labels of a to z, 0 to 9 and dashes. Other scripts are written in Punycode."""
    lower = value.lower()
    if not value.isascii():
        raise ValueError("expected a host name of ASCII letters (others in Punycode, xn--…)")
    labels = lower.split(".")
    if not lower or len(lower) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("expected a host name such as api.example.com, without scheme, port or path")
    return lower


def url_path(value: str) -> str:
    """Return a path of a URL: starts with a slash, printable ASCII without blanks."""
    if not re.fullmatch(r"/[!-~]{0,1000}", value):
        raise ValueError("expected a path that starts with / and holds no blanks")
    return value


def route_path(value: str) -> str:
    """Return a path prefix to route by: as `url_path`, without query, fragment, ``..`` or doubled slashes."""
    url_path(value)
    if re.search(r"[?#%\\;{}\"'<>$]|//|(?:^|/)\.\.?(?:/|$)", value):
        raise ValueError("expected a plain path prefix such as /api, without ?, #, %, .. or //")
    return value


def duration(value: str) -> float:
    """Return seconds of ``250ms``, ``5s``, ``1m30s`` or a plain number of seconds.

    >>> duration("1m30s"), duration("250ms"), duration("2")
    (90.0, 0.25, 2.0)
    """
    if _NUMBER.fullmatch(value):
        seconds = float(value)
    elif re.fullmatch(DURATION, value) and len(value) <= 60:
        parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    else:
        raise ValueError("expected a duration such as 250ms, 5s, 2m or 1h30m")
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_S:
        raise ValueError("expected a duration of 0s to 366d")
    return seconds


def positive_duration(value: str) -> float:
    """Return seconds as `duration`, more than none."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError("expected a duration above 0s")
    return seconds


def size(value: str) -> int:
    """Return bytes of ``256M``, ``1.5G``, ``64KiB`` or a plain number; K, M, G, T are powers of 1024.

    >>> size("256M"), size("1G") == 1 << 30
    (268435456, True)
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?)(?:i?B)?", value)
    if match is None:
        raise ValueError("expected a size such as 256M or 1G")
    number = float(match[1]) * (1 << _POWERS[match[2]])
    if not 0 < number <= LARGEST:
        raise ValueError("expected a size above 0")
    return int(number)


def words(value: str) -> tuple[str, ...]:
    """Return the words of a command line; what only a shell can do is refused, not guessed."""
    text(value)
    bare = re.sub(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"", "''", value)
    if re.search(r"[|&;<>`]|\$\(", bare):
        raise ValueError('expected a program and its arguments, got shell syntax (write [sh, -c, "…"] if it is meant)')
    try:
        found = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"expected a command line, got {str(error).lower()}") from error
    if not found:
        raise ValueError("expected a program and its arguments, got nothing")
    return found


def whole(value: str, least: int, most: int) -> int:
    """Return a whole number within bounds."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", value) or not least <= int(value) <= most:
        raise ValueError(f"expected a whole number from {least} to {most}")
    return int(value)


def number(value: str, least: float, most: float) -> float:
    """Return a number within bounds."""
    if not _NUMBER.fullmatch(value) or not least <= float(value) <= most:
        raise ValueError(f"expected a number from {least:g} to {most:g}")
    return float(value)


def boolean(value: str) -> bool:
    """Return ``true`` or ``false``."""
    if value.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return value.lower() == "true"


def wait(value: str) -> float:
    """Return seconds as `positive_duration`, at most a day."""
    seconds = positive_duration(value)
    if seconds > LONGEST_WAIT_S:
        raise ValueError("expected a duration of at most 1d")
    return seconds


def method(value: str) -> str:
    """Return an HTTP method in capitals."""
    if not re.fullmatch(METHOD, value):
        raise ValueError("expected an HTTP method in capitals, such as GET")
    return value


def token(value: str) -> str:
    """Return a token as RFC 9110 has it: the name of a header or a cookie, at most 64 characters."""
    if not re.fullmatch(FIELD, value):
        raise ValueError("expected a name of letters, digits and dashes, without blanks or quotes")
    return value


def header_value(value: str) -> str:
    """Return the value of a header: visible ASCII and blanks, none at its ends."""
    if not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", value):
        raise ValueError("expected the value of a header: visible ASCII characters")
    return value


def network(value: str) -> str:
    """Return a network or an address, such as ``10.0.0.0/8``, as the standard library writes it.

    >>> network("10.1.2.3/8"), network("::1")
    ('10.0.0.0/8', '::1/128')
    """
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8, or an IP address") from None


def user(value: str) -> str:
    """Return a user's name for basic authentication: visible ASCII and blanks without a colon."""
    if not re.fullmatch(r"[ -9;-~]{1,100}", value):
        raise ValueError("expected the name of a user: visible ASCII characters without a colon")
    return value


def password_hash(value: str) -> str:
    """Return a password's hash as `fairway door hash` prints it; what is none may be the password itself.

    Raises:
        WithheldError: It has another form.
    """
    if not re.fullmatch(SCRYPT, value):
        raise WithheldError("expected a hash that begins with scrypt$, as `fairway door hash` makes it of a password")
    return value


FORMS: Final[dict[str, Callable[[str], object]]] = {
    "text": text,
    "multi_line": multi_line,
    "name": name,
    "process": process,
    "variable": variable,
    "domain": domain,
    "url_path": url_path,
    "route_path": route_path,
    "duration": duration,
    "positive_duration": positive_duration,
    "size": size,
    "words": words,
    "port": lambda value: whole(value, 1, 65535),
    "wait": wait,
    "boolean": boolean,
    "method": method,
    "token": token,
    "header_value": header_value,
    "network": network,
    "user": user,
    "password_hash": password_hash,
}
