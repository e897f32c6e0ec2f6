"""A request head that is known by its bytes."""

import pytest

from fairway.api.head import Head

BODY = b'{"kind":"send"}'
HEADERS = {b"host": b"a", b"content-type": b"application/json"}
LONGEST = 65_536


def request(body: bytes = BODY, length: bytes | None = None, name: bytes = b"content-length: ", *more: bytes) -> bytes:
    size = str(len(body)).encode() if length is None else length
    lines = [b"POST /v1/queues/q/jobs HTTP/1.1", b"host: a", name + size, b"content-type: application/json", *more]
    return b"\r\n".join([*lines, b"", b""]) + body


def known(data: bytes, body: bytes = BODY) -> Head | None:
    return Head.of(data, body, b"/v1/queues/q/jobs", HEADERS, keep_alive=True)


@pytest.mark.parametrize("name", [b"content-length: ", b"Content-Length:", b"CONTENT-LENGTH: \t "])
@pytest.mark.parametrize("body", [b"", b"x", BODY, b"\r\n\r\n", b"x" * 65_535])
def test_a_request_with_the_same_head_is_known(name: bytes, body: bytes) -> None:
    head = known(request(name=name))
    assert head is not None
    assert head.body_of(request(body, None, name), LONGEST) == body
    assert (head.url, head.headers, head.keep_alive) == (b"/v1/queues/q/jobs", HEADERS, True)
    assert "queues/q" in repr(head)


OTHERS = {
    "another target": request().replace(b"/q/", b"/p/"),
    "another value": request().replace(b"host: a", b"host: b"),
    "a header more": request(BODY, None, b"content-length: ", b"x: y"),
    "a header less": request().replace(b"host: a\r\n", b""),
    "another method": request().replace(b"POST", b"PUT"),
    "another version": request().replace(b"1.1", b"1.0"),
    "another case": request().replace(b"host", b"Host"),
    "a head alone": request()[: -len(BODY)],
    "a part of the head": request()[:60],
    "a part of the body": request()[:-1],
    "more than the body": request() + b"\r\n",
    "two requests": request() * 2,
    "nothing": b"",
    "no length": request(BODY, b""),
    "a length that is none": request(BODY, b"1x"),
    "a negative length": request(BODY, b"-15"),
    "a length with a sign": request(BODY, b"+15"),
    "a length with a space": request(BODY, b"15 "),
    "a length in other digits": request(BODY, "١٥".encode()),
    "a length of six digits": request(BODY, b"000015"),
    "a length that wraps": request(BODY, str((1 << 64) + len(BODY)).encode()),
    "a line break that is none": request().replace(b"15\r\n", b"15\n"),
    "line breaks alone": b"\r\n\r\n" + request(),
    "a longer body than wanted": request(b"x" * 65_537),
}


@pytest.mark.parametrize("case", OTHERS)
def test_anything_else_is_not(case: str) -> None:
    head = known(request())
    assert head is not None
    assert head.body_of(OTHERS[case], LONGEST) is None


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (request() + b"\r\n", BODY),
        (request() * 2, BODY),
        (b"rest of another\r\n\r\n" + request(), BODY),
        (b"\r\n\r\n" + request(), BODY),
        (request(b"\r\n" + BODY) + b"\r\n", b"\r\n" + BODY),
        (request()[20:], BODY[1:]),
        (request().replace(b"content-length", b"x-length"), BODY),
        (request(BODY, b"000015"), BODY),
        (b"no request at all", b""),
    ],
)
def test_what_is_not_one_request_has_no_head(data: bytes, body: bytes) -> None:
    assert known(data, body) is None
