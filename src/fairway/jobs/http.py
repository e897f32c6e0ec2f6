"""A small HTTP/1.1 client over httptools: kept-alive connections, JSON bodies, TCP, TLS or a Unix socket.

A worker lives in little memory and makes thousands of small calls a second, which rules the big clients out. It knows
what the job API answers with and no more: no redirects, no compression, no cookies.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httptools

from fairway.jobs.errors import JobError, StoreUnavailable

_IDLE_S = 4.0  # uvicorn closes idle connections after 5
_CONNECT_S = 10.0


class Address:
    """Where a server is and what every request to it begins with.

    Args:
        url: ``http://host:port``, ``https://…`` or ``http+unix://%2Fpath%2Fto%2Fsocket``, each with an optional prefix.
        token: Bearer token, or None.

    Raises:
        JobError: The URL is none of these.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        self.url = url
        self.unix = unquote(parts.netloc) if parts.scheme == "http+unix" else None
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        if parts.scheme not in {"http", "https", "http+unix"} or not parts.netloc:
            raise JobError(f"expected http://host:port, https://… or http+unix://…, got {url!r}", code="jobs.store_url")
        try:
            port = None if self.unix else parts.port
        except ValueError as error:
            raise JobError(f"expected a port number in {url!r}", code="jobs.store_url") from error
        self.host = "localhost" if self.unix else (parts.hostname or "localhost")
        self.port = port or (443 if self.tls else 80)
        self.prefix = parts.path.rstrip("/")
        host = self.host if port is None else f"{self.host}:{port}"
        auth = "" if token is None else f"authorization: Bearer {token}\r\n"
        if "\r" in auth[:-2] or "\n" in auth[:-2]:
            raise JobError("expected a token without line breaks", code="jobs.store_url")
        self._head = f" HTTP/1.1\r\nhost: {host}\r\n{auth}accept: application/json\r\n"

    def request(self, method: str, path: str, body: bytes | None) -> bytes:
        """Return a request as bytes."""
        head = f"{method} {self.prefix}{path}{self._head}"
        if body is None:
            return f"{head}content-length: 0\r\n\r\n".encode()
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Answer:
    """Collects one response; httptools calls it back."""

    __slots__ = ("_parser", "body", "complete", "keep_alive", "status")

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.complete = False
        self.keep_alive = True
        self.status = 0
        self._parser: Any = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Raises `httptools.HttpParserError`."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """Take a part of the body."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """Note the end."""
        self.status = self._parser.get_status_code()
        self.keep_alive = self._parser.should_keep_alive()
        self.complete = True
        self._parser = None  # it refers to this object

    @property
    def data(self) -> bytes:
        """The body."""
        return self.body[0] if len(self.body) == 1 else b"".join(self.body)


class _Connection(asyncio.Protocol):
    """One kept-alive connection: one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.used_at = 0.0
        self.lost = False
        self._answer: Answer | None = None
        self._future: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not registered as such

    def exchange(self, request: bytes, timeout_s: float) -> asyncio.Future[Answer]:
        """Send a request; the future has its answer, or `ConnectionError`, or `TimeoutError` after `timeout_s`."""
        assert self.transport is not None
        self.transport.write(request)  # first: the server is at it while the rest is made ready
        loop = asyncio.get_running_loop()
        self._answer = Answer()
        self._future = loop.create_future()
        self._timer = loop.call_later(timeout_s, self._expire)
        return self._future

    def _expire(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(TimeoutError())
        self.close()

    def data_received(self, data: bytes) -> None:
        answer, future = self._answer, self._future
        if answer is None or future is None or future.done():
            self.close()  # bytes that nobody asked for
            return
        try:
            answer.feed(data)
        except httptools.HttpParserError as error:
            future.set_exception(ConnectionError(f"not an HTTP answer: {error}"))
            self.close()
            return
        if answer.complete:
            self._answer = self._future = None
            if self._timer is not None:
                self._timer.cancel()
            if not answer.keep_alive:
                self.close()
            future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._future is not None and not self._future.done():
            self._future.set_exception(ConnectionError(f"the connection was lost: {exc or 'closed by the server'}"))

    def close(self) -> None:
        """Close at once."""
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:
            self.transport.abort()


class HttpClient:
    """Connections to one server, as many as there are calls at once."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()

    async def call(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 30.0, repeatable: bool = True
    ) -> tuple[int, bytes]:
        """Send a request and return status and body.

        Args:
            method: HTTP method.
            path: Path and query.
            body: JSON, or None for no body.
            timeout_s: Seconds until it has to be answered.
            repeatable: Whether it may be sent again when a kept connection turns out to be dead.

        Raises:
            StoreUnavailable: The server cannot be reached, or did not answer in time.
        """
        request = self._address.request(method, path, body)
        clock = asyncio.get_running_loop().time
        end = clock() + timeout_s
        try:
            while True:
                connection = self._take()
                fresh = connection is None
                if connection is None:
                    connection = await self._connect(min(_CONNECT_S, end - clock()))
                try:
                    answer = await self._exchange(connection, request, end - clock())
                except ConnectionError:
                    if fresh or not repeatable:
                        raise
                    continue
                return answer.status, answer.data
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._address.url} did not answer within {timeout_s:g} s") from error
        except OSError as error:
            raise StoreUnavailable(f"{self._address.url} cannot be reached: {error}") from error

    def _take(self) -> _Connection | None:
        oldest = time.monotonic() - _IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost and connection.used_at > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self, timeout_s: float) -> _Connection:
        loop, at = asyncio.get_running_loop(), self._address
        async with asyncio.timeout(timeout_s):
            if at.unix is not None:
                _, connection = await loop.create_unix_connection(_Connection, at.unix)
            else:
                _, connection = await loop.create_connection(_Connection, at.host, at.port, ssl=at.tls)
        return connection

    async def _exchange(self, connection: _Connection, request: bytes, timeout_s: float) -> Answer:
        self._busy.add(connection)
        try:
            answer = await connection.exchange(request, timeout_s)
        except BaseException:
            connection.close()  # an answer that comes later would be taken for that of the next request
            raise
        finally:
            self._busy.discard(connection)
        if not connection.lost:
            connection.used_at = time.monotonic()
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close all connections; calls under way fail."""
        for connection in [*self._idle, *self._busy]:
            connection.close()
        self._idle.clear()

    def __repr__(self) -> str:
        return f"<HttpClient {self._address.url} [{len(self._busy)} busy, {len(self._idle)} idle]>"


class BlockingHttpClient:
    """One connection for one thread: the heartbeat's."""

    def __init__(self, address: Address, timeout_s: float = 10.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request that may be repeated; return status and body. Raises `StoreUnavailable`."""
        request = self._address.request(method, path, body)
        for fresh in (self._socket is None, True):
            try:
                if self._socket is None:
                    self._socket = self._connect()
                return self._exchange(self._socket, request)
            except (OSError, httptools.HttpParserError) as error:
                self.close()
                if fresh:
                    raise StoreUnavailable(f"{self._address.url} cannot be reached: {error}") from error
        raise AssertionError("the second attempt returns or raises")

    def _connect(self) -> socket.socket:
        at = self._address
        if at.unix is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self._timeout_s)
            sock.connect(at.unix)
            return sock
        sock = socket.create_connection((at.host, at.port), self._timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if at.tls is None else at.tls.wrap_socket(sock, server_hostname=at.host)

    def _exchange(self, sock: socket.socket, request: bytes) -> tuple[int, bytes]:
        sock.sendall(request)
        answer = Answer()
        while not answer.complete:
            data = sock.recv(65_536)
            if not data:
                raise ConnectionError("closed by the server")
            answer.feed(data)
        if not answer.keep_alive:
            self.close()
        return answer.status, answer.data

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
