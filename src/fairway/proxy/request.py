"""A request's head: what llhttp accepts, held to what a proxy has to refuse, and rendered anew for the upstream.

httptools (llhttp) tokenises; it refuses control characters, obs-fold, bare LF and CR in heads, both framings at once,
repeated lengths. These are the checks around it, each for something that it accepts:

- request line: more than one space between the parts, ``HTTP/0.9`` and a line without a version, version 2.0;
- target: a fragment, user information, other schemes than http and https, ``*`` without OPTIONS;
- ``Host``: missing, repeated, not a host name with an optional port;
- ``Transfer-Encoding``: in HTTP/1.0, repeated, with anything but ``chunked`` alone;
- size and number of the fields (counted by the connection);
- trailing white space in values, which llhttp keeps.

Where it is stricter than the RFCs, it is shown what parses alike: an upper-case method that it does not know as POST,
``HTTP/1.2`` to ``HTTP/1.9`` as ``HTTP/1.1`` (RFC 9110 2.5); and a head that it refuses once more without the spaces and
tabs at the ends of lines, which are no part of a value (RFC 9112 5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final

import httptools

from fairway.proxy import fields
from fairway.proxy.fields import MAX_DIGITS, REQUEST_KINDS, list_tokens, without_line_ends

_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_EXTENSION_METHOD: Final = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}\Z")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]\Z")
_LATER_VERSION: Final = re.compile(rb"HTTP/1\.[2-9]\Z")
_LATER_LINE: Final = re.compile(rb"\A[^\r\n]* HTTP/1\.[2-9](?:\r|\Z)")
_HOST: Final = re.compile(
    rb"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.))*|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{0,5}))?\Z"
)
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")
_TRACE: Final = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT: Final = re.compile(  # only a later version may bring more than these parts
    rb"(?:00%b|(?!00|ff)[0-9a-f]{2}%b(?:-.*)?)\Z" % (_TRACE, _TRACE)
)
MAX_TARGET: Final = 16 * 1024
CHALLENGES: Final = b"/.well-known/acme-challenge/"

_hosts: dict[bytes, str] = {}
_get_kind = REQUEST_KINDS.get
_join = b"".join


def may_parse_alike(data: bytes) -> bool:
    """Tell whether a head of which a part has come may be accepted in the end although llhttp refuses that part."""
    return data.endswith((b" ", b"\t")) or _LATER_LINE.match(data) is not None or without_line_ends(data) != data


class Refusal(Exception):
    """A request that the door answers itself with `status` and closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def host_name(value: bytes) -> str | None:
    """Return the lower-case host of a Host value without port and final dot, or None where it is not valid.

    An IPv6 address comes in brackets and in its shortest form, however it was written.

    Valid answers are remembered, at most 4,096 of them.
    """
    known = _hosts.get(value)
    if known is not None:
        return known
    match = _HOST.match(value)
    if match is None or len(value) > 260 or int(match["port"] or b"0") > 65535:
        return None
    name = match["name"].decode("ascii").lower().removesuffix(".")
    if name[0] == "[":
        try:
            name = f"[{ipaddress.IPv6Address(name[1:-1])}]"
        except ValueError:
            return None
    if len(_hosts) >= 4096:
        _hosts.clear()
    _hosts[value] = name
    return name


class RequestHead:
    """What came in one head. `parse` fills it.

    Attributes:
        method: As sent.
        target: Path and query as sent, byte for byte; absolute form reduced to it.
        host: The authority to forward, as sent.
        name: Lower-case host for routing.
        minor: 1 or 0, of HTTP/1.x.
        lines: Fields to forward, rendered, in order.
        named: What `Connection` names, in lower case: not passed on, nor as a trailer.
        length: Declared length of the body, or -1.
        chunked: Whether the body is in chunked coding.
        keep_alive: Whether the client lets the connection go on.
        upgrade: Offered protocols to pass on, or None.
        expects: Whether the client waits for 100.
        direct: An answer that is framed by its length can be passed on as it came: HTTP/1.1, not to HEAD, nothing to be
            agreed on, and the connection goes on.
        plain: And it has neither a body nor anything else that is not in `lines`: see `express`.
        rendered: Request line, Host and `lines` for the upstream, once they have been needed.
        found: The table that was asked last for this head's route, and its answer.
    """

    __slots__ = (
        "_coding",
        "_connection",
        "_expect",
        "_fault",
        "_upgrade",
        "chunked",
        "direct",
        "expects",
        "forwarded_for",
        "forwarded_host",
        "forwarded_proto",
        "found",
        "host",
        "keep_alive",
        "length",
        "lines",
        "method",
        "minor",
        "name",
        "named",
        "plain",
        "rendered",
        "request_id",
        "target",
        "te_trailers",
        "traceparent",
        "trailer",
        "trusted",
        "upgrade",
    )

    def __init__(self, trusted: bool) -> None:
        self.trusted = trusted
        self.method = self.target = self.rendered = b""
        self.name = ""
        self.minor = 1
        self.length = -1
        self.keep_alive = True
        self.chunked = self.expects = self.te_trailers = self.direct = self.plain = False
        self.lines: list[bytes] = []
        self.named: Collection[bytes] = ()
        self.host: bytes | None = None
        self.upgrade: bytes | None = None
        self.request_id: bytes | None = None
        self.traceparent: bytes | None = None
        self.forwarded_for: list[bytes] | None = None
        self.forwarded_proto: bytes | None = None
        self.forwarded_host: bytes | None = None
        self.trailer: list[bytes] | None = None
        self.found: tuple[object, object] | None = None
        self._connection: list[bytes] | None = None
        self._coding: bytes | None = None
        self._expect: bytes | None = None
        self._upgrade: bytes | None = None
        self._fault: str | None = None

    def __repr__(self) -> str:
        return f"<RequestHead {self.method.decode('latin-1')} {self.name} {self.target[:80].decode('latin-1')}>"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field (called by httptools)."""
        kind = _get_kind(name)
        if kind is None:
            kind = REQUEST_KINDS.classify(name)
        if kind == 0:
            self.lines.append(_join((name, b": ", value.rstrip(b" \t"), b"\r\n")))
        elif kind == 1:
            if self.host is not None:
                self._fault = "expected one Host, got several"
            self.host = value.rstrip(b" \t")
        else:
            self._special(kind, name, value.strip(b" \t"))

    def _special(self, kind: int, name: bytes, value: bytes) -> None:
        if kind == fields.CONTENT_LENGTH:
            if len(value) > MAX_DIGITS:
                value = value.lstrip(b"0").rjust(1, b"0")
            if self.length >= 0 or not value.isdigit() or len(value) > MAX_DIGITS:
                self._fault = f"expected one Content-Length of at most {MAX_DIGITS} digits"
            else:
                self.length = int(value)
        elif kind == fields.TRANSFER_ENCODING:
            if self._coding is not None:
                self._fault = "expected one Transfer-Encoding, got several"
            self._coding = value
        elif kind == fields.CONNECTION:
            self._connection = [*(self._connection or ()), value]
        elif kind == fields.TE:
            self.te_trailers = self.te_trailers or b"trailers" in list_tokens([value])
        elif kind == fields.TRAILER:
            self.trailer = [*(self.trailer or ()), value]
        elif kind == fields.UPGRADE:
            self._upgrade = value if self._upgrade is None else self._upgrade + b", " + value
        elif kind == fields.EXPECT:
            self._expect = value if self._expect is None else self._expect + b", " + value
        elif kind == fields.REQUEST_ID:
            self.request_id = value if _REQUEST_ID.match(value) else None
        elif kind == fields.TRACEPARENT:
            self.traceparent = value if _TRACEPARENT.match(value) else None
        elif kind != fields.DROP and self.trusted:
            self._forwarded(kind, name, value)

    def _forwarded(self, kind: int, name: bytes, value: bytes) -> None:
        if kind == fields.FORWARDED_FOR:
            self.forwarded_for = [*(self.forwarded_for or ()), value]
        elif kind == fields.FORWARDED_PROTO:
            self.forwarded_proto = value
        elif kind == fields.FORWARDED_HOST:
            self.forwarded_host = value
        else:
            self.lines.append(b"%b: %b\r\n" % (name, value))

    def parse(self, data: bytes, end_of_line: int) -> None:
        """Read a whole head, which ends with CRLF CRLF; `end_of_line` is where the request line's CRLF begins.

        Raises:
            Refusal: If it has to be refused.
        """
        parts = data[:end_of_line].split(b" ")
        if len(parts) != 3:
            raise Refusal(400, "expected METHOD TARGET VERSION with single spaces in the request line")
        method, self.target, version = parts
        self.method = method
        shown = data
        if version != b"HTTP/1.1":
            self._unusual_version(version)
            if self.minor:
                shown = data[: end_of_line - len(version)] + b"HTTP/1.1" + data[end_of_line:]
        if method not in _METHODS:
            shown = self._unusual_method(method, shown)
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(shown)
        except httptools.HttpParserUpgrade:
            pass  # the door decides on upgrades itself, in _settle
        except httptools.HttpParserError as error:
            trimmed = without_line_ends(data)
            if trimmed != data:
                self._parse_anew(trimmed, end_of_line)
                return
            if "Content-Length" not in str(error):
                self._raise_coding()
            raise Refusal(400, f"malformed request head: {error}") from error
        if self._fault is not None:
            raise Refusal(400, self._fault)
        self._settle()

    def _parse_anew(self, data: bytes, end_of_line: int) -> None:
        other = RequestHead(self.trusted)
        other.parse(data, end_of_line)
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def _unusual_method(self, method: bytes, data: bytes) -> bytes:
        if method in {b"CONNECT", b"TRACE"}:
            raise Refusal(405, f"{method.decode()} is not served")
        if not _EXTENSION_METHOD.match(method):
            raise Refusal(400, "expected an upper-case method")
        return b"POST" + data[len(method) :]

    def _unusual_version(self, version: bytes) -> None:
        if version == b"HTTP/1.0":
            self.minor = 0
            self.keep_alive = False
        elif _LATER_VERSION.match(version):
            return  # RFC 9110 2.5: as the latest minor version that is known
        elif _VERSION.match(version) and version != b"HTTP/0.9":
            raise Refusal(505, "expected HTTP/1.1 or HTTP/1.0")
        else:
            raise Refusal(400, "expected HTTP/1.1 or HTTP/1.0 at the end of the request line")

    def _settle(self) -> None:
        target = self.target
        if target[:1] != b"/":
            self._unusual_target(target)
        elif b"#" in target:
            raise Refusal(400, "expected a target without a fragment")
        if len(target) > MAX_TARGET:
            raise Refusal(414, f"expected a target of at most {MAX_TARGET} bytes")
        host = self.host
        if host is None:
            if self.minor:
                raise Refusal(400, "expected a Host field")
        else:
            name = host_name(host)
            if name is None:
                raise Refusal(400, "expected Host to be a host name with an optional port")
            self.name = name
        if self._coding is not None:
            self._raise_coding()
            self.chunked = True
        if self._connection is not None:
            self._settle_connection(self._connection)
        if self._expect is not None and self.minor:
            if self._expect.lower() != b"100-continue":
                raise Refusal(417, "expected no other expectation than 100-continue")
            self.expects = self.chunked or self.length > 0
        if self.keep_alive and self.minor and self.method != b"HEAD" and self.upgrade is None and not self.expects:
            self.direct = True
            self.plain = (
                self.length < 0
                and not self.chunked
                and not self.te_trailers
                and self.forwarded_for is None
                and self.forwarded_proto is None
                and self.forwarded_host is None
                and not self.target.startswith(CHALLENGES)
            )

    def _unusual_target(self, target: bytes) -> None:
        if target == b"*":
            if self.method != b"OPTIONS":
                raise Refusal(400, "expected the target * with OPTIONS only")
            return
        scheme, mark, rest = target.partition(b"://")
        if not mark or scheme.lower() not in {b"http", b"https"} or b"#" in rest:
            raise Refusal(400, "expected a target that starts with / or is an http URL")
        cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        authority, path = rest[:cut], rest[cut:]
        if host_name(authority) is None:
            raise Refusal(400, "expected a host name with an optional port in the target")
        if self.host is None and self.minor:
            raise Refusal(400, "expected a Host field")
        if self.host is not None and host_name(self.host) is None:
            raise Refusal(400, "expected Host to be a host name with an optional port")
        self.host = authority  # RFC 9112 3.2.2: the target's authority overrides Host
        if path[:1] != b"/":
            path = b"*" if not path and self.method == b"OPTIONS" else b"/" + path
        self.target = path

    def _raise_coding(self) -> None:
        coding = self._coding
        if coding is None:
            return
        if self.minor == 0:
            raise Refusal(400, "expected no Transfer-Encoding in HTTP/1.0")
        if self.length >= 0:
            raise Refusal(400, "expected Content-Length or Transfer-Encoding, got both")
        if coding.lower() == b"chunked":
            return
        tokens = [part.strip(b" \t").lower() for part in coding.split(b",")]
        if not all(fields.is_token(token) for token in tokens) or b"chunked" in tokens[:-1]:
            raise Refusal(400, "expected Transfer-Encoding: chunked")
        raise Refusal(501, "expected no other transfer coding than chunked")

    def _settle_connection(self, values: list[bytes]) -> None:
        tokens = set(list_tokens(values))
        if b"close" in tokens:
            self.keep_alive = False
        elif self.minor == 0:
            self.keep_alive = b"keep-alive" in tokens
        if b"upgrade" in tokens and self._upgrade is not None and self.minor and self.length <= 0 and not self.chunked:
            # h2c would open a tunnel that no rule of the door sees; a body before an upgrade is not passed on as one.
            offers = [offer.strip(b" \t") for offer in self._upgrade.split(b",")]
            wanted = [offer for offer in offers if offer and offer.lower() not in {b"h2c", b"h2"}]
            self.upgrade = b", ".join(wanted) if wanted and all(map(_is_protocol, wanted)) else None
        named = tokens - fields.NEVER_STRIPPED
        if named:
            self.named = named.copy()
            self.lines = fields.strip_named(self.lines, named)
            if b"te" not in tokens or not self.te_trailers:
                named.discard(b"te")
            self._strip_settled(named)

    def _strip_settled(self, named: set[bytes]) -> None:
        if b"x-forwarded-for" in named:
            self.forwarded_for = None
        if b"x-forwarded-proto" in named:
            self.forwarded_proto = None
        if b"x-forwarded-host" in named:
            self.forwarded_host = None
        if b"x-request-id" in named:
            self.request_id = None
        if b"traceparent" in named:
            self.traceparent = None
        if b"trailer" in named:
            self.trailer = None

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a forwarded field, `name` in lower case, or None."""
        for line in self.lines:
            colon = line.index(b":")
            if line[:colon].lower() == name:
                return line[colon + 2 : -2]
        return None


def _is_protocol(offer: bytes) -> bool:
    name, _, version = offer.partition(b"/")
    return fields.is_token(name) and (not version or fields.is_token(version))
