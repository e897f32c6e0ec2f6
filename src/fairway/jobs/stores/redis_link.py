"""One connection to Redis that any number of tasks share: commands go out as they come, answers come back in order.

A pool lends a connection to a call for its whole round trip; here calls that are made at the same time travel together,
which is worth a factor of three where many tasks enqueue one job each. Packing and parsing are hiredis's, addresses
and TLS settings redis-py's. A call that is cancelled only stops listening: its answer is read and dropped, so that no
answer can meet the wrong call.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hiredis

from fairway.jobs.errors import StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio.connection import ConnectKwargs

CONNECT_S = 5.0
ANSWER_S = 10.0
"""Seconds without any answer, while one is owed, after which a connection counts as dead."""

Argument = str | bytes | int | float
"""What a command is made of."""
_EVALSHA, _EVAL = b"EVALSHA", b"EVAL"


class ScriptError(Exception):
    """What Redis answers when it refuses a command; the first word is its code."""


class Refused(StoreUnavailable):
    """Redis answered with an error: nothing was done."""


class Script:
    """A script and the digest by which a server that has seen it knows it."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324 - Redis's own name for a script

    def __repr__(self) -> str:
        return f"<Script {self.name} {self.sha.decode()[:8]}>"


class Address:
    """Where a Redis is, from a URL as redis-py reads it: ``redis://``, ``rediss://`` or ``unix://``.

    Raises:
        StoreUnavailable: The URL cannot be read.
    """

    def __init__(self, url: str) -> None:
        from redis.asyncio.connection import parse_url

        try:
            self.settings: ConnectKwargs = parse_url(url)
        except ValueError as error:
            raise StoreUnavailable(f"expected a Redis URL such as redis://127.0.0.1:6379/0: {error}") from error
        self.host: str = self.settings.get("host", "localhost")
        self.port: int = self.settings.get("port", 6379)
        self.path: str | None = self.settings.get("path")

    async def connect(self, patience: float = ANSWER_S) -> _Wire:
        """Return a connection that is authenticated and has its database selected.

        Args:
            patience: Seconds without any answer, while one is owed, after which it counts as dead.

        Raises:
            StoreUnavailable: Nobody answers, or refuses.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                if self.path is not None:
                    _, wire = await loop.create_unix_connection(lambda: _Wire(patience), self.path)
                else:
                    _, wire = await loop.create_connection(
                        lambda: _Wire(patience), self.host, self.port, ssl=self._tls()
                    )
                await self._greet(wire)
        except (OSError, TimeoutError) as error:
            raise StoreUnavailable(f"cannot connect to redis at {self}: {error or 'timed out'}") from error
        return wire

    def _tls(self) -> Any:
        if "connection_class" not in self.settings:
            return None
        from redis.asyncio.connection import SSLConnection

        settings = {name: value for name, value in self.settings.items() if name.startswith("ssl_")}
        return SSLConnection(**settings).ssl_context.get()  # type: ignore[arg-type]  # the keys of parse_url

    async def _greet(self, wire: _Wire) -> None:
        user, password = self.settings.get("username"), self.settings.get("password")
        try:
            if password is not None:
                await wire.call(("AUTH", user or "default", password))
            if self.settings.get("db"):
                await wire.call(("SELECT", self.settings["db"]))
            await wire.call(("PING",))
        except BaseException as error:
            wire.abort("the greeting failed")
            if isinstance(error, ScriptError):
                raise StoreUnavailable(f"redis at {self} refuses: {error}") from error
            raise

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"


class _Wire(asyncio.Protocol):
    """The connection itself."""

    def __init__(self, patience: float) -> None:
        self._reader = hiredis.Reader(replyError=ScriptError)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self.patience = patience
        self.lost = False
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_connection makes a Transport

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                future = waiting.popleft()
                if future.done():
                    continue
                if isinstance(answer, ScriptError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (hiredis.HiredisError, IndexError):
            self.abort("redis sent what is no answer")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection to redis was lost{f': {exc}' if exc else ''}")
        if not self.gone.done():
            self.gone.set_result(None)

    def _fail(self, why: str) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreUnavailable(why))

    def abort(self, why: str) -> None:
        """Drop the connection; every call that waits fails."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()

    def call(self, command: Sequence[Argument]) -> asyncio.Future[Any]:
        """Send a command, see `send`."""
        return self.send(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]  # bytes are no memoryview there

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Send a packed command: at once where no answer is owed, else at the end of this turn with the others."""
        future = self._loop.create_future()
        if self.lost:
            future.set_exception(StoreUnavailable("the connection to redis was lost"))
            return future
        if not self._waiting and self._transport is not None:
            self._heard = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self.patience, self._look)
            # Whoever enqueues one job after another would pay a turn of the loop for company that does not come.
            self._waiting.append(future)
            self._transport.write(packed)
            return future
        self._waiting.append(future)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        return future

    async def finish(self, seconds: float) -> None:
        """Wait for the answers that are owed now."""
        if self._waiting:
            await asyncio.wait(list(self._waiting), timeout=seconds)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        """Give up a connection that owes an answer and has been silent; a half-open one never says so itself."""
        self._watch = None
        if not self._waiting:
            return
        silent = self._loop.time() - self._heard
        if silent >= self.patience:
            self.abort(f"redis did not answer within {self.patience:g} s")
        else:
            self._watch = self._loop.call_later(self.patience - silent + 0.01, self._look)


class Link:
    """A `_Wire` that is made again when it was lost; what was under way then fails.

    Args:
        address: Where.
        patience: Seconds an answer may take.
    """

    def __init__(self, address: Address, patience: float = ANSWER_S) -> None:
        self._address = address
        self._patience = patience
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[_Wire] | None = None
        self._closed = False

    async def connect(self) -> None:
        """See to it that there is a connection. Raises `StoreUnavailable`."""
        if self._closed:
            raise StoreUnavailable("the redis store is not open")
        if self._wire is not None and not self._wire.lost:
            return
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._address.connect(self._patience), name="redis-connect")
        connecting = self._connecting
        try:
            self._wire = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The connecting was cancelled, by `close`; or the caller was, and perhaps the connecting with it.
            caller = asyncio.current_task()
            if connecting.cancelled() and (caller is None or not caller.cancelling()):
                raise StoreUnavailable("the redis store is not open") from None
            raise

    async def command(self, *command: Argument) -> Any:
        """Send one command and return its answer.

        Raises:
            StoreUnavailable: It failed; where the connection was lost it may have been carried out.
        """
        try:
            wire = self._wire
            if wire is None or wire.lost or self._closed:
                await self.connect()
                wire = self._wire
                assert wire is not None
            return await wire.call(command)
        except ScriptError as error:
            raise refused(error) from error

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script; one that the server does not know is sent along. Raises `StoreUnavailable`."""
        try:
            wire = self._wire
            if wire is None or wire.lost or self._closed:
                await self.connect()
                wire = self._wire
                assert wire is not None
            try:
                return await wire.call((_EVALSHA, script.sha, len(keys), *keys, *args))
            except ScriptError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
            return await wire.call((_EVAL, script.text, len(keys), *keys, *args))
        except ScriptError as error:
            raise refused(error) from error

    def send(self, packed: bytes) -> asyncio.Future[Any] | None:
        """Send a packed command if the connection is up; None if it has to be made first. Raises from the future."""
        wire = self._wire
        return None if wire is None or wire.lost or self._closed else wire.send(packed)

    async def close(self) -> None:
        """Drop the connection; calls under way fail. Idempotent."""
        self._closed = True
        wires = [] if self._wire is None else [self._wire]
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
            if not self._connecting.cancelled() and self._connecting.exception() is None:
                wires.append(self._connecting.result())
        for wire in wires:
            wire.abort("the redis store was closed")
            await wire.gone

    async def finish(self, seconds: float) -> None:
        """Wait until everything under way was answered, for `seconds` at most."""
        if self._wire is not None:
            await self._wire.finish(seconds)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._wire is None else "lost" if self._wire.lost else "up"
        return f"<Link {self._address} [{state}]>"


def pack(parts: Sequence[str | bytes]) -> bytes:
    """Return arguments as they go over the wire, without the head that counts them."""
    return b"".join(
        b"$%d\r\n%b\r\n" % (len(data), data)
        for data in (part.encode() if isinstance(part, str) else part for part in parts)
    )


def refused(error: ScriptError) -> Refused:
    """Return what the server refused as the store's error."""
    text = str(error)
    if "OOM" in text or "allow-oom" in text:
        return Refused(f"redis is out of memory: {text}", hint="raise maxmemory, or let the queues run empty")
    if text.startswith(("MOVED", "CLUSTERDOWN")):
        return Refused(
            f"redis: {text}",
            hint="this is a cluster of several nodes: jobs need one primary that holds all slots",
        )
    return Refused(f"redis: {text}")
