"""Chunked bodies: llhttp decodes, and this file keeps it from reading past the end of the message.

`httptools` does not say where a message ended. A message in chunked coding can only end at a CRLF CRLF, so the
decoder is fed up to each of those and asked; whatever follows the end is given back untouched. One parser is used for
both directions (a request parser, told once that a chunked body follows), so that requests and responses are held to
one grammar.

llhttp refuses bare LF and CR, sizes with signs, prefixes, spaces or more than 64 bits, and control characters in
extensions. What it lets pass and is held here: endless chunk extensions, trailers that speak of framing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import httptools

from fairway.proxy.fields import TRAILER_FORBIDDEN, may_trail

_PRIMER: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
_END: Final = b"\r\n\r\n"
_OVERHEAD: Final = 8192
"""Bytes of chunk headers, extensions and trailers that a body may have beyond eight for every byte of payload."""
_TRAILERS: Final = 64

LAST_CHUNK: Final = b"0\r\n\r\n"


class FramingError(Exception):
    """A chunked body that breaks the grammar; the message says how."""


class ChunkedDecoder:
    """Decodes one chunked body. Feed it until `done`; after an error it is of no further use."""

    __slots__ = (
        "_fed",
        "_in_chunk",
        "_parser",
        "_payload",
        "_pieces",
        "_primed",
        "_size_line",
        "_tail",
        "announced",
        "done",
        "trailers",
    )

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._tail = b""
        self._fed = 0
        self._payload = 0
        self._primed = False
        self.announced = 0
        self._in_chunk = 0
        self._size_line = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        self.done = False
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._parser.feed_data(_PRIMER)
        self._primed = True

    def __repr__(self) -> str:
        return f"<ChunkedDecoder payload={self._payload} done={self.done}>"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer (called by httptools)."""
        if self._primed:
            self.trailers.append((name, value.strip(b" \t")))

    def on_body(self, body: bytes) -> None:
        """Take payload (called by httptools)."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Note the end (called by httptools)."""
        self.done = True

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Decode `data`; return the payload in it and the bytes behind the end of the body.

        Raises:
            FramingError: If the bytes break the grammar.
        """
        assert self._parser is not None, "fed after the end"
        rest = self._feed_pieces(data)
        pieces = self._pieces
        if not pieces:
            payload = b""
        elif len(pieces) == 1:
            payload = pieces[0]
            pieces.clear()
        else:
            payload = b"".join(pieces)
            pieces.clear()
        self._fed += len(data) - len(rest)
        self._payload += len(payload)
        if self._fed - self._payload > _OVERHEAD + 8 * self._payload:
            raise FramingError("chunk headers, extensions or trailers out of proportion to the body")
        if self.done:
            self._parser = None  # it holds bound methods of this object: break the cycle
            self._check_trailers()
        return payload, rest

    def measure(self, data: bytes) -> int:
        """Return the payload announced so far: every chunk's size counts from its header on, before its bytes come.

        For bodies with a bound, so that a chunk that goes beyond it is refused at once.

        Args:
            data: What `feed` has just taken without a complaint, without what it gave back.
        """
        at, end = 0, len(data)
        while at < end and self._in_chunk >= 0:
            if self._in_chunk:
                step = min(self._in_chunk, end - at)
                self._in_chunk -= step
                at += step
                continue
            stop = data.find(b"\n", at)
            digits, mark, _ = (self._size_line + data[at : end if stop < 0 else stop]).partition(b";")
            digits = digits.strip().lstrip(b"0")  # endless zeros and extensions are not kept
            if stop < 0:
                self._size_line = digits + mark
                break
            self._size_line = b""
            at = stop + 1
            if digits:
                size = int(digits, 16)
                self.announced += size
                self._in_chunk = size + 2
            else:
                self._in_chunk = -1  # the last chunk: trailers follow, no payload
        return self.announced

    def _feed_pieces(self, data: bytes) -> bytes:
        parser = self._parser
        assert parser is not None
        start = 0
        try:
            if self._tail:
                seam = (self._tail + data[:3]).find(_END)
                if seam >= 0:
                    start = seam + 4 - len(self._tail)
                    parser.feed_data(data[:start])
                    if self.done:
                        return data[start:]
            while (cut := data.find(_END, start)) >= 0:
                parser.feed_data(data[start : cut + 4])
                start = cut + 4
                if self.done:
                    return data[start:]
            if start < len(data):
                parser.feed_data(data[start:] if start else data)
        except httptools.HttpParserError as error:
            raise FramingError(str(error)) from error
        self._tail = data[-3:] if len(data) >= 3 else (self._tail + data)[-3:]
        return b""

    def _check_trailers(self) -> None:
        if len(self.trailers) > _TRAILERS:
            raise FramingError("too many trailers")
        for name, _ in self.trailers:
            if name.lower() in TRAILER_FORBIDDEN:
                raise FramingError(f"trailer {name.decode('latin-1')} speaks of framing")

    def rendered_trailers(self, named: Collection[bytes] = ()) -> bytes:
        """Return the trailers that may be passed on, one line each.

        Args:
            named: What the message's `Connection` names, in lower case: none of it is passed on (RFC 9110 7.6.1).
        """
        return b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, value in self.trailers
            if may_trail(name) and name.lower() not in named
        )


def encode_chunk(payload: bytes) -> bytes:
    """Return `payload` (not empty: that would end the body) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def encode_end(trailers: bytes) -> bytes:
    """Return the last chunk with rendered trailers."""
    return b"0\r\n%b\r\n" % trailers if trailers else LAST_CHUNK
