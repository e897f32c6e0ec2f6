"""A response's head: what an upstream may say, and how it is rendered for the client.

llhttp tokenises the fields. These are the checks around it, each for something that it accepts from a server:
versions 0.9 and 2.0, statuses below 100, RTSP and ICE, control characters in the reason, leading empty lines,
``Transfer-Encoding`` in HTTP/1.0, with other codings than ``chunked`` alone or repeated. All of them are 502: the
upstream cannot be trusted to frame its answer. White space at the ends of lines is no reason to (RFC 9112 5): a head
that llhttp refuses is shown to it once more without.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

import httptools

from fairway.proxy import fields
from fairway.proxy.fields import MAX_DIGITS, RESPONSE_KINDS, list_tokens, without_line_ends

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( [\t\x20-\x7e\x80-\xff]*)?\Z")
_LINE_BYTES: Final = 64
"""Longer status lines are read anew each time: an upstream may choose them, and must not fill the memory with them."""
_status_lines: dict[bytes, tuple[int, int, bytes]] = {}
_get_kind = RESPONSE_KINDS.get
_join = b"".join
_UNUSUAL: Final = frozenset({204, 304, 426})
"""Final answers without a body, and the one that carries an Upgrade field."""


class BadResponse(Exception):
    """An upstream's answer that cannot be passed on; the message says why."""


def _status_line(line: bytes) -> tuple[int, int, bytes]:
    match = _STATUS_LINE.match(line)
    if match is None:
        raise BadResponse("expected HTTP/1.x, a status and a reason in the first line")
    known = (int(match[1]), int(match[2]), b"HTTP/1.1 %b%b\r\n" % (match[2], match[3] or b" "))
    if len(line) <= _LINE_BYTES:
        if len(_status_lines) >= 1024:
            _status_lines.clear()
        _status_lines[line] = known
    return known


class ResponseHead:
    """What came in one head. `parse` fills it.

    Attributes:
        status: 100 to 999.
        start: Status line for the client.
        lines: Fields to pass on, rendered, in order, `Content-Length` not among them.
        named: What `Connection` names, in lower case: not passed on, nor as a trailer.
        length: Declared length, or -1.
        chunked: Whether the body is in chunked coding.
        reusable: Whether the upstream lets its connection go on.
        upgrade: Protocol that a 101 switches to, or None.
        plain: A final answer, framed by its length, with nothing for the door to add but the request id.
        rendered: Status line, `lines` and length for a client that goes on in HTTP/1.1, once they have been needed.
    """

    __slots__ = (
        "_coding",
        "_connection",
        "_fault",
        "chunked",
        "has_date",
        "length",
        "lines",
        "minor",
        "named",
        "plain",
        "rendered",
        "request_id",
        "reusable",
        "start",
        "status",
        "trailer",
        "upgrade",
        "upgrade_named",
    )

    def __init__(self) -> None:
        self.minor = 1
        self.status = 0
        self.length = -1
        self.start = self.rendered = b""
        self.reusable = True
        self.chunked = self.upgrade_named = self.has_date = self.plain = False
        self.lines: list[bytes] = []
        self.named: Collection[bytes] = ()
        self.upgrade: bytes | None = None
        self.request_id: bytes | None = None
        self.trailer: list[bytes] | None = None
        self._connection: list[bytes] | None = None
        self._coding: bytes | None = None
        self._fault: str | None = None

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} length={self.length} chunked={self.chunked}>"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field (called by httptools)."""
        kind = _get_kind(name)
        if kind is None:
            kind = RESPONSE_KINDS.classify(name)
        if kind == 0:
            self.lines.append(_join((name, b": ", value.rstrip(b" \t"), b"\r\n")))
        elif kind == 16:
            self.has_date = True
            self.lines.append(_join((name, b": ", value.rstrip(b" \t"), b"\r\n")))
        elif kind == 2:
            value = value.strip(b" \t")
            if len(value) > MAX_DIGITS:
                value = value.lstrip(b"0").rjust(1, b"0")
            if self.length >= 0 or not value.isdigit() or len(value) > MAX_DIGITS:
                self._fault = f"expected one Content-Length of at most {MAX_DIGITS} digits"
            else:
                self.length = int(value)
        else:
            self._special(kind, value.strip(b" \t"))

    def _special(self, kind: int, value: bytes) -> None:
        if kind == fields.TRANSFER_ENCODING:
            if self._coding is not None:
                self._fault = "expected one Transfer-Encoding, got several"
            self._coding = value
        elif kind == fields.CONNECTION:
            self._connection = [*(self._connection or ()), value]
        elif kind == fields.UPGRADE:
            self.upgrade = value if self.upgrade is None else self.upgrade + b", " + value
        elif kind == fields.TRAILER:
            self.trailer = [*(self.trailer or ()), value]
        elif kind == fields.REQUEST_ID:
            self.request_id = value

    def parse(self, data: bytes, end_of_line: int) -> None:
        """Read a whole head, which ends with CRLF CRLF.

        Raises:
            BadResponse: If it breaks the grammar or this file's rules.
        """
        line = data[:end_of_line]
        self.minor, self.status, self.start = _status_lines.get(line) or _status_line(line)
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # whether a 101 was asked for is for the exchange to judge
        except httptools.HttpParserError as error:
            trimmed = without_line_ends(data)
            if trimmed != data:
                self._parse_anew(trimmed, trimmed.find(b"\r\n"))
                return
            if "CONNECT/Upgrade" not in str(error):  # a 101 that names no protocol: the exchange refuses it
                raise BadResponse(f"malformed response head: {error}") from error
        if self._fault is not None:
            raise BadResponse(self._fault)
        if self._coding is not None:
            if self.minor == 0:
                raise BadResponse("expected no Transfer-Encoding in HTTP/1.0")
            if self.length >= 0:
                raise BadResponse("expected Content-Length or Transfer-Encoding, got both")
            if self._coding.lower() != b"chunked":
                raise BadResponse("expected no other transfer coding than chunked")
            self.chunked = True
        if self._connection is not None:
            self._settle_connection(self._connection)
        elif self.minor == 0:
            self.reusable = False
        if self.length >= 0 and self.has_date and not self.chunked:
            status = self.status
            self.plain = status >= 200 and status not in _UNUSUAL

    def render(self) -> bytes:
        """Render a plain answer's head for a client that goes on in HTTP/1.1, without the request id and its end."""
        self.rendered = rendered = b"".join((self.start, *self.lines, b"Content-Length: %d\r\n" % self.length))
        return rendered

    def _parse_anew(self, data: bytes, end_of_line: int) -> None:
        other = ResponseHead()
        other.parse(data, end_of_line)
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def _settle_connection(self, values: list[bytes]) -> None:
        tokens = set(list_tokens(values))
        self.upgrade_named = b"upgrade" in tokens
        if b"close" in tokens:
            self.reusable = False
        elif self.minor == 0:
            self.reusable = b"keep-alive" in tokens
        named = tokens - fields.NEVER_STRIPPED
        if named:
            self.named = named
            self.lines = fields.strip_named(self.lines, named)
            if b"trailer" in named:
                self.trailer = None
            if b"x-request-id" in named:
                self.request_id = None
            if b"date" in named:
                self.has_date = False

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a passed-on field, `name` in lower case, or None."""
        for line in self.lines:
            colon = line.index(b":")
            if line[:colon].lower() == name:
                return line[colon + 2 : -2]
        return None
