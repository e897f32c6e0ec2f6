"""One probe: an HTTP request or a TCP connection, judged by its conditions.

An HTTP client of its own on asyncio streams and httptools' parser: importing aiohttp costs the daemon 14 MiB, of which
a GET without redirects, cookies and pools needs nothing (docs/adr/0001-probes-without-a-client-library.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable

import httptools
import msgspec

from fairway.health.conditions import Condition, Facts

MAX_BODY = 64 * 1024
MAX_HEAD = 64 * 1024
_BODY_PATIENCE = 0.25


class ProbeTarget(msgspec.Struct, frozen=True):
    """What to probe and when it counts as well.

    Attributes:
        host: Name or address to connect to.
        port: Port to connect to.
        path: Path and query to GET, or None to accept any TCP connection.
        timeout: Seconds for everything: connecting, asking, reading.
        conditions: All have to hold; without any, an HTTP status below 400 is needed.
        tls: Whether to speak TLS; the certificate is verified.
        host_header: Value of ``Host``; None for ``host:port``.
        relayed: Something before the target accepts every connection, as a container engine does for a port that it
            publishes. Without a path, a GET of ``/`` is sent and any byte of an answer counts.
    """

    host: str
    port: int
    path: str | None = None
    timeout: float = 2.0
    conditions: tuple[Condition, ...] = ()
    tls: bool = False
    host_header: str | None = None
    relayed: bool = False

    def __str__(self) -> str:
        if self.path is None:
            return f"tcp {self.host}:{self.port}"
        return f"GET {'https' if self.tls else 'http'}://{self.host}:{self.port}{self.path}"


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe found.

    Attributes:
        ok: Whether the target counts as well.
        seconds: From the start of connecting to the end of reading.
        status: HTTP status, or None.
        error: Why it is not well, one sentence, or empty.
        certificate_left: Seconds until the certificate expires, or None without TLS.
    """

    ok: bool
    seconds: float
    status: int | None = None
    error: str = ""
    certificate_left: float | None = None


Prober = Callable[[ProbeTarget], Awaitable[ProbeResult]]


async def probe(target: ProbeTarget) -> ProbeResult:
    """Probe once; every failure of the target is a result, never an exception.

    No redirect is followed, no compression is asked for, at most 64 KiB of the body are read. Cancelling closes the
    connection.
    """
    started = time.perf_counter()
    exchange = _Exchange()
    try:
        async with asyncio.timeout(target.timeout):
            await _talk(target, exchange)
        error = ""
    except TimeoutError:
        error = f"no answer within {target.timeout:g} s ({exchange.doing})"
    except ssl.SSLCertVerificationError as failure:
        error = f"certificate not accepted: {failure.verify_message}"
    except (OSError, httptools.HttpParserError, _NoAnswer) as failure:
        error = _explain(failure)
    seconds = time.perf_counter() - started
    if not error:
        error = _judge(target, exchange, seconds)
    return ProbeResult(
        ok=not error,
        seconds=seconds,
        status=exchange.status,
        error=error,
        certificate_left=exchange.certificate_left,
    )


class _NoAnswer(Exception):
    """The target closed the connection too early or answered too much."""


class _Exchange(msgspec.Struct):
    """What has been seen so far; also httptools' callback object."""

    doing: str = "connecting"
    connected: bool = False
    status: int | None = None
    body: bytearray = msgspec.field(default_factory=bytearray)
    truncated: bool = False
    complete: bool = False
    headers_complete: bool = False
    certificate_left: float | None = None
    head_bytes: int = 0
    status_line: httptools.HttpResponseParser | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head_bytes += len(name) + len(value) + 4
        if self.head_bytes > MAX_HEAD:
            raise _NoAnswer(f"answered with more than {MAX_HEAD} bytes of header fields")

    def on_headers_complete(self) -> None:
        assert self.status_line is not None
        status = self.status_line.get_status_code()
        if status >= 200 or status == 101:  # 100, 102 and 103 announce the answer, they are none
            self.status = status
            self.headers_complete = True
            self.doing = "reading the body"

    def on_body(self, data: bytes) -> None:
        room = MAX_BODY - len(self.body)
        self.truncated = self.truncated or len(data) > room
        self.body += data[:room]

    def on_message_complete(self) -> None:
        self.complete = self.headers_complete


async def _talk(target: ProbeTarget, exchange: _Exchange) -> None:
    context = await asyncio.to_thread(ssl.create_default_context) if target.tls else None
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, limit=MAX_HEAD)
    try:
        exchange.connected = True
        if context is not None:
            exchange.certificate_left = _certificate_left(writer)
        if target.path is None and not target.relayed:
            return
        exchange.doing = "waiting for the answer"
        host = target.host_header or f"{f'[{target.host}]' if ':' in target.host else target.host}:{target.port}"
        writer.write(
            f"GET {target.path or '/'} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fairway-health\r\nAccept: */*\r\n"
            "Accept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        if target.path is None:
            if not await reader.read(1):
                raise _NoAnswer("closed the connection without an answer: nothing listens behind the published port")
            return
        await _read(reader, exchange, whole=any(condition.reads_body for condition in target.conditions))
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader, exchange: _Exchange, *, whole: bool) -> None:
    """Read until the answer is complete; without `whole`, a body that is long in coming is not waited for."""
    parser = exchange.status_line = httptools.HttpResponseParser(exchange)
    try:
        while not exchange.complete and not exchange.truncated:
            if exchange.headers_complete and not whole:
                # The status is known. A short body is read to its end, so that the app sees no broken connection;
                # a stream is not waited for.
                try:
                    data = await asyncio.wait_for(reader.read(MAX_BODY), _BODY_PATIENCE)
                except TimeoutError:
                    return
            else:
                data = await reader.read(MAX_BODY)
            if not data:
                if exchange.headers_complete:
                    return  # a body without a length ends with the connection
                raise _NoAnswer("closed the connection without an answer")
            try:
                parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                return
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, _NoAnswer):
                    raise error.__context__ from None
                raise
    finally:
        exchange.status_line = None


def _certificate_left(writer: asyncio.StreamWriter) -> float | None:
    certificate = writer.get_extra_info("peercert")
    if not certificate or "notAfter" not in certificate:
        return None
    return ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()


def _judge(target: ProbeTarget, exchange: _Exchange, seconds: float) -> str:
    """Return an empty string where the target is well, else the sentences on what is not."""
    facts = Facts(
        connected=exchange.connected,
        status=exchange.status,
        seconds=seconds,
        body=bytes(exchange.body),
        truncated=exchange.truncated,
        certificate_left=exchange.certificate_left,
    )
    if target.conditions:
        return "; ".join(failure for condition in target.conditions if (failure := condition.check(facts)))
    if target.path is not None and (exchange.status is None or exchange.status >= 400):
        return f"{target} answered {exchange.status}, expected a status below 400"
    return ""


def _explain(failure: Exception) -> str:
    if isinstance(failure, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(failure, ConnectionResetError):
        return "connection reset before an answer"
    if isinstance(failure, httptools.HttpParserError):
        return f"the answer is not HTTP: {failure}"
    if isinstance(failure, OSError) and failure.strerror:
        return failure.strerror
    return str(failure) or type(failure).__name__
