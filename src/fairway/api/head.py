"""`Head`: what a connection's last request began with, so that the next one that begins so need not be parsed.

A client sends the same head again and again on its connection; only the number after ``content-length`` and the body
differ. What a parser made of those bytes it would make of them again: the message boundary it starts from is the same.
After the pauses of a calm server, when its caches are cold, the parser, its calls into Python and what they look at
are a third of what a request costs before its job is stored.
"""

from __future__ import annotations

_LENGTH = b"\r\ncontent-length:"
_END = b"\r\n\r\n"


class Head:
    """The head of one request with a `Content-Length`, apart from that number.

    Attributes:
        url: Its request target.
        headers: Its headers but the length, names in lower case.
        keep_alive: Whether the connection outlives the request.
    """

    __slots__ = ("_after", "_before", "headers", "keep_alive", "url")

    def __init__(self, before: bytes, after: bytes, url: bytes, headers: dict[bytes, bytes], keep_alive: bool) -> None:
        self._before = before
        self._after = after
        self.url = url
        self.headers = headers
        self.keep_alive = keep_alive

    @classmethod
    def of(cls, data: bytes, body: bytes, url: bytes, headers: dict[bytes, bytes], *, keep_alive: bool) -> Head | None:
        """Return the head of a request that was parsed, or None where `data` is not that request and nothing else.

        Args:
            data: All bytes that were read, from a message boundary to the end of the message.
            body: The body that the parser found.
            url: The request target that it found.
            headers: The headers that it found, but the length.
            keep_alive: What it said of the connection.
        """
        end = data.find(_END) + len(_END)
        if data[end:] != body:
            return None
        # Once: a name comes once in a request on the short way, and no value has a line break.
        at = data[:end].lower().find(_LENGTH)
        if at < 0:
            return None
        start = at + len(_LENGTH)
        while data[start : start + 1] in {b" ", b"\t"}:
            start += 1
        digits = _digits(data, start)
        return cls(data[:start], data[start + len(digits) : end], url, headers, keep_alive) if digits else None

    def body_of(self, data: bytes, longest: int) -> bytes | None:
        """Return the body of a request that has this head and is whole, else None.

        Args:
            data: What was read, from a message boundary on.
            longest: Bytes of the longest body that is wanted.
        """
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        digits = _digits(data, len(before))
        end = len(before) + len(digits)
        if not digits or not data.startswith(after, end):
            return None
        end += len(after)
        size = int(digits)
        return data[end:] if size == len(data) - end and size <= longest else None

    def __repr__(self) -> str:
        return f"<Head of {self.url.decode('latin-1')} [{len(self.headers)} headers]>"


def _digits(data: bytes, start: int) -> bytes:
    """Return the number before the line break after `start`, or nothing where there is none of up to 5 digits."""
    end = data.find(b"\r", start, start + 6)
    digits = data[start:end] if end > 0 else b""
    return digits if digits.isdigit() else b""
