"""Header fields by what the door does with them.

A field name is classified once per spelling and remembered, so that the data path asks one dictionary lookup a field.
The memory is bounded: a client that invents names only makes the door forget and classify again.

Sources: RFC 9110 7.6.1 (Connection), RFC 9112 (framing), RFC 7239 (Forwarded), CVE-2024-45410 (a client that names
X-Forwarded-* in Connection), httpoxy (Proxy).
"""

from __future__ import annotations

import re
from typing import Final

PLAIN: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
DROP: Final = 5
TE: Final = 6
TRAILER: Final = 7
UPGRADE: Final = 8
EXPECT: Final = 9
FORWARDED_FOR: Final = 10
FORWARDED_PROTO: Final = 11
FORWARDED_HOST: Final = 12
FORWARDED_OTHER: Final = 13
REQUEST_ID: Final = 14
TRACEPARENT: Final = 15
DATE: Final = 16

_COMMON: Final = {
    b"transfer-encoding": TRANSFER_ENCODING,
    b"content-length": CONTENT_LENGTH,
    b"connection": CONNECTION,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"trailer": TRAILER,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
}
_REQUEST: Final = {
    **_COMMON,
    b"host": HOST,
    b"te": TE,
    b"expect": EXPECT,
    b"http2-settings": DROP,
    b"proxy": DROP,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": FORWARDED_HOST,
    b"forwarded": FORWARDED_OTHER,
    b"x-real-ip": FORWARDED_OTHER,
    b"traceparent": TRACEPARENT,
}
_RESPONSE: Final = {**_COMMON, b"te": DROP, b"date": DATE}
_LIMIT: Final = 2048
_NAME_BYTES: Final = 64
"""Longer names are classified anew each time: a stranger may choose them, and must not fill the memory with them."""

TRAILER_FORBIDDEN: Final = frozenset({b"transfer-encoding", b"content-length", b"host"})
"""Trailer fields that would speak of framing or routing: the message is refused."""

TRAILER_DROPPED: Final = frozenset(
    {
        *(name for name in _COMMON if name != b"x-request-id"),
        *(name for name in _REQUEST if name != b"traceparent"),
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"cache-control",
        b"max-forwards",
        b"www-authenticate",
    }
)
"""Trailer fields that a recipient could mistake for header fields (RFC 9110 6.5.1): left out, the message goes on."""

MAX_DIGITS: Final = 20
"""Digits that a Content-Length may have, zeros in front not counted: as many as 64 bits need."""

NEVER_STRIPPED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"close", b"keep-alive", b""})
"""Names that `Connection` may list without effect: framing and routing are the door's own business."""

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")

_LINE_ENDS: Final = re.compile(rb"(?<=[^\r\n\t ])[\t ]+(?=\r\n)")
"""White space at the end of a line that holds something else: of a line of nothing but white space nothing is taken, or
the head would end there."""


class Kinds:
    """Remembers the kind of every spelling of a field name, in one direction."""

    __slots__ = ("_known", "_names", "get")

    def __init__(self, names: dict[bytes, int]) -> None:
        self._names = names
        self._known: dict[bytes, int] = dict(names)
        self.get = self._known.get

    def classify(self, name: bytes) -> int:
        """Return the kind of `name` and remember it."""
        lower = name.lower()
        kind = self._names.get(lower)
        if kind is None:
            kind = self._of_family(lower)
        if len(name) <= _NAME_BYTES:
            if len(self._known) >= _LIMIT:
                self._known.clear()
                self._known.update(self._names)
            self._known[name] = kind
        return kind

    def _of_family(self, lower: bytes) -> int:
        if self._names is not _REQUEST:
            return PLAIN
        if lower.startswith(b"x-forwarded-"):
            return FORWARDED_OTHER
        if b"_" in lower:
            # CGI-like servers fold "_" and "-" into one: an alias of a field that the door guards is an attack.
            plain = lower.replace(b"_", b"-")
            if plain in _REQUEST or plain.startswith(b"x-forwarded-"):
                return DROP
        return PLAIN


REQUEST_KINDS: Final = Kinds(_REQUEST)
RESPONSE_KINDS: Final = Kinds(_RESPONSE)


def list_tokens(values: list[bytes]) -> list[bytes]:
    """Return the lower-case members of a comma-separated list, over several fields, empty ones left out."""
    return [token for value in values for part in value.split(b",") if (token := part.strip(b" \t").lower())]


def is_token(value: bytes) -> bool:
    """Tell whether `value` is a token as RFC 9110 5.6.2 has it."""
    return _TOKEN.match(value) is not None


def may_trail(name: bytes) -> bool:
    """Tell whether a trailer field may be passed on; an alias with underscores counts as what it stands for."""
    plain = name.lower().replace(b"_", b"-")
    return plain not in TRAILER_DROPPED and not plain.startswith(b"x-forwarded-")


def strip_named(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """Return the rendered field lines whose name is not in `names` (lower case)."""
    return [line for line in lines if line[: line.index(b":")].lower() not in names]


def without_line_ends(data: bytes) -> bytes:
    """Return a head without the white space at the ends of its lines."""
    return _LINE_ENDS.sub(b"", data)
