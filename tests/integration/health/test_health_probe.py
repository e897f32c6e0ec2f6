"""Probes against real sockets that answer well, badly, late or not at all."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.health import probe as probing
from fairway.health.conditions import parse
from fairway.health.probe import ProbeResult, ProbeTarget, probe

pytestmark = pytest.mark.integration


@asynccontextmanager
async def answering(
    answer: bytes, *, hold: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve `answer` to every request; with `hold`, leave the connection open behind it."""
    asked: list[bytes] = []
    ended = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            if hold:
                await ended.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            asked.append(b"")
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        ended.set()
        server.close()
        if tasks:
            await asyncio.wait(tasks)


async def ask(answer: bytes, *conditions: str, hold: bool = False, timeout: float = 5.0) -> ProbeResult:
    async with answering(answer, hold=hold) as (port, _):
        parsed = tuple(parse(condition) for condition in conditions)
        return await probe(ProbeTarget("127.0.0.1", port, "/healthz", timeout, parsed))


async def test_sends_one_plain_request() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (port, asked):
        result = await probe(ProbeTarget("127.0.0.1", port, "/healthz?deep=1", host_header="app.localhost"))
    assert result.ok
    assert result.status == 200
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == "GET /healthz?deep=1 HTTP/1.1"
    assert "Host: app.localhost" in lines
    assert "Connection: close" in lines
    assert "Accept-Encoding: identity" in lines


@pytest.mark.parametrize("status", [200, 204, 301, 399])
async def test_any_status_below_400_is_well(status: int) -> None:
    assert (await ask(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())).ok


async def test_no_redirect_is_followed() -> None:
    moved = await ask(
        b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "[STATUS] == 200"
    )
    assert moved.error == "[STATUS] == 200: got 302"


async def test_says_what_came() -> None:
    result = await ask(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
    assert not result.ok
    assert result.status == 503
    assert result.error.endswith("answered 503, expected a status below 400")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 5000 + b"\r\n", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", "more than 65536 bytes of header fields"),
    ],
)
async def test_bad_answers_are_results(answer: bytes, error: str) -> None:
    result = await ask(answer)
    assert not result.ok
    assert error in result.error


async def test_early_hints_are_not_the_answer() -> None:
    result = await ask(
        b"HTTP/1.1 103 X\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "[BODY] == ok"
    )
    assert result.ok
    assert result.status == 200


async def test_chunked_and_unframed_bodies_are_read() -> None:
    assert (await ask(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "[BODY] == ok")).ok
    assert (await ask(b"HTTP/1.0 200 OK\r\n\r\nok", "[BODY] == ok")).ok


async def test_a_long_body_is_cut() -> None:
    result = await ask(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, "len([BODY]) == 65536")
    assert result.ok, result.error


async def test_a_stream_that_never_ends_is_well_once_its_status_is_known() -> None:
    result = await ask(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", hold=True)
    assert result.ok
    assert result.seconds < 2.0


async def test_a_body_that_does_not_come_runs_into_the_timeout() -> None:
    result = await ask(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "[BODY] == ok", hold=True, timeout=0.2)
    assert result.error == "no answer within 0.2 s (reading the body)"
    assert result.status == 200


async def test_an_answer_that_does_not_come_runs_into_the_timeout() -> None:
    result = await ask(b"", hold=True, timeout=0.2)
    assert result.error == "no answer within 0.2 s (waiting for the answer)"


async def test_tcp_needs_a_connection_only(unused_port: int) -> None:
    async with answering(b"") as (port, _):
        assert (await probe(ProbeTarget("127.0.0.1", port))).ok
    refused = await probe(ProbeTarget("127.0.0.1", unused_port))
    assert not refused.ok
    assert refused.error == "connection refused: nothing listens there"


async def test_a_relay_that_accepts_everything_proves_nothing(unused_port: int) -> None:
    async with answering(b"") as (port, asked):
        closed = await probe(ProbeTarget("127.0.0.1", port, relayed=True))
        assert not closed.ok
        assert closed.error == "closed the connection without an answer: nothing listens behind the published port"
        assert asked[0].startswith(b"GET / HTTP/1.1\r\n")
    async with answering(b"HTTP/1.1 500 Broken\r\n\r\n") as (port, _):
        assert (await probe(ProbeTarget("127.0.0.1", port, relayed=True))).ok
    async with answering(b"", hold=True) as (port, _):
        silent = await probe(ProbeTarget("127.0.0.1", port, timeout=0.1, relayed=True))
        assert silent.error == "no answer within 0.1 s (waiting for the answer)"
    assert not (await probe(ProbeTarget("127.0.0.1", unused_port, relayed=True))).ok


async def test_cancelling_closes_the_connection() -> None:
    async with answering(b"", hold=True) as (port, asked):
        task = asyncio.create_task(probe(ProbeTarget("127.0.0.1", port, "/", timeout=60.0)))
        async with asyncio.timeout(5.0):
            while not asked:
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_tls_certificates_are_verified_and_their_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = _certificate(tmp_path, hours=100)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    conditions = (parse("[CERTIFICATE_EXPIRATION] > 48h"), parse("[STATUS] == 200"))
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls=serving) as (port, _):
        target = ProbeTarget("localhost", port, "/", conditions=conditions, tls=True)
        refused = await probe(target)
        assert "certificate not accepted" in refused.error
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(probing.ssl, "create_default_context", lambda: trusting)
        accepted = await probe(target)
    assert accepted.ok, accepted.error
    assert accepted.certificate_left is not None
    assert 99 * 3600 < accepted.certificate_left <= 100 * 3600


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def _certificate(folder: Path, *, hours: int) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = folder / "key.pem", folder / "cert.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file
