"""Answers that the door gives itself: plain text, the reason, and the request id to ask about."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_REASONS[413] = "Content Too Large"
_REASONS[414] = "URI Too Long"
_REASONS[499] = "Client Closed Request"

_date = (0, b"")


def date_line() -> bytes:
    """Return the Date field of this second, rendered."""
    global _date  # noqa: PLW0603  # one rendering a second for all connections
    now = int(time.time())
    if _date[0] != now:
        from email.utils import formatdate  # a door that starts has no time for it

        _date = (now, b"Date: " + formatdate(now, usegmt=True).encode("ascii") + b"\r\n")
    return _date[1]


def error_page(
    status: int, reason: str, request_id: bytes, *, close: bool, http10: bool, body: bool, extra: bytes = b""
) -> bytes:
    """Render a whole answer.

    Args:
        status: Its status.
        reason: One sentence for the person who reads it; never holds anything that the client sent.
        request_id: Put into the page and the X-Request-Id field.
        close: Say that the connection closes.
        http10: The client speaks HTTP/1.0 and needs to be told that the connection stays open.
        body: Include the body, which an answer to HEAD leaves out.
        extra: Rendered fields to add.
    """
    phrase = _REASONS.get(status, "Error")
    text = f"{status} {phrase}\n\n{reason}\nrequest id: {request_id.decode('latin-1')}\n".encode()
    connection = b"Connection: close\r\n" if close else (b"Connection: keep-alive\r\n" if http10 else b"")
    head = (
        b"HTTP/1.1 %d %b\r\n%bContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
        b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Request-Id: %b\r\n%b%b\r\n"
    ) % (status, phrase.encode("ascii"), date_line(), len(text), request_id, extra, connection)
    return head + text if body else head
