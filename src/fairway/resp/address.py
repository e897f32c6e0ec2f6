"""Where a Redis is and how it is greeted; addresses and TLS settings are read by redis-py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from fairway.errors import FairwayError
from fairway.resp.wire import Refusal, Wire

CONNECT_S = 5.0
"""Seconds that connecting may take."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What a service raises for what befalls its connections.

    Attributes:
        service: Whose connections they are, such as ``jobs``: the name in log lines and messages.
        unavailable: Nobody answers, the connection was lost, or what came is not Redis's protocol.
        closed: Makes the error of a call after the owner closed the link.
        url: Makes the error of a URL that cannot be read, from its message.
    """

    service: str
    unavailable: type[FairwayError]
    closed: Callable[[], FairwayError]
    url: Callable[[str], FairwayError]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how it is greeted; `at` names another node of its cluster."""

    host: str
    port: int
    path: str | None
    settings: dict[str, Any]  # as redis-py reads them from a URL: username, password, db, ssl_…
    faults: Faults

    @classmethod
    def parse(cls, url: str, faults: Faults) -> list[Self]:
        """Read ``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` or ``unix://``.

        Several nodes of one cluster may be named, ``redis://user:password@host1:7001,host2:7002/0``; one is enough
        while it is up.

        Raises:
            FairwayError: `faults.url`: the URL cannot be read; its password is not told.
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
        except ValueError:  # which says what it took for the port: a part of the password, where that has a slash
            raise faults.url(
                "expected a URL such as redis://user:password@127.0.0.1:6379/0, its port a number up to 65535, its "
                "options as redis-py reads them, and its password's / ? # [ ] written as %2F %3F %23 %5B %5D"
            ) from None
        return [cls(one.get("host", "localhost"), one.get("port", 6379), one.get("path"), one, faults) for one in found]

    @property
    def secure(self) -> bool:
        """Whether it is spoken to over TLS: never over a socket, also where that leads to a node of a cluster."""
        return any(base.__name__ == "SSLConnection" for base in self.settings.get("connection_class", object).__mro__)

    def at(self, host: str, port: int) -> Self:
        """Return the address of another node, greeted in the same way."""
        return replace(self, host=host, port=port, path=None)

    def node(self, place: str) -> Self:
        """Return the node that a redirection names as ``host:port``; without a host it is the one that was asked.

        Raises:
            FairwayError: `Faults.unavailable`: it names none.
        """
        host, colon, port = place.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise self.faults.unavailable(
                f"redis at {self} sent what is no redirection: expected HOST:PORT of a node, got {place[:200]!r}"
            )
        return self.at(host.strip("[]") or self.host, int(port))

    def nodes(self, slots: Any) -> tuple[Self, ...]:
        """Return the nodes that an answer to ``CLUSTER SLOTS`` names.

        Raises:
            FairwayError: `Faults.unavailable`: it is none.
        """
        try:
            # A node that knows no name for another leaves it out: it is the one that was asked.
            places = {
                (node[0].decode() if node[0] else self.host, int(node[1])) for entry in slots for node in entry[2:]
            }
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise self.faults.unavailable(
                f"redis at {self} sent what is no answer to CLUSTER SLOTS: {slots!r:.200}"
            ) from error
        return tuple(self.at(host, port) for host, port in sorted(places))

    async def connect(self, patience: float, timeout: float = CONNECT_S) -> Wire:
        """Return a connection that is authenticated and has its database selected.

        Args:
            patience: Seconds without any answer, while one is owed, after which it counts as dead.
            timeout: Seconds that connecting may take.

        Raises:
            FairwayError: `Faults.unavailable`: nobody answers, or refuses.
        """
        loop = asyncio.get_running_loop()

        def make() -> Wire:
            return Wire(patience, self.faults.unavailable)

        try:
            async with asyncio.timeout(timeout):
                if self.path is not None:
                    _, wire = await loop.create_unix_connection(make, self.path)
                else:
                    _, wire = await loop.create_connection(make, self.host, self.port, ssl=self._tls())
                await self._greet(wire)
        except (OSError, TimeoutError) as error:
            raise self.faults.unavailable(f"cannot connect to redis at {self}: {error or 'timed out'}") from error
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
                raise self.faults.unavailable(f"redis at {self} refuses: {error}") from error
            raise

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"
