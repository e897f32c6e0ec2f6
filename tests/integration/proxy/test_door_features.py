"""What routes can ask for: passwords, networks, redirects, rates, holding; TLS; the access log; traces."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import stat
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_peers import OK, Client, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, delay, get

from fairway.proxy.auth import hash_password
from fairway.proxy.control import DoorClient
from fairway.proxy.devca import DevelopmentAuthority
from fairway.proxy.errors import CertificateError, ControlError
from fairway.proxy.routes import BasicAuth, Limits, RateLimit, Redirect, Route, RouteTable, Target

pytestmark = pytest.mark.integration


@pytest.fixture
def gated(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[DoorProcess]:
    door = DoorProcess("--socket", str(tmp_path / "door.sock"), "--access-log", str(tmp_path / "access.json"))
    targets = (Target(id="a", host="127.0.0.1", port=upstream.port),)
    routes = (
        Route(
            name="auth",
            host="auth.test",
            targets=targets,
            auth=BasicAuth(users={"u": hash_password("geheim", n=1024)}, realm="here"),
        ),
        Route(name="net", host="net.test", targets=targets, allow=("10.0.0.0/8",)),
        Route(name="local", host="local.test", targets=targets, allow=("127.0.0.0/8",)),
        Route(name="moved", host="moved.test", redirect=Redirect(location="https://new.test", keep_path=True)),
        Route(name="insecure", host="plain.test", redirect=Redirect(location="https://plain.test", when="insecure")),
        Route(name="rate", host="rate.test", targets=targets, limits=Limits(rate=RateLimit(rate=0.1, burst=2))),
        Route(name="few", host="few.test", targets=targets, limits=Limits(concurrency=1)),
        Route(name="small", host="small.test", targets=targets, limits=Limits(body_bytes=10, header_bytes=300)),
        Route(name="strip", host="strip.test", path="/api", strip=True, targets=targets),
        Route(name="plain", host="strip.test", targets=targets),
    )
    asyncio.run(DoorClient(tmp_path / "door.sock").push(RouteTable(version=1, routes=routes)))
    yield door
    door.stop()
    assert "Traceback" not in door.errors(), door.errors()


def test_basic_auth(gated: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    answer = gated.ask(get(path, host="auth.test"))
    assert answer.status == 401
    assert answer.value("www-authenticate") == b'Basic realm="here", charset="UTF-8"'
    right, wrong = (base64.b64encode(f"u:{word}".encode()) for word in ("geheim", "falsch"))
    assert gated.ask(get(path, b"Authorization: Basic " + wrong, host="auth.test")).status == 401
    assert not upstream.seen(path)
    for _ in range(3):
        assert gated.ask(get(path, b"Authorization: Basic " + right, host="auth.test")).status == 200


def test_networks_and_redirects(gated: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    assert gated.ask(get(path, b"X-Forwarded-For: 10.0.0.1", host="net.test")).status == 403
    assert gated.ask(get(path, host="local.test")).status == 200
    assert gated.ask(get(path, b"X-Forwarded-Proto: https", host="plain.test")).status == 308, "nobody is trusted"
    answer = gated.ask(get("/a/b?c=d", host="moved.test"))
    assert (answer.status, answer.value("location")) == (308, b"https://new.test/a/b?c=d")


def test_what_a_trusted_proxy_says_of_its_client_counts(tmp_path: Path, upstream: ScriptedUpstream, path: str) -> None:
    log = tmp_path / "access.json"
    door = DoorProcess(
        *("--socket", str(tmp_path / "door.sock"), "--trusted", "127.0.0.0/8", "--access-log", str(log)),
    )
    targets = (Target(id="a", host="127.0.0.1", port=upstream.port),)
    https = Redirect(location="https://tls.test", keep_path=True, when="insecure")
    routes = (
        Route(name="net", host="net.test", targets=targets, allow=("10.0.0.0/8",)),
        Route(name="tls", host="tls.test", targets=targets, redirect=https),
        Route(name="rate", host="rate.test", targets=targets, limits=Limits(rate=RateLimit(rate=0.1, burst=1))),
    )
    asyncio.run(DoorClient(tmp_path / "door.sock").push(RouteTable(version=1, routes=routes)))
    try:
        for chain, status in (
            (b"10.1.2.3", 200),
            (b"10.1.2.3, 127.0.0.2", 200),  # a trusted one between
            (b"10.1.2.3, 192.0.2.1", 403),  # what a stranger says of himself
            (b"10.1.2.3, no address", 403),
            (b"fe80::1%\xff", 403),
            (None, 403),
        ):
            fields = () if chain is None else (b"X-Forwarded-For: " + chain,)
            assert door.ask(get(path, *fields, host="net.test")).status == status, chain
        assert door.ask(get(path, host="tls.test")).value("location") == b"https://tls.test" + path.encode()
        assert door.ask(get(path, b"X-Forwarded-Proto: http", host="tls.test")).status == 308
        assert door.ask(get(path, b"X-Forwarded-Proto: https", host="tls.test")).status == 200
        asked = [door.ask(get(path, f"X-Forwarded-For: 192.0.2.{n}", host="rate.test")).status for n in (1, 2, 1)]
        assert asked == [200, 200, 429]
    finally:
        door.stop()
    assert "Traceback" not in door.errors(), door.errors()
    clients = [json.loads(line)["client"] for line in log.read_text().splitlines()]
    assert clients[:6] == ["10.1.2.3", "10.1.2.3", "192.0.2.1", "127.0.0.1", "fe80::1", "127.0.0.1"]


def test_rate_and_concurrency(gated: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    answers = [gated.ask(get(path, host="rate.test")) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert 1 <= int(answers[-1].value("retry-after") or 0) <= 11

    def slow(peer: UpstreamPeer, request: Received) -> bool:
        delay(0.4)
        peer.send(OK)
        return True

    upstream.on(path + "s", slow)
    thread = threading.Thread(target=lambda: gated.ask(get(path + "s", host="few.test")))
    thread.start()
    upstream.wait_for(path + "s")
    assert gated.ask(get(path, host="few.test")).status == 503
    thread.join()
    assert gated.ask(get(path, host="few.test")).status == 200


def test_limits_of_a_route(gated: DoorProcess, path: str) -> None:
    body = get(path, b"Content-Length: 11", method="POST", host="small.test") + b"a" * 11
    assert gated.ask(body).status == 413
    assert gated.ask(get(path, b"X: " + b"a" * 300, host="small.test")).status == 431
    assert gated.ask(get(path, b"Content-Length: 3", method="POST", host="small.test") + b"abc").status == 200


def test_prefixes_are_stripped_and_the_same_head_is_not_confused(
    gated: DoorProcess, upstream: ScriptedUpstream, path: str, tmp_path: Path
) -> None:
    def ask() -> bytes:
        assert gated.ask(get("/api" + path, host="strip.test")).status == 200
        return upstream.requests[-1].start.split(b" ")[1]

    assert ask() == path.encode()
    assert ask() == path.encode()
    target = Target(id="a", host="127.0.0.1", port=upstream.port)
    table = RouteTable(version=2, routes=(Route(name="plain", host="strip.test", targets=(target,)),))
    asyncio.run(DoorClient(tmp_path / "door.sock").push(table))
    assert ask() == b"/api" + path.encode()
    assert ask() == b"/api" + path.encode()


def test_access_log_and_traces(gated: DoorProcess, upstream: ScriptedUpstream, path: str, tmp_path: Path) -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    gated.ask(get(path, b"traceparent: " + parent, b"X-Request-Id: mine-1", host="local.test"))
    gated.ask(get(path, b"traceparent: nonsense", b"X-Request-Id: a b", host="local.test"))
    first, second = upstream.wait_for(path, 2)
    assert first.value("traceparent") == parent
    assert first.value("X-Request-Id") == b"mine-1"
    made = second.value("traceparent") or b""
    assert len(made) == 55
    assert made.startswith(b"00-")
    assert second.value("X-Request-Id") not in {None, b"a b"}
    gated.refused(b"nonsense\r\n\r\n")
    log = tmp_path / "access.json"
    deadline = time.monotonic() + 5
    while (text := log.read_text()).count("\n") < 3 and time.monotonic() < deadline:
        delay(0.02)
    records = [json.loads(line) for line in text.splitlines()]
    assert [record["status"] for record in records] == [200, 200, 400]
    assert records[0] | {"time": 0, "latency_s": 0, "duration_s": 0} == {
        "time": 0,
        "client": "127.0.0.1",
        "method": "GET",
        "host": "local.test",
        "target": path,
        "status": 200,
        "bytes": 2,
        "latency_s": 0,
        "duration_s": 0,
        "route": "local",
        "upstream": "a",
        "request_id": "mine-1",
        "traceparent": parent.decode(),
    }
    assert abs(records[0]["time"] - time.time()) < 10
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_metrics_port(upstream: ScriptedUpstream) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    door = DoorProcess("--route", f"app.test=127.0.0.1:{upstream.port}", "--metrics", f"127.0.0.1:{port}")
    try:
        door.ask(get("/"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b'fairway_door_requests_total{route="r0",status="2xx"} 1.0' in answer.read()
    finally:
        assert door.stop() == 0
    assert "Traceback" not in door.errors(), door.errors()


def tls_ask(port: int, authority: DevelopmentAuthority, name: str) -> tuple[bytes, dict[str, object]]:
    context = ssl.create_default_context(cafile=str(authority.certificate_path))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        with context.wrap_socket(raw, server_hostname=name) as secure:
            secure.sendall(get("/tls", b"Connection: close", host=name))
            data = b""
            while piece := secure.recv(65536):
                data += piece
            return data, dict(secure.getpeercert() or {})


def test_tls_with_sni_reload_and_the_development_authority(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    authority = DevelopmentAuthority(tmp_path / "authority")
    folder = tmp_path / "certificates"
    authority.issue(["app.localhost", "localhost"], folder)
    again = authority.issue(["app.localhost", "localhost"], folder)
    assert again.name == "app.localhost.crt"
    assert stat.S_IMODE(again.with_suffix(".key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "authority" / "authority.key").stat().st_mode) == 0o600
    door = DoorProcess(
        *("--socket", str(tmp_path / "door.sock"), "--route", f"*=127.0.0.1:{upstream.port}"),
        *("--tls-listen", "127.0.0.1:0", "--certificates", str(folder)),
    )
    client = DoorClient(tmp_path / "door.sock")
    try:
        data, certificate = tls_ask(door.ports[1], authority, "app.localhost")
        assert data.startswith(b"HTTP/1.1 200 OK")
        assert upstream.wait_for("/tls")[-1].value("X-Forwarded-Proto") == b"https"
        assert ("DNS", "app.localhost") in certificate["subjectAltName"]  # type: ignore[operator]
        authority.issue(["special.localhost"], folder)
        assert asyncio.run(client.reload_certificates()) == 2
        _, certificate = tls_ask(door.ports[1], authority, "special.localhost")
        assert certificate["subjectAltName"] == (("DNS", "special.localhost"),)
        (folder / "broken.crt").write_text("nonsense")
        with pytest.raises(ControlError, match=r"broken\.crt"):
            asyncio.run(client.reload_certificates())
        assert tls_ask(door.ports[1], authority, "special.localhost")[0].startswith(b"HTTP/1.1 200 OK")
    finally:
        door.stop()
    assert "Traceback" not in door.errors(), door.errors()


def test_the_development_authority_signs_localhost_alone(tmp_path: Path) -> None:
    authority = DevelopmentAuthority(tmp_path)
    for names in (["example.com"], ["localhost.example.com"], ["xlocalhost"], []):
        with pytest.raises(CertificateError):
            authority.issue(names, tmp_path / "certificates")


def test_workers_share_a_port_and_one_may_die(upstream: ScriptedUpstream, path: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ("--listen", f"127.0.0.1:{port}", "--reuse-port", "--route", f"app.test=127.0.0.1:{upstream.port}")
    one, two = DoorProcess(*arguments), DoorProcess(*arguments)
    try:
        clients = [Client(port) for _ in range(16)]
        for client in clients:
            client.send(get(path))
            assert client.answer().body == b"ok"
        one.process.kill()
        one.process.wait()
        alive = 0
        for client in clients:
            try:
                client.send(get(path))
                alive += client.answer().body == b"ok"
            except (AssertionError, OSError):
                continue
        assert 0 < alive < 16
        for _ in range(10):
            with Client(port) as client:
                client.send(get(path))
                assert client.answer().body == b"ok"
    finally:
        for client in clients:
            client.sock.close()
        one.stop()
        two.stop()


def test_slow_heads_do_not_slow_others(upstream: ScriptedUpstream, path: str) -> None:
    door = DoorProcess("--route", f"app.test=127.0.0.1:{upstream.port}", "--header-timeout", "60")
    held = []
    try:
        door.ask(get(path))
        before = door.rss_bytes()
        for _ in range(1000):
            connection = socket.create_connection(("127.0.0.1", door.port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\nX-")
            held.append(connection)
        started = time.monotonic()
        with door.connect() as client:
            for _ in range(200):
                client.send(get(path))
                assert client.answer().body == b"ok"
        assert time.monotonic() - started < 2
        assert (door.rss_bytes() - before) / 1000 < 8 * 1024
    finally:
        for connection in held:
            connection.close()
        door.stop()
