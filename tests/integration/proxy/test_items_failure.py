"""Items 22 to 27 of the list that a correct proxy is held to: failure, retry, drain."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from door_peers import OK, Client, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, delay, get

pytestmark = pytest.mark.integration

H = b"HTTP/1.1 200 OK\r\n"


def wait_until(condition: object, timeout: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        delay(0.01)


@pytest.mark.parametrize("manner", [(h, w) for h in ("close", "reset") for w in ("waiting", "streaming")])
def test_item_22_a_client_that_leaves_cancels_the_upstream(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, manner: tuple[str, str]
) -> None:
    how, when = manner
    closed: list[bool] = []

    def script(peer: UpstreamPeer, request: Received) -> bool:
        if when == "streaming":
            peer.send(H + b"Content-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        closed.append(peer.closed_by_door(3))
        return False

    upstream.on(path, script)
    client = door.connect()
    client.send(get(path))
    if when == "streaming":
        client.until(b"data: 1")
    else:
        upstream.wait_for(path)
    if how == "reset":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.sock.close()
    wait_until(lambda: closed)
    assert closed == [True]


def test_item_22_a_client_that_leaves_inside_its_body_cancels_the_upstream(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    with door.connect() as client:
        client.send(get(path, b"Content-Length: 10", method="POST") + b"abc")
        delay(0.1)
        client.sock.shutdown(socket.SHUT_WR)
        data = client.to_end()
        assert not data or data.startswith(b"HTTP/1.1 400")
    (seen,) = upstream.wait_for(path)
    assert not seen.complete


def test_item_22_half_closed_clients_are_answered(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        delay(0.2)
        peer.send(OK)
        return True

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().body == b"ok"
        assert client.ended()


def test_item_22_499_is_logged(upstream: ScriptedUpstream, path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("log") / "access.json"
    door = DoorProcess("--route", f"app.test=127.0.0.1:{upstream.port}", "--access-log", str(log))

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.closed_by_door()
        return False

    upstream.on(path, script)
    try:
        with door.connect() as client:
            client.send(get(path))
            upstream.wait_for(path)
        wait_until(lambda: log.exists() and '"status":499' in log.read_text())
    finally:
        door.stop()


@pytest.mark.parametrize(
    "answer",
    [
        H + b"Content-Length: 10\r\n\r\nabc",
        H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nab",
        H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n",
    ],
)
@pytest.mark.parametrize("manner", [(h, v) for h in ("close", "reset") for v in ("1.1", "1.0")])
def test_item_23_a_cut_off_answer_is_never_ended_well(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, answer: bytes, manner: tuple[str, str]
) -> None:
    how, version = manner

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(answer)
        delay(0.1)
        if how == "reset":
            peer.reset()
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path, version=version))
        reset = False
        try:
            while data := client.sock.recv(65536):
                client.buffer += data
        except ConnectionResetError:
            reset = True
        head, _, body = client.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert not body.endswith(b"0\r\n\r\n")
        if b"content-length" in head.lower():
            assert len(body) < 10
        elif b"chunked" not in head.lower():
            assert reset, "an answer that ends with the connection was ended like a whole one"


def test_item_23_until_close_answers_end_with_a_last_chunk(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + b"\r\nabc")
        delay(0.05)
        peer.send(b"def")
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path) + get("/next"))
        assert client.answer().body == b"abcdef"
        assert client.answer().body == b"ok"
    assert door.ask(get(path, version="1.0")).body == b"abcdef"


def test_item_23_until_close_answers_cut_by_reset_are_broken_off(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + b"\r\nabc")
        delay(0.1)
        peer.reset()
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path))
        assert not client.to_end().partition(b"\r\n\r\n")[2].endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nConten", b"HTTP/1.1 103 Early\r\n\r\n"])
def test_item_24_a_fresh_connection_that_dies_is_502(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, method: str, answer: bytes
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.read_body(request.head)
        peer.send(answer)
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path, b"Content-Length: 0", method=method))
        came = client.answer()
        while came.status < 200:
            came = client.answer()
        assert came.status == 502
    assert len(upstream.seen(path)) <= (2 if method == "GET" else 1)


@pytest.fixture
def pair(path: str) -> Iterator[tuple[DoorProcess, ScriptedUpstream, ScriptedUpstream]]:
    one, two = ScriptedUpstream(), ScriptedUpstream()
    door = DoorProcess(
        *("--route", f"app.test=127.0.0.1:{one.port},127.0.0.1:{two.port}"), *("--upstream-timeout", "1")
    )
    yield door, one, two
    door.stop()
    assert "Traceback" not in door.errors(), door.errors()
    one.close()
    two.close()


def test_item_24_another_target_is_tried_only_where_it_is_safe(
    pair: tuple[DoorProcess, ScriptedUpstream, ScriptedUpstream], path: str
) -> None:
    door, one, two = pair
    one.on(path, lambda peer, request: False)
    for _ in range(2):
        assert door.ask(get(path)).body == b"ok"
    statuses = sorted(door.ask(get(path, b"Content-Length: 3", method="POST") + b"abc").status for _ in range(2))
    assert statuses == [200, 502]
    assert len(one.seen(path)) == 2
    assert len(two.seen(path)) == 3


def test_item_24_connect_failures_are_tried_elsewhere_for_any_method(
    pair: tuple[DoorProcess, ScriptedUpstream, ScriptedUpstream], path: str
) -> None:
    door, one, two = pair
    one.close()
    for _ in range(6):
        answer = door.ask(get(path, b"Content-Length: 3", method="POST") + b"abc")
        assert answer.body == b"ok"
    assert [request.body for request in two.seen(path)] == [b"abc"] * 6


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 502), ("PATCH", 502)])
def test_item_25_keep_alive_race(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, method: str, status: int
) -> None:
    """The upstream answers once, and closes the connection as the next request comes on it."""

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(OK)
        if peer.read_head() is None:
            return False
        upstream.scripts.pop(path.encode())
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path))
        assert client.answer().body == b"ok"
        client.send(
            get(path, b"Content-Length: 0", method=method) if method in {"POST", "PATCH"} else get(path, method=method)
        )
        assert client.answer(method).status == status
        client.send(get(path))
        assert client.answer().body == b"ok"


def test_item_25_closed_idle_connections_are_not_used(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(path, lambda peer, request: peer.send(OK))  # closes behind every answer
    for _ in range(5):
        assert door.ask(get(path)).status == 200
        delay(0.02)
        assert door.ask(get(path, b"Content-Length: 0", method="POST")).status == 200
        delay(0.02)


def test_item_26_refused_is_502(door: DoorProcess) -> None:
    answer = door.ask(get("/", host="refused.test"))
    assert answer.status == 502
    request_id = answer.value("x-request-id")
    assert request_id
    assert request_id in answer.body
    assert answer.value("content-type") == b"text/plain; charset=utf-8"
    assert door.ask(get("/", method="HEAD", host="refused.test"), "HEAD").status == 502


def test_item_26_connect_timeout_is_504() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):  # fill the backlog, so that no further connection is accepted
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        door = DoorProcess("--route", f"app.test=127.0.0.1:{port}", "--upstream-timeout", "0.5")
        try:
            assert door.ask(get("/")).status == 504
        finally:
            door.stop()
            for filler in fillers:
                filler.close()


def test_item_26_first_byte_timeout_is_504(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    for answer in (b"", b"HTTP/1.1 200 OK\r\nX:"):

        def script(peer: UpstreamPeer, request: Received, answer: bytes = answer) -> bool:
            if answer:
                peer.send(answer)
            peer.closed_by_door()
            return False

        upstream.on(path, script)
        with door.connect() as client:
            client.send(get(path))
            started = time.monotonic()
            assert client.answer().status == 504
            assert 0.7 < time.monotonic() - started < 2.5
            client.send(get("/next"))
            assert client.answer().body == b"ok"
    assert len(upstream.seen(path)) == 2, "a request that timed out was sent again"


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_item_26_idle_timeout_breaks_the_answer_off(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, framing: bytes
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + framing + b"\r\n\r\n" + (b"3\r\nabc\r\n" if b"chunked" in framing else b"abc"))
        peer.closed_by_door()
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path))
        started = time.monotonic()
        body = client.to_end().partition(b"\r\n\r\n")[2]
        assert 0.7 < time.monotonic() - started < 2.5
        assert not body.endswith(b"0\r\n\r\n")


def test_item_26_an_event_stream_may_be_silent_for_longer(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(H + b"Content-Type: text/event-stream\r\n\r\n")
        delay(2.2)
        peer.send(b"data: late\n\n")
        return False

    upstream.on(path, script)
    assert door.ask(get(path)).body == b"data: late\n\n"


def test_item_26_no_route_is_404(door: DoorProcess) -> None:
    with door.connect() as client:
        client.send(get("/", host="nowhere.test"))
        assert client.answer().status == 404
        client.send(get("/"))
        assert client.answer().body == b"ok"


def test_early_answers_are_relayed(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    """An upstream that answers before the body is sent must not be waited for, nor poison what follows."""

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nfinal")
        peer.closed_by_door()
        return False

    upstream.on(path, script)
    with door.connect() as client:
        client.send(get(path, b"Content-Length: 90000", method="POST") + b"a" * 100)
        answer = client.answer()
        assert (answer.status, answer.body) == (413, b"final")
        assert answer.value("connection") == b"close"
        client.to_end()
    assert door.ask(get("/next")).body == b"ok"


def test_early_answers_before_a_reset_are_relayed(upstream: ScriptedUpstream, path: str) -> None:
    """An upstream that answers and closes with most of the body unread resets it; the answer is there nevertheless."""

    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfinal")
        return False

    upstream.on(path, script)
    door = DoorProcess("--route", f"app.test=127.0.0.1:{upstream.port}")
    try:
        for _ in range(10):
            with door.connect() as client:
                sender = threading.Thread(target=_send_what_is_taken, args=(client, path))
                sender.start()
                answer = client.answer()
                sender.join()
                assert (answer.status, answer.body) == (413, b"final")
    finally:
        door.stop()


def _send_what_is_taken(client: Client, path: str) -> None:
    client.send(get(path, b"Content-Length: 5000000", method="POST"))
    try:
        for _ in range(50):
            client.send(b"a" * 100_000)
    except ConnectionError:
        return  # refused half-way, which is what the answer says


def test_every_client_gets_its_own_answer(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    """Poisoned connections of every kind, each followed by a request whose answer carries its nonce."""

    def nonce(peer: UpstreamPeer, request: Received) -> bool:
        value = request.value("X-Nonce") or b""
        peer.send(H + b"Content-Length: %d\r\n\r\n%b" % (len(value), value))
        return True

    upstream.on(path, nonce)
    poisons = [
        H + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
        H + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + OK,
        b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok" + OK,
        b"HTTP/1.1 304 No\r\n\r\n" + OK,
        H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + OK,
    ]
    for number, poison in enumerate(poisons):
        upstream.on(f"{path}p{number}", poison)
    with door.connect() as client:
        for round_ in range(5):
            for number in range(len(poisons)):
                client.send(get(f"{path}p{number}"))
                answer = client.answer()
                while answer.status < 200:
                    answer = client.answer()
                client.send(get(path, b"X-Nonce: %d.%d" % (round_, number)))
                assert client.answer().body == b"%d.%d" % (round_, number)
