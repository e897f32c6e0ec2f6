"""Items 1 to 8 of the list that a correct proxy is held to: header fields."""

from __future__ import annotations

import pytest
from door_peers import DoorProcess, Received, ScriptedUpstream, UpstreamPeer, get

pytestmark = pytest.mark.integration

HOP_BY_HOP = (
    b"Connection: X-Nothing",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authenticate: Basic",
    b"Proxy-Authorization: Basic eDp5",
    b"Upgrade: foo",
    b"Proxy: http://evil.test/",
)


def test_item_01_request_loses_hop_by_hop_fields(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    door.ask(get(path, *HOP_BY_HOP, b"X-Kept: 1", b"X-Kept: 2", b"Cookie: a=b", b"X-Empty:"))
    (seen,) = upstream.wait_for(path)
    for line in HOP_BY_HOP:
        assert not seen.values(line.partition(b":")[0].decode()), seen.head
    assert seen.values("X-Kept") == [b"1", b"2"]
    assert seen.values("X-Empty") == [b""]
    assert seen.value("Cookie") == b"a=b"


def test_item_01_answer_loses_hop_by_hop_fields(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    upstream.on(
        path,
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: x\r\n"
        b"Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nUpgrade: h2c\r\nX-Kept: y\r\nContent-Length: 0\r\n\r\n",
    )
    answer = door.ask(get(path))
    assert answer.start == b"HTTP/1.1 200 Fine"
    assert answer.values("set-cookie") == [b"a=1", b"b=2"]
    for name in ("keep-alive", "proxy-authenticate", "connection", "x-secret", "upgrade"):
        assert not answer.values(name), answer.head
    assert answer.value("x-kept") == b"y"


@pytest.mark.parametrize(
    "connection",
    [
        (b"Connection: X-A, X-B",),
        (b"Connection:", b"Connection: X-A", b"Connection: ,, x-b ,"),
        (b"connection: close, X-a", b"Connection:", b"CONNECTION: X-B"),
        (b"Connection: \tX-A\t,\tX-B",),
    ],
)
def test_item_02_fields_named_in_connection_are_stripped(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, connection: tuple[bytes, ...]
) -> None:
    door.ask(get(path, b"X-A: 1", *connection, b"X-B: 2", b"X-C: 3"))
    (seen,) = upstream.wait_for(path)
    assert not seen.values("X-A")
    assert not seen.values("X-B")
    assert seen.value("X-C") == b"3"
    assert not seen.values("Connection")


def test_item_02_connection_cannot_strip_framing_or_host(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    door.ask(
        get(path, b"Connection: Host, Content-Length, Transfer-Encoding", b"Content-Length: 3", method="POST") + b"abc"
    )
    (seen,) = upstream.wait_for(path)
    assert seen.value("Host") == b"app.test"
    assert seen.value("Content-Length") == b"3"
    assert seen.body == b"abc"


def test_item_03_connection_cannot_strip_forwarded_fields(
    door: DoorProcess, trusting_door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    named = b"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id"
    door.ask(get(path, named, b"X-Forwarded-Proto: https"))
    trusting_door.ask(get(path, named, b"X-Forwarded-Proto: https", b"X-Forwarded-For: 9.9.9.9"))
    for seen in upstream.wait_for(path, 2):
        assert seen.value("X-Forwarded-For") == b"127.0.0.1"
        assert seen.value("X-Forwarded-Proto") == b"http"
        assert seen.value("X-Forwarded-Host") == b"app.test"
        assert seen.value("X-Request-Id")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(b"trailers", True), (b"gzip, trailers;q=0.5", False), (b"gzip, Trailers", True), (b"gzip", False)],
)
def test_item_04_only_te_trailers_is_kept(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, sent: bytes, kept: bool
) -> None:
    door.ask(get(path, b"TE: " + sent, b"Connection: TE"))
    (seen,) = upstream.wait_for(path)
    assert seen.value("TE") == (b"trailers" if kept else None)


def test_item_04_request_trailers_are_forwarded(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\nAuthorization: no\r\n\r\n"
    door.ask(get(path, b"Transfer-Encoding: chunked", b"Trailer: X-Sum", method="POST") + body)
    (seen,) = upstream.wait_for(path)
    assert seen.body == b"abc"
    assert seen.complete
    assert seen.trailers == b"X-Sum: 1\r\nX-Other: 2\r\n"
    assert seen.value("Trailer") == b"X-Sum"


def test_item_04_answer_trailers_are_forwarded_unannounced_too(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.on(
        path,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
    )
    answer = door.ask(get(path, b"TE: trailers"))
    assert answer.body == b"abc"
    assert answer.trailers == b"X-A: 1\r\nX-B: 2\r\n"
    assert answer.value("trailer") == b"X-A"
    old = door.ask(get(path, version="1.0"))
    assert old.body == b"abc"


def test_item_02_trailers_that_connection_names_are_removed_both_ways(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        request.body, request.trailers, request.complete = peer.read_body(request.head)
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: X-A\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.send(b"2\r\nok\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
        return True

    upstream.on(path, script)
    body = b"3\r\nabc\r\n0\r\nX-C: 1\r\nX-D: 2\r\n\r\n"
    answer = door.ask(get(path, b"Connection: x-c", b"Transfer-Encoding: chunked", method="POST") + body)
    assert (answer.body, answer.trailers) == (b"ok", b"X-B: 2\r\n")
    assert upstream.seen(path)[0].trailers == b"X-D: 2\r\n"


@pytest.mark.parametrize("field", [b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: evil.test"])
def test_item_04_framing_in_trailers_is_refused(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, field: bytes
) -> None:
    data = get(path, b"Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n0\r\n" + field + b"\r\n\r\n"
    assert door.refused(data).status == 400
    assert not any(request.complete for request in upstream.seen(path))


def test_item_04_framing_in_answer_trailers_is_broken_off(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.on(
        path, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n"
    )
    with door.connect() as client:
        client.send(get(path, b"Connection: close"))
        data = client.to_end()
    assert data.startswith(b"HTTP/1.1 502") or b"0\r\n\r\n" not in data


SPOOFED = (
    b"X-Forwarded-For: 1.1.1.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil.test",
    b"X-Forwarded-Port: 1",
    b"X-Forwarded-Prefix: /x",
    b"X-Forwarded-Server: s",
    b"Forwarded: for=1.1.1.1",
    b"X-Real-IP: 1.1.1.1",
    b"X_Forwarded_For: 1.1.1.1",
    b"X_Forwarded_Proto: https",
    b"X-Forwarded_Host: evil.test",
    b"x_real_ip: 1.1.1.1",
    b"Content_Length: 7",
    b"Transfer_Encoding: chunked",
)


def test_item_05_untrusted_forwarded_fields_are_dropped(
    door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    door.ask(get(path, *SPOOFED, b"My_Own: 1"))
    (seen,) = upstream.wait_for(path)
    assert seen.value("X-Forwarded-For") == b"127.0.0.1"
    assert seen.value("X-Forwarded-Proto") == b"http"
    assert seen.value("X-Forwarded-Host") == b"app.test"
    head = seen.head.lower()
    for word in (b"1.1.1.1", b"evil", b"x-forwarded-port", b"prefix", b"server", b"x_", b"t_", b"n_"):
        assert word not in head.replace(b"my_own", b""), word
    assert seen.value("My_Own") == b"1"


def test_item_05_trusted_forwarded_for_is_appended_to(
    trusting_door: DoorProcess, upstream: ScriptedUpstream, path: str
) -> None:
    trusting_door.ask(
        get(
            path,
            b"X-Forwarded-For: 1.1.1.1",
            b"x-forwarded-for: 2.2.2.2, 3.3.3.3",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: public.test",
            b"Forwarded: for=1.1.1.1",
            b"X_Forwarded_For: 6.6.6.6",
        )
    )
    (seen,) = upstream.wait_for(path)
    assert seen.value("X-Forwarded-For") == b"1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1"
    assert seen.value("X-Forwarded-Proto") == b"https"
    assert seen.value("X-Forwarded-Host") == b"public.test"
    assert seen.value("Forwarded") == b"for=1.1.1.1"
    assert b"6.6.6.6" not in seen.head


def test_item_06_host_is_required(door: DoorProcess) -> None:
    assert door.refused(b"GET / HTTP/1.1\r\nX: y\r\n\r\n").status == 400
    assert door.refused(b"GET http://app.test/ HTTP/1.1\r\n\r\n").status == 400


@pytest.mark.parametrize(
    "hosts",
    [
        [b""],
        [b"app.test", b"app.test"],
        [b"app.test", b"evil.test"],
        [b"app.test, evil.test"],
        [b"app.test evil.test"],
        [b"app.test/x"],
        [b"user@app.test"],
        [b"app.test:99999"],
        [b"app.test:8a"],
        [b"app.test:80:80"],
        [b"[::1"],
        [b"app..test"],
        [b".app.test"],
        [b"app.test\x80"],
        [b"app.test#x"],
        [b"app.test?x"],
        [b"app.test\\x"],
        [b"<app.test>"],
    ],
)
def test_item_06_host_is_single_and_valid(door: DoorProcess, hosts: list[bytes]) -> None:
    fields = b"".join(b"Host: " + host + b"\r\n" for host in hosts)
    assert door.refused(b"GET / HTTP/1.1\r\n" + fields + b"\r\n").status == 400


@pytest.mark.parametrize("host", ["app.test", "APP.test", "app.test:80", "app.test.", "app.test:"])
def test_item_06_valid_hosts_are_routed_and_kept(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, host: str
) -> None:
    assert door.ask(get(path, host=host)).status == 200
    (seen,) = upstream.wait_for(path)
    assert seen.value("Host") == host.encode()


@pytest.mark.parametrize("scheme", ["http", "HTTP", "https"])
def test_item_06_absolute_form_overrides_host(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, scheme: str
) -> None:
    answer = door.ask(get(f"{scheme}://app.test:81{path}?a=b", host="other.test"))
    assert answer.status == 200
    (seen,) = upstream.wait_for(path)
    assert seen.start == f"GET {path}?a=b HTTP/1.1".encode()
    assert seen.value("Host") == b"app.test:81"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://app.test", 200),
        ("http://app.test?q=1", 200),
        ("ftp://app.test/", 400),
        ("http://user@app.test/", 400),
        ("http:///x", 400),
        ("http://app.test:99999/", 400),
        ("app.test:80", 400),
        ("app.test", 400),
        ("*", 400),
        ("/a#b", 400),
        ("http://app.test/#b", 400),
    ],
)
def test_item_06_forms_of_target(door: DoorProcess, target: str, status: int) -> None:
    assert door.ask(get(target)).status == status


def test_item_06_options_asterisk_is_forwarded(door: DoorProcess, upstream: ScriptedUpstream) -> None:
    assert door.ask(get("*", method="OPTIONS")).status == 200
    assert door.ask(get("http://app.test", method="OPTIONS")).status == 200
    seen = [request.start for request in upstream.wait_for("*", 2)]
    assert seen.count(b"OPTIONS * HTTP/1.1") == 2


def test_item_07_user_agent_is_never_invented(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    door.ask(get(path))
    door.ask(get(path, b"User-Agent:"))
    door.ask(get(path, b"User-Agent: x"))
    assert [seen.values("User-Agent") for seen in upstream.wait_for(path, 3)] == [[], [b""], [b"x"]]
    assert not upstream.seen(path)[0].values("Accept-Encoding")


@pytest.mark.parametrize(
    "line",
    [
        b": x",
        b"Na me: x",
        b"Name : x",
        b"Na\x01me: x",
        b"Na\x00me: x",
        b"Na\x7fme: x",
        b"Na\x80me: x",
        b"Na(me: x",
        b"nocolon",
    ],
)
def test_item_07_invalid_names_are_refused(door: DoorProcess, line: bytes) -> None:
    assert door.refused(get("/", line)).status == 400


@pytest.mark.parametrize("value", [b"a\x00b", b"a\x01b", b"a\x1fb", b"a\x7fb"])
def test_item_07_control_characters_in_values_are_refused(door: DoorProcess, value: bytes) -> None:
    assert door.refused(get("/", b"X-A: " + value)).status == 400


def test_item_07_values_keep_their_bytes(door: DoorProcess, upstream: ScriptedUpstream, path: str) -> None:
    door.ask(get(path, b"X-A: a\tb  c \t", b"X-B: \xc3\xa4\xff", b"x-CaSe: Q"))
    (seen,) = upstream.wait_for(path)
    assert seen.value("X-A") == b"a\tb  c"
    assert seen.value("X-B") == b"\xc3\xa4\xff"
    assert b"x-CaSe: Q" in seen.head


@pytest.mark.parametrize(
    "suffix",
    [
        "/a%2Fb%2f",
        "/a;b=c;d",
        "/%00%0d%0a",
        "/a//b/./c/../d",
        "?a=1;b=2&c=%3b",
        "?a=1&a=2&&",
        "?",
        "/a%zz",
        "/%",
        "?x=%",
        "/\"<>^`{|}'\\",
        "?q=http://x/?y",
        "/~!$&'()*+,=:@",
    ],
)
def test_item_08_path_and_query_are_preserved(
    door: DoorProcess, upstream: ScriptedUpstream, path: str, suffix: str
) -> None:
    before = len(upstream.requests)
    assert door.ask(get(path + suffix)).status == 200
    starts = [request.start for request in upstream.requests[before:]]
    assert f"GET {path}{suffix} HTTP/1.1".encode() in starts
