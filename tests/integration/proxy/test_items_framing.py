"""Items 9 to 17 of the list that a correct proxy is held to: framing, upgrades, methods."""

from __future__ import annotations

import time

import pytest
from door_peers import OK, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, get

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
        time.sleep(0.05)
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


@pytest.mark.parametrize("version", ["2.0", "3.0", "9.9", "1.2", "0.8"])
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
        time.sleep(0.1)
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


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nextra",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n',
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nextra",
    ],
)
def test_item_13_204_and_304_have_no_body(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, answer: bytes
) -> None:
    upstream.on(path, answer)
    with door.connect() as client:
        for _ in range(2):
            client.send(get(path) + get("/next"))
            came = client.answer()
            assert came.status == int(answer[9:12])
            assert not came.values("transfer-encoding")
            assert came.value("content-length") == (None if came.status == 204 else b"5")
            assert client.answer().body == b"ok"


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (H + b"Content-Length: 5\r\n\r\n", b"5"),
        (H + b"Content-Length: 5\r\n\r\nextra", b"5"),
        (H + b"Transfer-Encoding: chunked\r\n\r\n", None),
        (H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None),
        (H + b"\r\n", None),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", b"9"),
    ],
)
def test_item_13_head_has_no_body(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, answer: bytes, length: bytes | None
) -> None:
    upstream.on(path, answer)
    with door.connect() as client:
        client.send(get(path, method="HEAD"))
        assert client.answer("HEAD").value("content-length") == length
        client.send(get("/next"))
        assert client.answer().body == b"ok"


@pytest.mark.parametrize("extra", [b"X", b"EXTRA BYTES", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
def test_item_13_extra_upstream_bytes_are_discarded(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, framing: bytes, extra: bytes
) -> None:
    upstream.on(path, H + framing + extra)
    with door.connect() as client:
        for number in range(4):
            client.send(get(path) + get(f"{path}n{number}"))
            assert client.answer().body == b"ok"
            answer = client.answer()
            assert answer.body == b"ok"
            assert not client.buffer
    used = [request.connection for request in upstream.seen(path)]
    assert len(set(used)) == len(used), "a connection with extra bytes was used again"


def test_item_13_late_extra_bytes_close_the_pooled_connection(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def late(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(OK)
        time.sleep(0.05)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
        return peer.closed_by_door()

    upstream.on(path, late)
    for _ in range(3):
        assert door.ask(get(path)).body == b"ok"
        time.sleep(0.1)
        assert door.ask(get("/next")).body == b"ok"


def test_item_14_expect_gets_100_before_the_body(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    for sent in (b"100-continue", b"100-Continue"):
        with door.connect() as client:
            client.send(post(path, b"Expect: " + sent, b"Content-Length: 3"))
            assert client.answer().start == b"HTTP/1.1 100 Continue"
            client.send(b"abc")
            assert client.answer().body == b"ok"
            client.send(get(path))
            assert client.answer().body == b"ok"


def test_item_14_the_upstreams_100_is_passed_on_once(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = peer.read_body(request.head)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body[0])
        return True

    upstream.on(path, script)
    with door.connect() as client:
        client.send(post(path, b"Expect: 100-continue", b"Transfer-Encoding: chunked"))
        assert client.answer().status == 100
        client.send(CHUNKED)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"abc")


def test_item_14_body_sent_without_waiting(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    with door.connect() as client:
        client.send(post(path, b"Expect: 100-continue", b"Content-Length: 3") + b"abc")
        answer = client.answer()
        while answer.status == 100:
            answer = client.answer()
        assert answer.body == b"ok"


def test_item_14_expect_is_ignored_in_http10(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    with door.connect() as client:
        client.send(get(path, b"Expect: 100-continue", b"Content-Length: 3", method="POST", version="1.0"))
        time.sleep(0.5)
        client.send(b"abc")
        assert client.answer().status == 200
    (seen,) = upstream.wait_for(path)
    assert not seen.values("Expect")
    assert door.ask(get(path, b"Expect: nonsense", version="1.0")).status == 200


@pytest.mark.parametrize("value", [b"nonsense", b"100-continue, x", b"200-ok", b""])
def test_item_14_unknown_expectations_are_417(door: DoorProcess, path: str, value: bytes) -> None:
    assert door.refused(post(path, b"Expect: " + value, b"Content-Length: 3")).status == 417


@pytest.mark.parametrize("status", [401, 413, 200])
def test_item_14_a_final_status_instead_of_100_poisons_nothing(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, status: int
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 %d No\r\nContent-Length: 5\r\n\r\nfinal" % status)
        assert peer.closed_by_door()
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(post(path, b"Expect: 100-continue", b"Content-Length: 40"))
        answer = client.answer()
        assert (answer.status, answer.body) == (status, b"final")
        client.send(CANARY.ljust(40))
        client.to_end()
    assert door.ask(get("/next")).body == b"ok"


def test_item_14_too_large_with_expect_is_413_without_100(door: DoorProcess, path: str) -> None:
    assert door.refused(post(path, b"Expect: 100-continue", b"Content-Length: 1000000")).status == 413


def test_item_15_interim_answers_are_forwarded(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(
        path,
        b"HTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nConnection: x\r\nX: 1\r\n\r\n" + OK,
    )
    with door.connect() as client:
        client.send(get(path))
        assert client.answer().status == 102
        hints = client.answer()
        assert hints.status == 103
        assert hints.values("link") == [b"</a>", b"</b>"]
        assert not hints.values("connection")
        assert not hints.values("x")
        assert client.answer().body == b"ok"
        client.send(get("/next"))
        assert client.answer().body == b"ok"


def test_item_15_interim_answers_come_at_once(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        time.sleep(0.3)
        peer.send(OK)
        return True

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path))
        started = time.monotonic()
        assert client.answer().status == 103
        assert time.monotonic() - started < 0.25
        assert client.answer().body == b"ok"


def test_item_15_http10_clients_get_no_interim_answers(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.on(path, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    answer = door.ask(get(path, version="1.0"))
    assert (answer.status, answer.body) == (200, b"ok")


def websocket(path: str, *fields: bytes, **changed: str) -> bytes:
    return get(path, b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", *fields, **changed)


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n"
)


def echo(peer: UpstreamPeer, request: Received) -> bool:
    peer.send(SWITCH)
    data = peer.buffer
    while True:
        if data:
            peer.send(b"<" + data + b">")
        data = peer._recv()
        if not data:
            peer.send(b"bye")
            return False


def test_item_16_tunnel(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(path, echo)
    with door.connect() as client:
        client.send(websocket(path))
        answer = client.answer()
        assert answer.status == 101
        assert answer.value("upgrade") == b"websocket"
        assert answer.value("connection") == b"Upgrade"
        assert answer.value("sec-websocket-accept") == b"y"
        for message in (b"a", b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            client.send(message)
            assert client.exactly(len(message) + 2) == b"<" + message + b">"
    (seen,) = upstream.wait_for(path)
    assert seen.value("Connection") == b"Upgrade"
    assert seen.value("Upgrade") == b"websocket"


def test_item_16_bytes_sent_with_the_request_are_tunnelled(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.on(path, echo)
    with door.connect() as client:
        client.send(websocket(path) + b"early")
        assert client.answer().status == 101
        assert client.until(b">") == b"<early>"
        client.send(b"late")
        assert client.until(b">") == b"<late>"


def test_item_16_bytes_behind_the_101_are_tunnelled(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(path, SWITCH + b"first bytes")
    with door.connect() as client:
        client.send(websocket(path))
        assert client.answer().status == 101
        assert client.exactly(11) == b"first bytes"


def test_item_16_half_close(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(path, echo)
    with door.connect() as client:
        client.send(websocket(path))
        assert client.answer().status == 101
        client.send(b"last")
        client.sock.shutdown(1)
        assert client.to_end() == b"<last>bye"


def test_item_16_upstream_half_closes(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    got: list[bytes] = []

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(SWITCH + b"done")
        peer.sock.shutdown(1)
        got.append(peer.read_exactly(5))
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(websocket(path))
        assert client.answer().status == 101
        assert client.to_end() == b"done"
        client.send(b"after")
        deadline = time.monotonic() + 3
        while not got and time.monotonic() < deadline:
            time.sleep(0.01)
    assert got == [b"after"]


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_item_16_cancel_closes_the_other_side(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, who: str
) -> None:
    closed: list[bool] = []

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(SWITCH)
        if who == "upstream":
            peer.reset()
            return False
        closed.append(peer.closed_by_door())
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(websocket(path))
        assert client.answer().status == 101
        if who == "upstream":
            assert client.ended()
            return
        client.sock.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0: reset
    deadline = time.monotonic() + 3
    while not closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert closed == [True]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, other\r\n\r\n",
    ],
)
def test_item_16_another_protocol_is_502(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, answer: bytes
) -> None:
    upstream.on(path, answer + b"tunnel?")
    assert door.ask(websocket(path)).status == 502


@pytest.mark.parametrize("request_fields", [(), (b"Upgrade: websocket",), (b"Connection: Upgrade",)])
def test_item_16_unrequested_101_is_502(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, request_fields: tuple[bytes, ...]
) -> None:
    upstream.on(path, SWITCH + b"tunnel?")
    assert door.ask(get(path, *request_fields)).status == 502
    (seen, *_) = upstream.wait_for(path)
    assert not seen.values("Upgrade")


def test_item_16_upgrade_is_ignored_in_http10(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    door.ask(websocket(path, version="1.0"))
    (seen,) = upstream.wait_for(path)
    assert not seen.values("Upgrade")
    assert not seen.values("Connection")


def test_item_16_h2c_is_not_passed_on(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    fields = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    assert door.ask(get(path, *fields)).body == b"ok"
    (seen,) = upstream.wait_for(path)
    assert not seen.values("Upgrade")
    assert not seen.values("HTTP2-Settings")


def test_item_16_refused_upgrade_keeps_http(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(path, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    with door.connect() as client:
        client.send(websocket(path) + get("/next"))
        assert client.answer().status == 403
        assert client.answer().body == b"ok"


@pytest.mark.parametrize("framing", [(b"Content-Length: 3", b"abc"), (b"Transfer-Encoding: chunked", CHUNKED)])
def test_item_16_upgrade_with_a_body_is_a_plain_request(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, framing: tuple[bytes, bytes]
) -> None:
    with door.connect() as client:
        client.send(websocket(path, framing[0], method="POST") + framing[1] + get("/next"))
        assert client.answer().body == b"ok"
        assert client.answer().body == b"ok"
    (seen,) = upstream.wait_for(path)
    assert (seen.body, seen.values("Upgrade")) == (b"abc", [])


def test_item_16_426_keeps_its_upgrade(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(
        path, b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: foo/2\r\nContent-Length: 0\r\n\r\n"
    )
    answer = door.ask(get(path))
    assert answer.status == 426
    assert answer.value("upgrade") == b"foo/2"


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"TRACE http://app.test/ HTTP/1.1\r\nHost: app.test\r\n\r\n",
    ],
)
def test_item_17_connect_and_trace_are_refused(door: DoorProcess, upstream: ScriptedUpstream, data: bytes) -> None:
    before = len(upstream.requests)
    assert door.refused(data + CANARY).status == 405
    assert len(upstream.requests) == before


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "OPTIONS", "PURGE", "PROPFIND", "M-SEARCH", "FOO", "DESCRIBE"])
def test_item_17_other_methods_are_forwarded(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, method: str
) -> None:
    assert door.ask(get(path, method=method)).status == 200
    (seen,) = upstream.wait_for(path)
    assert seen.start == f"{method} {path} HTTP/1.1".encode()
