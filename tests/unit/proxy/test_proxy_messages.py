"""Heads, chunked bodies, passwords, pages, frames: pure functions of the door."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proxy import response as response_module
from fairway.proxy.auth import GUESSES_PER_S, PasswordCheck, hash_password, verify_password
from fairway.proxy.control import encode_frame, read_frame
from fairway.proxy.errors import ControlError
from fairway.proxy.fields import REQUEST_KINDS, Kinds, list_tokens, may_trail
from fairway.proxy.framing import ChunkedDecoder, FramingError, encode_chunk, encode_end
from fairway.proxy.page import error_page
from fairway.proxy.request import Refusal, RequestHead, host_name
from fairway.proxy.response import BadResponse, ResponseHead
from fairway.proxy.routes import BasicAuth
from fairway.proxy.wheel import NEVER, SLOTS, Wheel


def request(data: bytes, trusted: bool = False) -> RequestHead:
    head = RequestHead(trusted)
    head.parse(data, data.index(b"\r\n"))
    return head


def response(data: bytes) -> ResponseHead:
    head = ResponseHead()
    head.parse(data, data.index(b"\r\n"))
    return head


def test_request_head() -> None:
    head = request(
        b"POST http://A.test:80/x?y HTTP/1.1\r\nHost: b\r\nX-A:  1 \r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    )
    assert (head.method, head.target, head.host, head.name) == (b"POST", b"/x?y", b"A.test:80", "a.test")
    assert (head.length, head.keep_alive, head.lines) == (3, False, [b"X-A: 1\r\n"])
    assert "POST" in repr(head)


@given(st.binary(max_size=200))
def test_no_head_makes_the_parser_fail_otherwise(data: bytes) -> None:
    whole = b"GET /" + data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    try:
        head = request(whole)
    except Refusal:
        return
    assert head.name
    assert b"\r" not in head.target
    assert all(line.count(b"\n") == 1 and line.endswith(b"\r\n") for line in head.lines)


def outcome(data: bytes) -> object:
    try:
        head = request(data)
    except Refusal as refusal:
        return refusal.status
    return [getattr(head, name) for name in head.__slots__]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"Transfer-Encoding", b"Content-Length", b"Connection", b"TE", b"Host", b"X"]),
            st.sampled_from([b"", b"chunked", b"gzip", b"gzip, chunked", b"3", b"0", b"close", b"a b", b"a\x00"]),
            st.text(alphabet=" \t", max_size=3).map(str.encode),
        ),
        max_size=4,
    )
)
def test_white_space_at_the_end_of_lines_changes_nothing(fields: list[tuple[bytes, bytes, bytes]]) -> None:
    tidy, untidy = (
        b"POST / HTTP/1.1\r\nHost: a\r\n"
        + b"".join(b"%b: %b%b\r\n" % (name, value, end if with_ends else b"") for name, value, end in fields)
        + b"\r\n"
        for with_ends in (False, True)
    )
    assert outcome(tidy) == outcome(untidy)


@given(st.binary(max_size=200))
def test_no_answer_makes_the_parser_fail_otherwise(data: bytes) -> None:
    whole = b"HTTP/1.1 200" + data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    try:
        head = response(whole)
    except BadResponse:
        return
    assert head.status == 200
    assert all(line.count(b"\n") == 1 and line.endswith(b"\r\n") for line in head.lines)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"App.Test", "app.test"),
        (b"a:80", "a"),
        (b"a.:80", "a"),
        (b"[::1]:80", "[::1]"),
        (b"a_b.test", "a_b.test"),
        (b"a..b", None),
        (b"a:65536", None),
        (b"a b", None),
        (b"", None),
        (b"a" * 300, None),
        (b"\xff", None),
    ],
)
def test_host_names(value: bytes, name: str | None) -> None:
    assert host_name(value) == name


def test_kinds_forget_rather_than_grow() -> None:
    kinds = Kinds({b"host": 1})
    for number in range(5000):
        assert kinds.classify(b"X-%d" % number) == 0
    assert kinds.classify(b"HOST") == 1
    assert REQUEST_KINDS.get(b"host") == 1


def test_long_names_and_lines_are_not_remembered() -> None:
    kinds = Kinds({b"host": 1})
    long = b"X-" + b"a" * 30_000
    assert kinds.classify(long) == 0
    assert kinds.get(long) is None
    assert kinds.classify(b"X-A") == kinds.get(b"X-A") == 0
    line = b"HTTP/1.1 200 " + b"a" * 30_000
    for _ in range(2):
        assert response(line + b"\r\n\r\n").start == line + b"\r\n"
    assert line not in response_module._status_lines


@pytest.mark.parametrize("zeros", [0, 1, 19, 20, 21, 100, 5000])
@pytest.mark.parametrize(("digits", "length"), [(b"3", 3), (b"0", 0), (b"12345678901234567890", 12345678901234567890)])
def test_lengths_are_read_whole(zeros: int, digits: bytes, length: int) -> None:
    field = b"Content-Length: " + b"0" * zeros + digits + b"\r\n\r\n"
    assert request(b"POST / HTTP/1.1\r\nHost: a\r\n" + field).length == length
    assert response(b"HTTP/1.1 200 OK\r\n" + field).length == length


@pytest.mark.parametrize(
    "value", [b"18446744073709551616", b"9" * 21, b"9" * 5000, b"0" * 30 + b"9" * 21, b"0" * 30 + b"x"]
)
def test_lengths_beyond_64_bits_are_refused(value: bytes) -> None:
    field = b"Content-Length: " + value + b"\r\n\r\n"
    with pytest.raises(Refusal) as refused:
        request(b"POST / HTTP/1.1\r\nHost: a\r\n" + field)
    assert refused.value.status == 400
    with pytest.raises(BadResponse):
        response(b"HTTP/1.1 200 OK\r\n" + field)


@pytest.mark.parametrize(
    ("version", "more", "kept"),
    [
        (b"00", b"", True),
        (b"00", b"-x", False),
        (b"00", b"-", False),
        (b"01", b"", True),
        (b"01", b"-x", True),
        (b"01", b"x", False),
        (b"ff", b"", False),
        (b"0", b"", False),
    ],
)
def test_trace_contexts(version: bytes, more: bytes, kept: bool) -> None:
    value = version + b"-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" + more
    head = request(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + value + b"\r\n\r\n")
    assert head.traceparent == (value if kept else None)


def test_trailers_that_may_be_passed_on() -> None:
    assert may_trail(b"X-Sum")
    assert may_trail(b"grpc-status")
    for name in (
        b"Connection",
        b"X-Forwarded-For",
        b"X_Forwarded-For",
        b"X-Forwarded_For",
        b"X_Real_IP",
        b"Content_Type",
    ):
        assert not may_trail(name), name
    decoder = ChunkedDecoder()
    decoder.feed(b"0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
    assert decoder.rendered_trailers({b"x-a"}) == b"X-B: 2\r\n"


def test_list_tokens() -> None:
    assert list_tokens([b" A , ,b", b"", b"\tC"]) == [b"a", b"b", b"c"]


@given(
    pieces=st.lists(
        st.binary(min_size=1, max_size=60) | st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"\r\n\r\n\r\n"]), max_size=8
    ),
    cut=st.integers(min_value=1, max_value=40),
    trailers=st.sampled_from([b"", b"X-A: b\r\n", b"X-A: b\r\nX-C: d\r\n"]),
    behind=st.binary(max_size=20),
)
def test_chunked_bodies_end_exactly_where_they_end(
    pieces: list[bytes], cut: int, trailers: bytes, behind: bytes
) -> None:
    data = b"".join(map(encode_chunk, pieces)) + encode_end(trailers) + behind
    decoder = ChunkedDecoder()
    payload = b""
    rest = b""
    position = 0
    while not decoder.done:
        some, rest = decoder.feed(data[position : position + cut])
        payload += some
        position += cut
    assert payload == b"".join(pieces)
    assert rest + data[position:] == behind
    measured = ChunkedDecoder()
    whole = data[: len(data) - len(behind)]
    announced = [measured.measure(whole[start : start + cut]) for start in range(0, len(whole), cut)]
    assert announced[-1] == len(payload)
    assert announced == sorted(announced)
    assert decoder.rendered_trailers() == trailers


@pytest.mark.parametrize(
    "data",
    [
        b"3\nabc",
        b"x\r\n",
        b"3\r\nabcd",
        b"1;" + b"a" * 9000,
        b"0\r\nContent-Length: 1\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 65 + b"\r\n",
    ],
)
def test_malformed_chunks(data: bytes) -> None:
    with pytest.raises(FramingError):
        ChunkedDecoder().feed(data)


@pytest.mark.parametrize(
    ("data", "announced"),
    [
        (b"5", 0),
        (b"5\r\n", 5),
        (b"0" * 5000 + b"1f;" + b"a" * 5000 + b"\r\nxx", 31),
        (b"2\r\nab\r\n7fffffff\r\n", 0x80000001),
        (b"2\r\nab\r\n0\r\nA: 5\r\n\r\n", 2),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 20_000])
def test_what_chunks_announce_is_known_before_it_comes(data: bytes, announced: int, cut: int) -> None:
    decoder = ChunkedDecoder()
    assert [decoder.measure(data[start : start + cut]) for start in range(0, len(data), cut)][-1] == announced


def test_passwords() -> None:
    stored = hash_password("geheim", n=1024)
    assert verify_password(b"geheim", stored)
    assert not verify_password(b"falsch", stored)
    for bad in (
        "",
        "scrypt$1$1$1$a$b",
        "scrypt$x$8$1$YWFhYWFhYWE=$YWFhYWFhYWE=",
        "scrypt$1073741824$8$1$YWFhYWFhYWE=$YWFh",
    ):
        assert not verify_password(b"geheim", bad)


def test_password_check_remembers_and_limits_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def verify(password: bytes, stored: str) -> bool:
        calls.append(password)
        return password == b"geheim"

    check = PasswordCheck(BasicAuth(users={"u": hash_password("geheim", n=1024)}))
    monkeypatch.setattr("fairway.proxy.auth.verify_password", verify)

    def field(user: str, password: str) -> bytes:
        return b"Basic " + base64.b64encode(f"{user}:{password}".encode())

    assert all(check.allows(field("u", "geheim"), 0.0) for _ in range(100))
    assert not any(check.allows(field("u", "falsch"), 0.1) for _ in range(100))
    assert len(calls) == 2
    assert not check.allows(field("nobody", "geheim"), 0.2)
    assert len(calls) == 3, "an unknown user has to cost the same"
    for number in range(100):
        assert not check.allows(field("u", str(number)), 0.3)
    assert len(calls) == GUESSES_PER_S
    assert check.allows(field("u", "geheim"), 0.4)
    assert check.allows(field("u", "geheim"), 99.0)
    for bad in (None, b"", b"Bearer x", b"Basic", b"Basic \xff", b"Basic " + b"A" * 2000):
        assert not check.allows(bad, 200.0)


def test_pages_repeat_nothing_of_the_request() -> None:
    page = error_page(502, "The upstream refused the connection.", b"id1", close=True, http10=False, body=True)
    head, _, body = page.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert b"Connection: close" in head
    assert body.startswith(b"502 Bad Gateway\n")
    assert b"id1" in body
    assert error_page(502, "x", b"i", close=False, http10=True, body=False).endswith(b"\r\n\r\n")


async def test_frames() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encode_frame(json.dumps({}).encode()) + b"\x00\x00")
    reader.feed_eof()
    assert await read_frame(reader) == b"{}"
    with pytest.raises(ControlError):
        await read_frame(reader)
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\xff")
    with pytest.raises(ControlError, match="at most"):
        await read_frame(reader)


async def test_wheel_visits_everyone_in_a_turn() -> None:
    class Member:
        def __init__(self, deadline: float) -> None:
            self.deadline = deadline
            self.expired: list[float] = []

        def expire(self, now: float) -> None:
            self.expired.append(now)
            self.deadline = NEVER

    wheel = Wheel(asyncio.get_running_loop())
    due = [Member(0.0) for _ in range(20)]
    later = Member(NEVER)
    slots = [wheel.add(member) for member in [*due, later]]
    wheel.remove(due[0], slots[0])
    for _ in range(2 * SLOTS):
        wheel._tick()
    wheel.stop()
    assert [len(member.expired) for member in due] == [0] + [1] * 19
    assert not later.expired
    assert len(wheel) == 20
