"""One connection to Redis that any number of tasks share: commands go out as they come, answers come back in order.

A pool lends a connection to a call for its whole round trip; here calls that are made at the same time travel together,
which is worth a factor of three where many tasks enqueue one job each. Packing and parsing are hiredis's, addresses
and TLS settings redis-py's. A call that is cancelled only stops listening: its answer is read and dropped, so that no
answer can meet the wrong call.

The events have the like in a file of their own: neither service knows the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import hiredis

from fairway.jobs.errors import JobError, StoreUnavailable

CONNECT_S = 5.0
Argument = str | bytes | int | float
"""What a command is made of."""


class Refusal(Exception):
    """What Redis answers when it refuses a command; the first word is its code."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how it is greeted; `at` names another node of its cluster."""

    host: str
    port: int
    path: str | None
    settings: dict[str, Any]  # as redis-py reads them from a URL: username, password, db, ssl_…

    @classmethod
    def parse(cls, url: str) -> list[Self]:
        """Read ``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` or ``unix://``.

        Several nodes of one cluster may be named, ``redis://user:password@host1:7001,host2:7002/0``; one is enough
        while it is up.

        Raises:
            JobError: The URL cannot be read; its password is not told.
        """
        from redis.asyncio.connection import parse_url

        url = "redis" + url.removeprefix("valkey") if url.startswith("valkey") else url
        scheme, slashes, rest = url.partition("://")
        place, slash, tail = rest.partition("/")
        before, at, hosts = place.rpartition("@")
        try:
            found: list[dict[str, Any]] = [
                dict(parse_url(f"{scheme}{slashes}{before}{at}{host}{slash}{tail}"))
                for host in hosts.split(",") or [""]
            ]
            return [cls(one.get("host", "localhost"), one.get("port", 6379), one.get("path"), one) for one in found]
        except ValueError as error:
            message = f"expected a URL such as redis://127.0.0.1:6379/0: {error}"
            raise JobError(message, code="jobs.store_url") from None

    @property
    def secure(self) -> bool:
        """Whether it is spoken to over TLS: never over a socket, also where that leads to a node of a cluster."""
        return any(base.__name__ == "SSLConnection" for base in self.settings.get("connection_class", object).__mro__)

    def at(self, host: str, port: int) -> Self:
        """Return the address of another node, greeted in the same way."""
        return replace(self, host=host, port=port, path=None)

    def node(self, place: str) -> Self:
        """Return the node that a redirection names as ``host:port``; without a host it is the one that was asked."""
        host, _, port = place.rpartition(":")
        return self.at(host.strip("[]") or self.host, int(port))

    async def connect(self, patience: float, timeout: float = CONNECT_S) -> Wire:
        """Return a connection that is authenticated and has its database selected.

        Args:
            patience: Seconds without any answer, while one is owed, after which it counts as dead.
            timeout: Seconds that connecting may take.

        Raises:
            StoreUnavailable: Nobody answers, or refuses.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                if self.path is not None:
                    _, wire = await loop.create_unix_connection(lambda: Wire(patience), self.path)
                else:
                    tls = self._tls()
                    _, wire = await loop.create_connection(lambda: Wire(patience), self.host, self.port, ssl=tls)
                await self._greet(wire)
        except (OSError, TimeoutError) as error:
            raise StoreUnavailable(f"cannot connect to redis at {self}: {error or 'timed out'}") from error
        return wire

    def _tls(self) -> Any:
        if not self.secure:
            return None
        from redis.asyncio.connection import SSLConnection

        settings = {name: value for name, value in self.settings.items() if name.startswith("ssl_")}
        return SSLConnection(**settings).ssl_context.get()

    async def _greet(self, wire: Wire) -> None:
        user, password = self.settings.get("username"), self.settings.get("password")
        try:
            if password is not None:
                await wire.call(("AUTH", user or "default", password))
            if self.settings.get("db"):
                await wire.call(("SELECT", self.settings["db"]))
            await wire.call(("PING",))
        except BaseException as error:
            wire.abort("the greeting failed")
            if isinstance(error, Refusal):
                raise StoreUnavailable(f"redis at {self} refuses: {error}") from error
            raise

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"


class Wire(asyncio.Protocol):
    """The connection itself; made by `Address.connect`.

    Args:
        patience: Seconds without any answer, while one is owed, after which it counts as dead: a half-open connection
            never says so itself.
    """

    def __init__(self, patience: float) -> None:
        self._reader = hiredis.Reader(replyError=Refusal)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._patience = patience
        self._retired = False
        self.lost = False
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the loop)."""
        self._transport = transport  # type: ignore[assignment]  # create_connection makes a Transport

    def data_received(self, data: bytes) -> None:
        """Give each answer to the call that has waited longest (called by the loop)."""
        self._heard = self._loop.time()
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                future = waiting.popleft()
                if future.done():
                    continue
                if isinstance(answer, Refusal):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (hiredis.HiredisError, IndexError):
            self.abort("redis sent what is no answer")
        if self._retired and not waiting:
            self.abort("it was left")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits (called by the loop)."""
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
        """Drop the connection; every call that waits fails with `StoreUnavailable`."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()

    def retire(self) -> None:
        """End once what is under way was answered."""
        self._retired = True
        if not self._waiting:
            self.abort("it was left")

    def call(self, command: Sequence[Argument]) -> asyncio.Future[Any]:
        """Send a command, see `send`."""
        return self.send(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]  # bytes are no memoryview there

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        """Send a packed command: at once where no answer is owed, else at the end of this turn with the others.

        The future raises `Refusal`, or `StoreUnavailable` where the connection is lost: then the command may have been
        carried out.
        """
        future = self._loop.create_future()
        if self.lost:
            future.set_exception(StoreUnavailable("the connection to redis was lost"))
            return future
        if not self._waiting and self._transport is not None:
            self._heard = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._patience, self._look)
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
        """Wait for the answers that are owed now, for `seconds` at most."""
        if self._waiting:
            await asyncio.wait(list(self._waiting), timeout=seconds)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        silent = self._loop.time() - self._heard
        if silent >= self._patience:
            self.abort(f"redis did not answer within {self._patience:g} s")
        else:
            self._watch = self._loop.call_later(self._patience - silent + 0.01, self._look)

    def __repr__(self) -> str:
        return f"<Wire [{'lost' if self.lost else 'up'}, {len(self._waiting)} under way]>"
