"""The same bytes to the door, NGINX and HAProxy: every difference is listed, and explained, in ``differences.toml``."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_peers import OK, Client, DoorProcess, ScriptedUpstream, get

pytestmark = pytest.mark.integration

TABLE = Path(__file__).with_name("differences.toml")
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
CANARY = b"GET /canary HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


def post(*fields: bytes) -> bytes:
    return get("/v", *fields, method="POST")


REQUESTS: dict[str, bytes] = {
    "plain": get("/v"),
    "bare LF lines": b"GET /v HTTP/1.1\nHost: app.test\n\n",
    "bare LF before a second field": b"GET /v HTTP/1.1\r\nHost: app.test\r\nX: a\nY: b\r\n\r\n",
    "obs-fold": b"GET /v HTTP/1.1\r\nHost: app.test\r\nX: a\r\n b\r\n\r\n",
    "NUL in a value": get("/v", b"X: a\x00b"),
    "control character in a value": get("/v", b"X: a\x01b"),
    "space before the colon": get("/v", b"X : a"),
    "empty name": get("/v", b": a"),
    "space in a name": get("/v", b"X Y: a"),
    "no colon": get("/v", b"nocolon"),
    "no Host": b"GET /v HTTP/1.1\r\nX: y\r\n\r\n",
    "two Hosts": get("/v", b"Host: app.test"),
    "two Hosts in one": b"GET /v HTTP/1.1\r\nHost: app.test, evil.test\r\n\r\n",
    "Host with a path": b"GET /v HTTP/1.1\r\nHost: app.test/x\r\n\r\n",
    "Host with user": b"GET /v HTTP/1.1\r\nHost: u@app.test\r\n\r\n",
    "Host with a bad port": b"GET /v HTTP/1.1\r\nHost: app.test:8a\r\n\r\n",
    "empty Host": b"GET /v HTTP/1.1\r\nHost:\r\n\r\n",
    "absolute form": get("http://app.test/v"),
    "absolute form with user": get("http://u@app.test/v"),
    "fragment": get("/v#x"),
    "authority form": get("app.test:80"),
    "asterisk with GET": get("*"),
    "HTTP/0.9": b"GET /v\r\n\r\n",
    "HTTP/1.0 without Host": b"GET /v HTTP/1.0\r\n\r\n",
    "HTTP/1.2": get("/v", version="1.2"),
    "HTTP/2.0": get("/v", version="2.0"),
    "HTTP/9.9": get("/v", version="9.9"),
    "two spaces": b"GET  /v HTTP/1.1\r\nHost: app.test\r\n\r\n",
    "space behind the version": b"GET /v HTTP/1.1 \r\nHost: app.test\r\n\r\n",
    "lower-case method": get("/v", method="get"),
    "unknown method": get("/v", method="FOO"),
    "CONNECT": get("app.test:80", method="CONNECT"),
    "TRACE": get("/v", method="TRACE"),
    "both framings": post(b"Content-Length: 3", b"Transfer-Encoding: chunked") + CHUNKS + CANARY,
    "chunked twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + CHUNKS + CANARY,
    "chunked, chunked": post(b"Transfer-Encoding: chunked, chunked") + CHUNKS + CANARY,
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked") + CHUNKS + CANARY,
    "chunked, gzip": post(b"Transfer-Encoding: chunked, gzip") + CHUNKS + CANARY,
    ",chunked": post(b"Transfer-Encoding: ,chunked") + CHUNKS + CANARY,
    "chunked,": post(b"Transfer-Encoding: chunked,") + CHUNKS + CANARY,
    "unknown coding": post(b"Transfer-Encoding: foo") + CHUNKS + CANARY,
    "tab behind chunked": post(b"Transfer-Encoding: chunked\t") + CHUNKS + CANARY,
    "tab behind a length": post(b"Content-Length: 3\t") + b"abc" + CANARY,
    "white space alone in a line": post(b"X: y", b" \t", b"Transfer-Encoding: chunked") + CHUNKS + CANARY,
    "vertical tab before chunked": post(b"Transfer-Encoding: \x0bchunked") + CHUNKS + CANARY,
    "chunked in HTTP/1.0": get("/v", b"Transfer-Encoding: chunked", method="POST", version="1.0") + CHUNKS + CANARY,
    "two lengths alike": post(b"Content-Length: 3", b"Content-Length: 3") + b"abc" + CANARY,
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 8") + b"abc" + CANARY,
    "length list": post(b"Content-Length: 3, 3") + b"abc" + CANARY,
    "length with sign": post(b"Content-Length: +3") + b"abc" + CANARY,
    "length in 24 digits": post(b"Content-Length: " + b"0" * 23 + b"3") + b"abc" + CANARY,
    "length in hex": post(b"Content-Length: 0x3") + b"abc" + CANARY,
    "chunk with bare LF": post(b"Transfer-Encoding: chunked") + b"3\nabc\n0\n\n" + CANARY,
    "chunk size with space": post(b"Transfer-Encoding: chunked") + b"3 \r\nabc\r\n0\r\n\r\n" + CANARY,
    "chunk size in 0x": post(b"Transfer-Encoding: chunked") + b"0x3\r\nabc\r\n0\r\n\r\n" + CANARY,
    "chunk size too large": post(b"Transfer-Encoding: chunked") + b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n" + CANARY,
    "chunk too long": post(b"Transfer-Encoding: chunked") + b"3\r\nabcd\r\n0\r\n\r\n" + CANARY,
    "bare LF in a chunk extension": post(b"Transfer-Encoding: chunked") + b"3;a\nb\r\nabc\r\n0\r\n\r\n" + CANARY,
    "NUL in a chunk extension": post(b"Transfer-Encoding: chunked") + b"3;a\x00b\r\nabc\r\n0\r\n\r\n" + CANARY,
    "framing in trailers": post(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n" + CANARY,
    "unknown expectation": post(b"Expect: nonsense", b"Content-Length: 3") + b"abc",
    "2,000 fields": get("/v", *(b"X-%d: a" % number for number in range(2000))),
    "64 KiB of fields": get("/v", b"X: " + b"a" * 65536),
}

ANSWERS: dict[str, bytes] = {
    "plain answer": OK,
    "answer with both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "answer with two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "answer with two lengths alike": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "answer with a length in 24 digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 23 + b"2\r\n\r\nok",
    "answer with a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
    "answer with an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\nabc",
    "answer with gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "answer chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "answer with obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "answer with bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "answer with NUL in a value": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "answer that is not HTTP": b"hello\r\n\r\n",
    "answer with status 99": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "answer in HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "answer 101 unasked": b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    "answer with bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "answer with extra bytes": OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
}


_canaries = itertools.count()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(argv: list[str], port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return process
        except OSError:
            assert process.poll() is None, f"{argv[0]} did not start"
            assert time.monotonic() < deadline, f"{argv[0]} does not listen"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def nginx(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("nginx", path=SEARCH)
    if program is None:
        pytest.skip("nginx is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; error_log {folder}/error.log; pid {folder}/pid; events {{ }}\n"
        f"http {{ access_log off; {temporary} upstream u {{ server 127.0.0.1:{upstream.port}; keepalive 8; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; proxy_set_header Host $host; proxy_read_timeout 1s; } } }'
    )
    process = started([program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], port)
    yield port
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def haproxy(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("haproxy", path=SEARCH)
    if program is None:
        pytest.skip("haproxy is not installed")
    path, port = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg", free_port()
    path.write_text(
        "global\n maxconn 100\ndefaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\n"
        f" timeout http-request 1s\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\n"
        f"backend b\n server s 127.0.0.1:{upstream.port}\n"
    )
    process = started([program, "-db", "-f", str(path)], port)
    yield port
    process.terminate()
    process.wait(10)


def outcome(port: int, upstream: ScriptedUpstream, data: bytes) -> str:
    """Send bytes; say the status that came and whether anything behind a refused head got through."""
    canary = b"/canary%d" % next(_canaries)  # its own, so that a late one of another proxy is not taken for it
    with Client(port, 3.0) as client:
        client.send(data.replace(b"/canary", canary))
        try:
            status = str(client.answer("HEAD").status)
        except AssertionError:
            status = "raw" if client.buffer else "closed"
        except TimeoutError:
            status = "waits"
        except ValueError:
            status = "raw"
    if status[0] in "45" and b"/canary" in data and upstream.wait_for(canary.decode(), timeout=0.02):
        status += " smuggled"
    return status


def compare(name: str, results: dict[str, str]) -> None:
    known = tomllib.loads(TABLE.read_text()).get(name)
    if len(set(results.values())) == 1:
        assert known is None, f"{name}: listed as a difference, but all answer {results['door']}"
        return
    assert known is not None, f"{name}: a difference that is not explained: {results}"
    assert known["why"]
    assert {key: known[key] for key in results} == results, name


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_differ_only_as_explained(
    door: DoorProcess, nginx: int, haproxy: int, upstream: ScriptedUpstream, name: str
) -> None:
    data = REQUESTS[name]
    ports = {"door": door.port, "nginx": nginx, "haproxy": haproxy}
    compare(name, {proxy: outcome(port, upstream, data) for proxy, port in ports.items()})


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_differ_only_as_explained(
    door: DoorProcess, nginx: int, haproxy: int, upstream: ScriptedUpstream, path: str, name: str
) -> None:
    upstream.on(path, ANSWERS[name])
    ports = {"door": door.port, "nginx": nginx, "haproxy": haproxy}
    compare(name, {proxy: outcome(port, upstream, get(path)) for proxy, port in ports.items()})


def test_every_explained_difference_is_tested() -> None:
    assert set(tomllib.loads(TABLE.read_text())) <= set(REQUESTS) | set(ANSWERS)
