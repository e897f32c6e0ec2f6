"""Items 18 to 21 of the list that a correct proxy is held to: limits and streaming."""

from __future__ import annotations

import socket
import time

import pytest
from door_peers import BODY_LIMIT, OK, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, delay, get

pytestmark = pytest.mark.integration

H = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        (b"X: " + b"a" * 65536,),
        tuple(b"X-%d: %b" % (i, b"a" * 60) for i in range(1000)),
        tuple(b"X-%d: a" % i for i in range(2000)),
        tuple(b"a:" for _ in range(300)),
        (b"a" * 65536 + b": x",),
        (b"Cookie: " + b"a" * 40000,),
    ],
)
@pytest.mark.parametrize("pieces", [False, True])
def test_item_18_large_heads_are_431(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, fields: tuple[bytes, ...], pieces: bool
) -> None:
    data = get(path, *fields)
    with door.connect() as client:
        for start in range(0, len(data), 1500 if pieces else len(data)):
            try:
                client.send(data[start : start + (1500 if pieces else len(data))])
            except ConnectionError:
                break
            delay(0.0005 if pieces else 0)
        answer = client.answer()
        assert answer.status == 431
        assert answer.value("connection") == b"close"
        assert client.ended()
    assert not upstream.seen(path)


@pytest.mark.parametrize("size", [20_000, 65_536, 200_000])
def test_item_18_long_targets_are_414(door: DoorProcess, size: int) -> None:
    assert door.refused(get("/" + "a" * size)).status in {414, 431}


def test_item_18_heads_below_the_limits_pass(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    assert door.ask(get(path, b"X: " + b"a" * 16_000)).status == 200
    assert door.ask(get(path, *(b"X-%d: a" % i for i in range(200)))).status == 200
    assert door.ask(get(path + "?" + "a" * 8000)).status == 200
    assert len(upstream.wait_for(path, 3)[1].head.split(b"\r\n")) > 200


def test_item_18_body_limit_by_length(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    fits = get(path, b"Content-Length: %d" % BODY_LIMIT, method="POST") + b"a" * BODY_LIMIT
    assert door.ask(fits).status == 200
    assert len(upstream.wait_for(path)[0].body) == BODY_LIMIT
    over = get(path, b"Content-Length: %d" % (BODY_LIMIT + 1), method="POST")
    assert door.refused(over).status == 413
    assert door.refused(over + b"a" * BODY_LIMIT).status == 413
    assert door.refused(get(path, b"Content-Length: 9999999999", method="POST") + b"a" * 3_000).status == 413
    assert len(upstream.seen(path)) == 1


@pytest.mark.parametrize("size", [1000, 50_000, 100_001])
def test_item_18_body_limit_chunked(door: DoorProcess, upstream: ScriptedUpstream, path: str, size: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
    data = get(path, b"Transfer-Encoding: chunked", method="POST") + chunk * (BODY_LIMIT // size + 1)
    assert door.refused(data).status == 413
    assert not any(request.complete for request in upstream.seen(path))


@pytest.mark.parametrize("over", [b"%x\r\n" % (BODY_LIMIT + 1), b"7fffffff;a=b\r\nx", b"1\r\na\r\n%X\r\n" % BODY_LIMIT])
@pytest.mark.parametrize("pieces", [False, True])
def test_item_18_a_chunk_announced_beyond_the_body_limit_is_413_at_once(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, over: bytes, pieces: bool
) -> None:
    with door.connect(timeout=0.9) as client:  # less than the body timeout, which would answer 408
        client.send(get(path, b"Transfer-Encoding: chunked", method="POST"))
        for start in range(0, len(over), 1 if pieces else len(over)):
            client.send(over[start : start + (1 if pieces else len(over))])
        answer = client.answer()
        assert (answer.status, answer.value("connection")) == (413, b"close")
        assert client.ended()
    assert not any(request.complete for request in upstream.seen(path))


def test_item_18_body_limit_chunked_exact(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    data = get(path, b"Transfer-Encoding: chunked", method="POST")
    assert door.ask(data + (b"3e8\r\n" + b"a" * 1000 + b"\r\n") * (BODY_LIMIT // 1000) + b"0\r\n\r\n").status == 200
    assert len(upstream.wait_for(path)[0].body) == BODY_LIMIT


def test_item_18_413_reaches_a_client_that_still_sends(door: DoorProcess, path: str) -> None:
    size = 30 << 20
    with door.connect() as client:
        client.send(get(path, b"Content-Length: %d" % size, method="POST"))
        client.send(b"a" * size)  # all of it, before the answer is read
        assert client.answer().status == 413


@pytest.mark.parametrize(
    "head",
    [
        H + b"Content-Type: text/event-stream\r\n\r\n",
        H + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n",
        H + b"\r\n",
        H + b"Content-Length: 15\r\n\r\n",
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_item_19_everything_is_flushed_at_once(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, head: bytes, version: str
) -> None:
    from threading import Event

    step = Event()
    chunked = b"chunked" in head

    def piece(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if chunked else data

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(head)
        for data in (b"one..", b"two..", b"three"):
            assert step.wait(5)
            step.clear()
            peer.send(piece(data))
        if chunked:
            peer.send(b"0\r\n\r\n")
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path, version=version))
        client.until(b"\r\n\r\n")  # the head alone comes before any of the body
        for data in (b"one..", b"two..", b"three"):
            step.set()
            client.until(data)
        client.to_end() if version == "1.0" else None


def test_item_20_a_client_that_does_not_read_costs_no_memory(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    sent = [0]
    block = b"a" * 65536

    def flood(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + b"Content-Length: %d\r\n\r\n" % (1 << 30))
        peer.sock.settimeout(2.0)
        try:
            while True:
                peer.send(block)
                sent[0] += len(block)
        except OSError:
            return False

    upstream.on(path, flood)
    door.ask(get("/warm"))
    before = door.rss_bytes()
    with door.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(get(path))
        client.until(b"\r\n\r\n")
        last, deadline = -1, time.monotonic() + 5
        while sent[0] != last and time.monotonic() < deadline:
            last = sent[0]
            delay(0.3)
        assert 0 < sent[0] < 64 << 20, "the upstream was not held back"
        assert door.rss_bytes() - before <= 1 << 20


def test_item_20_a_slow_reader_gets_everything(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    payload = bytes(range(256)) * 40_000
    upstream.on(path, H + b"Content-Length: %d\r\n\r\n" % len(payload) + payload)
    with door.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(get(path, b"Connection: close"))
        delay(2.5)  # longer than the upstream timeout of this door: the client's pause is not the upstream's
        answer = client.answer()
        assert answer.body == payload


def test_item_20_an_upstream_that_does_not_read_holds_the_client_back(
    door: DoorProcess, trusting_door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        delay(1.5)
        body = peer.read_body(request.head)[0]
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(len(body))), len(body)))
        return True

    upstream.on(path, script)
    size = 40 << 20
    trusting_door.ask(get("/warm"))
    before = trusting_door.rss_bytes()
    with trusting_door.connect(20) as client:
        client.send(get(path, b"Content-Length: %d" % size, method="POST"))
        block = b"a" * (1 << 20)
        for _ in range(size >> 20):
            client.send(block)
        assert client.answer().body == b"%d" % size
    assert trusting_door.rss_bytes() - before <= 2 << 20


def timed_out(door: DoorProcess, first: bytes, drip: bytes = b"", pause: float = 0.2) -> float:
    """Send a beginning, then a byte now and then; hold the door to 408 and closing; return the seconds it took."""
    with door.connect(10) as client:
        client.send(first)
        started = time.monotonic()
        client.sock.settimeout(pause)
        for index in range(100):
            try:
                if not client.fill() or client.buffer:
                    break
            except TimeoutError:
                if drip:
                    client.send(drip[index % len(drip) : index % len(drip) + 1])
        client.sock.settimeout(5)
        took = time.monotonic() - started
        answer = client.answer()
        assert answer.status == 408
        assert answer.value("connection") == b"close"
        assert client.ended()
        return took


def test_item_20_slow_heads_are_408(door: DoorProcess) -> None:
    assert 0.7 < timed_out(door, b"GET / HTTP/1.1\r\nHost: app.test\r\n") < 2.5
    assert 0.7 < timed_out(door, b"GET / HTTP/1.1\r\n", drip=b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") < 2.5
    assert 0.7 < timed_out(door, b"G") < 2.5


def test_item_20_slow_heads_on_a_kept_connection_are_408(door: DoorProcess) -> None:
    with door.connect(10) as client:
        client.send(get("/"))
        assert client.answer().status == 200
        client.send(b"GET / HTTP/1.1\r\nHo")
        assert client.answer().status == 408
        assert client.ended()


def test_item_20_slow_bodies_are_408(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    length = get(path, b"Content-Length: 1000", method="POST") + b"abc"
    chunked = get(path, b"Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n"
    assert 0.7 < timed_out(door, length) < 2.5
    assert 0.7 < timed_out(door, chunked) < 2.5
    assert 1.5 < timed_out(door, length, drip=b"a") < 4
    assert not any(request.complete for request in upstream.seen(path))


def test_item_20_a_silent_connection_is_closed(door: DoorProcess) -> None:
    with door.connect() as client:
        assert client.ended()


def test_item_20_steady_bodies_are_not_slow(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    with door.connect() as client:
        client.send(get(path, b"Content-Length: 10000", method="POST"))
        for _ in range(10):
            delay(0.25)
            client.send(b"a" * 1000)
        assert client.answer().status == 200


def test_item_20_a_client_that_never_reads_answers_is_not_answered_forever(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.on(path, H + b"Content-Length: 60000\r\n\r\n" + b"a" * 60_000)
    before = door.rss_bytes()
    with door.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(get(path) * 1000)
        last, deadline = -1, time.monotonic() + 5
        while len(upstream.seen(path)) != last and time.monotonic() < deadline:
            last = len(upstream.seen(path))
            delay(0.3)
        assert last < 200
        assert door.rss_bytes() - before < 2 << 20


@pytest.mark.parametrize("chunked", [False, True])
def test_item_21_request_bodies_stream(door: DoorProcess, upstream: ScriptedUpstream, path: str, chunked: bool) -> None:
    got: list[bytes] = []

    def script(peer: UpstreamPeer, request: Received) -> bool:
        while b"".join(got).count(b"!") < 2:
            got.append(peer.buffer or peer._recv())
            peer.buffer = b""
        peer.send(OK)
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path, b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 8", method="POST"))
        for piece in (b"one!", b"two!"):
            client.send(b"4\r\n" + piece + b"\r\n" if chunked else piece)
            deadline = time.monotonic() + 2
            while piece not in b"".join(got) and time.monotonic() < deadline:
                delay(0.005)
            assert piece in b"".join(got), "held back"
        if chunked:
            client.send(b"0\r\n\r\n")
        assert client.answer().body == b"ok"


def test_item_21_answer_and_request_bodies_may_overlap(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            size = int(peer.read_line() or b"0", 16)
            data = peer.read_exactly(size)
            peer.read_line()
            peer.send(b"%x\r\n%b\r\n" % (len(data) + 2, b"<" + data + b">"))
        peer.read_line()
        peer.read_line()
        peer.send(b"0\r\n\r\n")
        return True

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path, b"Transfer-Encoding: chunked", method="POST"))
        client.until(b"\r\n\r\n")
        for piece in (b"a", b"bb", b"ccc"):
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.until(b"<" + piece + b">")
        client.send(b"0\r\n\r\n")
        assert client.to_end().endswith(b"0\r\n\r\n")
