"""Items 13 to 17 of the list that a correct proxy is held to: empty bodies, expectations, upgrades, methods."""

from __future__ import annotations

import time

import pytest
from door_peers import OK, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, delay, get

pytestmark = pytest.mark.integration

CANARY = b"GET /canary HTTP/1.1\r\nHost: app.test\r\n\r\n"
CHUNKED = b"3\r\nabc\r\n0\r\n\r\n"


def post(path: str, *fields: bytes) -> bytes:
    return get(path, *fields, method="POST")


H = b"HTTP/1.1 200 OK\r\n"


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
        delay(0.05)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
        return peer.closed_by_door()

    upstream.on(path, late)
    for _ in range(3):
        assert door.ask(get(path)).body == b"ok"
        delay(0.1)
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
        delay(0.5)
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
        delay(0.3)
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
            delay(0.01)
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
        delay(0.01)
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
    answer = door.refused(data + CANARY)
    assert answer.status == 405
    assert answer.value("allow")  # RFC 9110 15.5.6
    assert len(upstream.requests) == before


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "OPTIONS", "PURGE", "PROPFIND", "M-SEARCH", "FOO", "DESCRIBE"])
def test_item_17_other_methods_are_forwarded(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, method: str
) -> None:
    assert door.ask(get(path, method=method)).status == 200
    (seen,) = upstream.wait_for(path)
    assert seen.start == f"{method} {path} HTTP/1.1".encode()
