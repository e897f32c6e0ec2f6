"""Items 9 to 12 of the list that a correct proxy is held to: framing."""

from __future__ import annotations

import time

import pytest
from door_peers import OK, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, delay, get

pytestmark = pytest.mark.integration

CANARY = b"GET /canary HTTP/1.1\r\nHost: app.test\r\n\r\n"
CHUNKED = b"3\r\nabc\r\n0\r\n\r\n"


def post(path: str, *fields: bytes) -> bytes:
    return get(path, *fields, method="POST")


@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        ([b"Content-Length: 3", b"Transfer-Encoding: chunked"], {400}),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 3"], {400}),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 0"], {400}),
        ([b"Transfer-Encoding: identity", b"Content-Length: 3"], {400}),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], {400}),
        ([b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"], {400}),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], {400}),
        ([b"Transfer-Encoding: chunked, chunked"], {400}),
        ([b"Transfer-Encoding: chunked, gzip"], {400}),
        ([b"Transfer-Encoding: ,chunked"], {400}),
        ([b"Transfer-Encoding: chunked,"], {400}),
        ([b"Transfer-Encoding:"], {400}),
        ([b"Transfer-Encoding: chunked;q=1"], {400}),
        ([b"Transfer-Encoding: \x0bchunked"], {400}),
        ([b"Transfer-Encoding : chunked"], {400}),
        ([b"Transfer-Encoding: chunked\x00"], {400}),
        ([b" Transfer-Encoding: chunked"], {400}),
        ([b"X: y", b" Transfer-Encoding: chunked"], {400}),
        ([b"Transfer-Encoding:\r\n chunked"], {400}),
        ([b"Transfer-Encoding: gzip"], {501}),
        ([b"Transfer-Encoding: gzip, chunked"], {501}),
        ([b"Transfer-Encoding: xchunked"], {501}),
        ([b"Transfer-Encoding: identity"], {501}),
        ([b'Transfer-Encoding: "chunked"'], {400, 501}),
        ([b"Content-Length: 3", b"Content-Length: 3"], {400}),
        ([b"Content-Length: 3", b"Content-Length: 4"], {400}),
        ([b"Content-Length: 3, 3"], {400}),
        ([b"Content-Length: +3"], {400}),
        ([b"Content-Length: -3"], {400}),
        ([b"Content-Length: 0x3"], {400}),
        ([b"Content-Length: 3.0"], {400}),
        ([b"Content-Length:"], {400}),
        ([b"Content-Length: three"], {400}),
        ([b"Content-Length: 1 3"], {400}),
        ([b"Content-Length: 99999999999999999999"], {400, 413}),
        ([b"Content-Length : 3"], {400}),
    ],
)
def test_item_09_ambiguous_framing_is_refused(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, fields: list[bytes], statuses: set[int]
) -> None:
    before = len(upstream.seen("/canary"))
    assert door.refused(post(path, *fields) + CHUNKED + CANARY).status in statuses
    assert not upstream.seen(path)
    assert len(upstream.seen("/canary")) == before


def test_item_09_transfer_encoding_in_http10_is_refused(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    data = get(path, b"Transfer-Encoding: chunked", b"Connection: keep-alive", method="POST", version="1.0")
    assert door.refused(data + CHUNKED + CANARY).status == 400
    assert not upstream.seen(path)


@pytest.mark.parametrize("coding", [b"CHUNKED", b"chunked ", b"\t chunked"])
def test_item_09_chunked_in_any_case_is_taken(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, coding: bytes
) -> None:
    assert door.ask(post(path, b"tRANSFER-eNCODING: " + coding) + CHUNKED).status == 200
    (seen,) = upstream.wait_for(path)
    assert seen.value("Transfer-Encoding") == b"chunked"
    assert (seen.body, seen.complete) == (b"abc", True)


H = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKED,
        H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        H + b"Content-Length: 3\r\nContent-Length: 2\r\n\r\nabc",
        H + b"Content-Length: 3, 3\r\n\r\nabc",
        H + b"Content-Length: -3\r\n\r\nabc",
        H + b"Content-Length: +3\r\n\r\nabc",
        H + b"Content-Length: x\r\n\r\nabc",
        H + b"Content-Length:\r\n\r\nabc",
        H + b"Content-Length: 99999999999999999999\r\n\r\nabc",
        H + b"Transfer-Encoding: gzip\r\n\r\nabc",
        H + b"Transfer-Encoding: identity\r\n\r\nabc",
        H + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
        H + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKED,
        H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        H + b"Transfer-Encoding:\r\n\r\n" + CHUNKED,
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        H + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        H + b"X: a\nY: b\r\nContent-Length: 0\r\n\r\n",
        H + b"X : a\r\nContent-Length: 0\r\n\r\n",
        H + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
        H + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        H + b": a\r\nContent-Length: 0\r\n\r\n",
        H + b"nocolon\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"hello, this is no HTTP at all\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_item_10_ambiguous_answers_are_502(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, answer: bytes
) -> None:
    upstream.on(path, answer)
    came = door.ask(get(path))
    assert came.status == 502, came.head
    assert came.value("x-request-id") in came.body.split()
    assert door.ask(get("/after")).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_item_10_malformed_answer_chunks_never_end_well(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, answer: bytes
) -> None:
    def late(peer: UpstreamPeer, request: Received) -> bool:
        head, _, body = answer.partition(b"\r\n\r\n")
        peer.send(head + b"\r\n\r\n")
        delay(0.05)
        peer.send(body)
        return peer.closed_by_door()

    upstream.on(path, answer)
    assert door.ask(get(path)).status == 502
    upstream.on(path, late)
    with door.connect() as client:
        client.send(get(path))
        data = client.to_end()
    assert data.startswith(b"HTTP/1.1 200")
    assert not data.partition(b"\r\n\r\n")[2].endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: app.test\n\n",
        b"GET / HTTP/1.1\r\nHost: app.test\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\n\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX: a\nGET /canary HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX: a\rY: b\r\n\r\n",
        b"GET / HTTP/1.1\rHost: app.test\r\r",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX: a\r\n\tb\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: app.test\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: app.test\r\n\r\n",
        b"GET\t/\tHTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /a\x00b HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET /a\x7fb HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/1.10\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/1\r\nHost: app.test\r\n\r\n",
        b"GET / http/1.1\r\nHost: app.test\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: app.test\r\n\r\n",
        b"GET /\r\nHost: app.test\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\r\n",
        b"GET / HTTP/1.1\x00\r\nHost: app.test\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
        b"{}\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX\r\n\r\n",
    ],
)
def test_item_11_malformed_heads_are_400_and_closed(door: DoorProcess, upstream: ScriptedUpstream, data: bytes) -> None:
    before = len(upstream.requests)
    started = time.monotonic()
    assert door.refused(data).status == 400
    assert time.monotonic() - started < 0.9, "refused only by a timeout"
    assert len(upstream.requests) == before


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("version", ["1.2", "1.9"])
def test_item_11_later_minor_versions_are_1_1(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, version: str, pieces: bool
) -> None:
    """RFC 9110 2.5: a later minor version is processed as the latest that is known."""
    data = get(path, b"X: y", version=version)
    with door.connect() as client:
        for _ in range(2):
            for start in range(0, len(data), 1 if pieces else len(data)):
                client.send(data[start : start + (1 if pieces else len(data))])
            answer = client.answer()
            assert (answer.status, answer.value("connection")) == (200, None)
    assert [request.start for request in upstream.wait_for(path, 2)] == [b"GET %b HTTP/1.1" % path.encode()] * 2
    assert door.refused(get(path, b"X: y\x01", version=version)).status == 400
    assert door.refused(b"GET %b HTTP/%b\r\n\r\n" % (path.encode(), version.encode())).status == 400, "no Host"


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("end", [b"\t", b" ", b" \t \t"])
def test_item_09_white_space_behind_framing_fields(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, end: bytes, pieces: bool
) -> None:
    """RFC 9112 5: spaces and tabs around a value are no part of it."""
    size = 1 if pieces else 1000
    for framing, body in ((b"Transfer-Encoding:\tchunked", b"3\r\nabc\r\n0\r\n\r\n"), (b"Content-Length: 3", b"abc")):
        data = post(path, framing + end, b"X: y" + end) + body
        with door.connect() as client:
            for start in range(0, len(data), size):
                client.send(data[start : start + size])
            assert client.answer().status == 200
    one, other = upstream.wait_for(path, 2)
    assert (one.body, one.value("transfer-encoding"), one.value("x")) == (b"abc", b"chunked", b"y")
    assert (other.body, other.value("content-length"), other.value("x")) == (b"abc", b"3", b"y")


@pytest.mark.parametrize(
    "fields",
    [
        (b"X: y", b"\t", b"Transfer-Encoding: chunked"),
        (b"X: y", b" \t"),
        (b"\t", b"X: y"),
        (b"Transfer-Encoding: chunked\t\r\t",),
        (b"Transfer-Encoding: chunked\t\x0b",),
        (b"Transfer-Encoding: chunked\t", b"Content-Length: 3\t"),
        (b"Transfer-Encoding: chunked\t", b"Transfer-Encoding: chunked\t"),
        (b"Content-Length: 3\t", b"Content-Length: 3"),
        (b"Transfer-Encoding\t: chunked",),
    ],
)
def test_item_09_white_space_hides_no_framing(door: DoorProcess, fields: tuple[bytes, ...]) -> None:
    assert door.refused(post("/", *fields) + b"3\r\nabc\r\n0\r\n\r\n").status == 400


@pytest.mark.parametrize("pieces", [False, True])
def test_item_10_white_space_behind_an_answers_framing(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, pieces: bool
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\nX: y \r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        for start in range(0, len(data), 5 if pieces else len(data)):
            peer.send(data[start : start + (5 if pieces else len(data))])
            delay(0.002 if pieces else 0)
        return True

    upstream.on(path, script)
    answer = door.ask(get(path))
    assert (answer.status, answer.body, answer.value("x")) == (200, b"abc", b"y")


@pytest.mark.parametrize("version", ["2.0", "3.0", "9.9", "0.8"])
def test_item_11_other_versions_are_refused(door: DoorProcess, version: str) -> None:
    assert door.refused(get("/", version=version)).status in {400, 505}


def test_item_11_http2_preface_is_refused(door: DoorProcess) -> None:
    assert door.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status in {400, 505}


@pytest.mark.parametrize("split", [1, 2, 3, 7])
def test_item_11_heads_in_pieces_are_read_alike(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, split: int
) -> None:
    data = b"\r\n" + get(path, b"X: y", b"Content-Length: 3", method="PURGE") + b"abc"
    with door.connect() as client:
        for start in range(0, len(data), split):
            client.send(data[start : start + split])
        assert client.answer().status == 200
    (seen,) = upstream.wait_for(path)
    assert seen.start == f"PURGE {path} HTTP/1.1".encode()
    assert seen.body == b"abc"


@pytest.mark.parametrize(
    "body",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r\n0\n\r\n",
        b"3\r\nabc\r\n0\r\n\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b";a=b\r\nabc\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\r\r0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;a\x00b\r\nabc\r\n0\r\n\r\n",
        b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
        b"3;" + b"a" * 20_000 + b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: a\nY: b\r\n\r\n",
        b"3\r\nabc\r\n0\r\nnocolon\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    ],
)
def test_item_11_malformed_chunks_are_400_and_closed(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, body: bytes
) -> None:
    before = len(upstream.seen("/canary"))
    assert door.refused(post(path, b"Transfer-Encoding: chunked") + body + CANARY).status == 400
    assert not any(request.complete for request in upstream.seen(path))
    assert len(upstream.seen("/canary")) == before


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;a\r\nabc\r\n0;b=c\r\n\r\n",
        b'3;a="b;c"\r\nabc\r\n0\r\n\r\n',
        b"0003\r\nabc\r\n000\r\n\r\n",
        b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("split", [0, 1, 2, 5])
def test_item_12_chunked_requests_are_forwarded(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, body: bytes, split: int
) -> None:
    with door.connect() as client:
        head = post(path, b"Transfer-Encoding: chunked")
        if split:
            client.send(head)
            for start in range(0, len(body), split):
                client.send(body[start : start + split])
        else:
            client.send(head + body)
        assert client.answer().status == 200
        client.send(get(path))
        assert client.answer().status == 200
    seen, _ = upstream.wait_for(path, 2)
    assert (seen.body, seen.complete) == (b"abc", True)


def test_item_12_chunked_answers_are_forwarded(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    payload = bytes(range(256)) * 300 + b"\r\n\r\n0\r\n\r\n" * 50

    def chunks(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + b"Transfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(payload), 7001):
            piece = payload[start : start + 7001]
            peer.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
        peer.send(b"0\r\n\r\n")
        return True

    upstream.on(path, chunks)
    with door.connect() as client:
        for _ in range(3):
            client.send(get(path))
            answer = client.answer()
            assert answer.value("transfer-encoding") == b"chunked"
            assert answer.body == payload
    assert door.ask(get(path, version="1.0")).body == payload


def test_item_12_pipelined_requests_are_answered_in_order(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def slow(peer: UpstreamPeer, request: Received) -> bool:
        delay(0.1)
        peer.send(H + b"Content-Length: 4\r\n\r\nslow")
        return True

    upstream.on(path, slow)
    chunked = post(path + "c", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    length = post(path + "l", b"Content-Length: 3") + b"xyz"
    missing = get("/", host="nowhere.test")
    data = get(path) + chunked + missing + length + get(path, method="HEAD") + get(path + "z", b"Connection: close")
    for split in (len(data), 11):
        with door.connect() as client:
            for start in range(0, len(data), split):
                client.send(data[start : start + split])
            assert client.answer().body == b"slow"
            assert client.answer().body == b"ok"
            assert client.answer().status == 404
            assert client.answer().body == b"ok"
            assert client.answer("HEAD").status == 200
            assert client.answer().body == b"ok"
            assert client.ended()


def test_item_12_many_pipelined_requests(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    count = 500
    with door.connect() as client:
        client.send(get(path) * count)
        for _ in range(count):
            assert client.answer().body == b"ok"


def test_item_12_bytes_behind_connection_close_are_ignored(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    with door.connect() as client:
        client.send(get(path, b"Connection: close") + get(path + "x"))
        assert client.answer().body == b"ok"
        assert client.ended()
    assert not upstream.seen(path + "x")
