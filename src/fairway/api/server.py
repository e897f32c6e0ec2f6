"""Serves the API in the daemon's loop, on a TCP port and on the Unix socket of the command line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from fairway.api.protocol import protocol_for
from fairway.platform.errors import PortTaken

_STOP_WITHIN = 3


class Server(uvicorn.Server):
    """uvicorn without its signal handlers and without its ten wake-ups a second."""

    _ended: asyncio.Event

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon."""
        yield

    async def main_loop(self) -> None:
        """Refresh the Date header once a second until `end` is called."""
        self._ended = asyncio.Event()
        counter = 0
        while not await self.on_tick(counter):
            counter += 10
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 1.0)

    def end(self) -> None:
        """Stop accepting; streams are cut after three seconds."""
        self.should_exit = True
        self._ended.set()


@asynccontextmanager
async def serve(
    app: ASGIApp, *, host: str, port: int, unix: Path | None = None, listener: socket.socket | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Serve `app` for the block.

    Args:
        app: The ASGI application; its attribute `short`, if it has one, is what may go the short way.
        host: Address to listen on.
        port: Port, or 0 for a free one.
        unix: Path of a Unix socket to listen on, too (0600), or None. A stale one is replaced.
        listener: Socket that listens on host and port already, or None to open one; stays the caller's.

    Yields:
        The address and port that it listens on.

    Raises:
        PortTaken: Another program listens there.
    """
    sockets = [_tcp(host, port) if listener is None else listener.dup()]
    bound: tuple[str, int] = sockets[0].getsockname()[:2]
    try:
        if unix is not None:
            sockets.append(_unix(unix))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=protocol_for(getattr(app, "short", None)),
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_WITHIN,
            h11_max_incomplete_event_size=64 * 1024,
        )
        server = Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=sockets)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    loop = asyncio.create_task(server.main_loop(), name="api-server")
    await asyncio.sleep(0)
    try:
        yield bound
    finally:
        server.end()
        await loop
        await server.shutdown(sockets=sockets)
        if unix is not None:
            _unlink(unix)


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"The API cannot listen on {host}:{port}: another program does.",
                hint="Stop that program, or choose another port with `fairway up --api 127.0.0.1:PORT`.",
            ) from None
        if error.errno in {errno.EADDRNOTAVAIL, errno.EACCES}:
            raise PortTaken(
                f"The API cannot listen on {host}:{port}: {error.strerror}.",
                hint="Choose an address of this machine and a port above 1023 with `fairway up --api HOST:PORT`.",
            ) from None
        raise
    return sock


def _unix(path: Path) -> socket.socket:
    """Listen at `path`; whoever holds the daemon's lock may replace a socket that an earlier daemon left."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
