"""The way to the server that has the jobs: one connection, made again when it is lost, that follows a cluster.

All keys of a store lie in one slot, so a cluster is no more than a server that moves. At each connection the link asks
for the jobs (`Link`'s `greeting`); whoever does not have them answers ``MOVED`` with the address of the slot's owner,
and the link goes there. It learns the other nodes' addresses (``CLUSTER SLOTS``), and asks them when its own has died;
once a replica has taken over, they name it. A server without cluster mode refuses that one question, which tells it
apart: there is nothing to configure.

The events have the like in a file of their own: neither service knows the other.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.stores.redis_wire import CONNECT_S, Address, Argument, Refusal, Wire
from fairway.telemetry import log

ANSWER_S = 10.0
"""Seconds without any answer, while one is owed, after which a connection counts as dead."""
_HOPS = 6  # redirections that one call follows
_SPLIT_S = 0.05  # between two tries while a slot's keys are on their way from one node to another
_ELSEWHERE = ("NOSCRIPT", "MOVED", "ASK", "TRYAGAIN")  # refusals that say how the command can be carried out
_EVALSHA, _EVAL = b"EVALSHA", b"EVAL"


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


class Link:
    """See the module's text. One event loop.

    Args:
        addresses: One server, or some nodes of a cluster.
        patience: Seconds an answer may take.
        greeting: Called with each new connection before anything else goes over it; raises `Refusal` as the server
            does. One that says ``MOVED`` leads to another server.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        patience: float = ANSWER_S,
        greeting: Callable[[Wire], Awaitable[Any]] | None = None,
    ) -> None:
        self._seeds = tuple(addresses)
        self._address = self._seeds[0]
        self._nodes: tuple[Address, ...] = ()  # of the cluster, as they were told last
        self._patience = patience
        self._greeting = greeting
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None
        self._retired: set[Wire] = set()  # left, with answers still to come
        self._closed = False

    @property
    def address(self) -> Address:
        """The server that the link leads to, or led to last; another object for another server."""
        return self._address

    def places(self) -> list[Address]:
        """Return where the jobs may be, the likeliest first. From any thread."""
        return list({str(one): one for one in (self._address, *self._nodes, *self._seeds)}.values())

    async def connect(self) -> None:
        """See to it that there is a connection. Raises `StoreUnavailable`."""
        if self._wire is None or self._wire.lost or self._closed:
            await self._connect()

    async def command(self, *command: Argument) -> Any:
        """Send one command and return its answer.

        Raises:
            StoreUnavailable: It failed; where the connection was lost it may have been carried out.
        """
        try:
            try:
                return await self._send(command)
            except Refusal as error:
                return await self._follow(command, error)
        except Refusal as error:
            raise self.refused(error) from error

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script; one that the server does not know is sent along. Raises `StoreUnavailable`."""
        try:
            try:
                return await self._send((_EVALSHA, script.sha, len(keys), *keys, *args))
            except Refusal as error:
                return await self._follow((_EVAL, script.text, len(keys), *keys, *args), error)
        except Refusal as error:
            raise self.refused(error) from error

    def send(self, packed: bytes) -> asyncio.Future[Any] | None:
        """Send a packed command if the connection is up; None if it has to be made first.

        The future raises `Refusal`, which is not followed: see `leads_elsewhere`.
        """
        wire = self._wire
        return None if wire is None or wire.lost or self._closed else wire.send(packed)

    async def _send(self, command: Sequence[Argument]) -> Any:
        wire = self._wire
        if wire is None or wire.lost or self._closed:
            wire = await self._connect()
        return await wire.call(command)

    async def _follow(self, command: Sequence[Argument], error: Refusal) -> Any:
        """Carry a command out elsewhere, or later, as its refusal says; raise it where it says neither."""
        for _ in range(_HOPS):
            word, *rest = str(error).split()
            try:
                if word == "NOSCRIPT":
                    return await self._send(command)
                if word == "MOVED" and len(rest) == 2:
                    self._move(rest[1])
                    return await self._send(command)
                if word == "ASK" and len(rest) == 2:
                    return await self._ask(rest[1], command)
                if word != "TRYAGAIN":
                    break
                await asyncio.sleep(_SPLIT_S)
                return await self._send(command)
            except Refusal as another:
                error = another
        raise error

    def _move(self, place: str) -> None:
        address = self._address.node(place)
        if str(address) == str(self._address):
            return  # another call has gone there meanwhile
        log.get("jobs").info("the jobs lie at another node of the cluster now", address=str(address))
        self._address = address
        self._drop()

    async def _ask(self, place: str, command: Sequence[Argument]) -> Any:
        """One command to the node that takes the slot over, on a connection of its own: the slot is not there yet."""
        wire = await self._address.node(place).connect(self._patience)
        try:
            wire.call((b"ASKING",)).add_done_callback(lambda future: future.cancelled() or future.exception())
            return await wire.call(command)
        finally:
            wire.abort("it was for one command")
            await wire.gone

    def refused(self, error: Refusal) -> Refused:
        """Return what the server refused as the store's error; a server that has become a replica is left."""
        text = str(error)
        if "OOM" in text or "allow-oom" in text:
            return Refused(f"redis is out of memory: {text}", hint="raise maxmemory, or let the queues run empty")
        if "READONLY" in text:
            # A name may lead to another server by now. The next call connects again.
            self._address = self._seeds[0]
            self._drop()
        if text.startswith(("MOVED", "CLUSTERDOWN")):
            return Refused(f"redis: {text}", hint="a cluster answers again once a replica has taken the slot over")
        return Refused(f"redis: {text}")

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._retire(wire)

    def _retire(self, wire: Wire) -> None:
        self._retired.add(wire)
        wire.gone.add_done_callback(lambda _: self._retired.discard(wire))
        wire.retire()

    async def _connect(self) -> Wire:
        if self._closed:
            raise StoreUnavailable("the redis store is not open")
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._find(), name="redis-connect")
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The connecting was cancelled, by `close`; or the caller was, and perhaps the connecting with it.
            caller = asyncio.current_task()
            if connecting.cancelled() and (caller is None or not caller.cancelling()):
                raise StoreUnavailable("the redis store is not open") from None
            raise

    async def _find(self) -> Wire:
        """Connect to the last address, or else to whichever node answers, and from there to who has the jobs."""
        candidates = self.places()
        patience = CONNECT_S if len(candidates) == 1 else CONNECT_S / 2
        tried: set[str] = set()
        failure: StoreUnavailable | None = None
        while candidates:
            address = candidates.pop(0)
            if str(address) in tried:
                continue
            tried.add(str(address))
            try:
                wire = await address.connect(self._patience, patience)
                moved = await self._greet(wire, address)
            except StoreUnavailable as error:
                failure = failure or error
                continue
            if moved is None:
                self._address, self._wire = address, wire
                return wire
            self._retire(wire)
            candidates.insert(0, moved)
            failure = failure or StoreUnavailable(f"redis at {address}: the jobs are at {moved}, which does not answer")
        raise failure or StoreUnavailable("expected the address of a redis, got none")

    async def _greet(self, wire: Wire, address: Address) -> Address | None:
        """Learn the nodes and ask for the jobs; return who has them, None for this server."""
        try:
            self._nodes = _nodes(address, await wire.call((b"CLUSTER", b"SLOTS"))) or self._nodes
        except Refusal:  # no cluster, or not to be asked by this user: then the URL's nodes have to do
            pass
        except BaseException:
            wire.abort("the greeting failed")
            raise
        try:
            if self._greeting is not None:
                await self._greeting(wire)
        except BaseException as error:
            if isinstance(error, Refusal):
                word, *rest = str(error).split()
                if word == "MOVED" and len(rest) == 2:
                    return address.node(rest[1])
                if word in {"ASK", "TRYAGAIN"}:  # the slot is on its way; each call finds its own
                    return None
            wire.abort("the greeting failed")
            if isinstance(error, Refusal):
                raise self.refused(error) from error
            raise
        return None

    async def close(self) -> None:
        """Drop the connection; calls under way fail. Idempotent."""
        self._closed = True
        wires = [*self._retired] if self._wire is None else [*self._retired, self._wire]
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
        wires = [*self._retired] if self._wire is None else [*self._retired, self._wire]
        await asyncio.gather(*[wire.finish(seconds) for wire in wires])

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._wire is None else "lost" if self._wire.lost else "up"
        return f"<Link {self._address} [{state}]>"


def _nodes(asked: Address, slots: list[Any]) -> tuple[Address, ...]:
    # A node that knows no name for another leaves it out: it is the one that was asked.
    places = {(node[0].decode() if node[0] else asked.host, int(node[1])) for entry in slots for node in entry[2:]}
    return tuple(asked.at(host, port) for host, port in sorted(places))


def leads_elsewhere(error: Refusal) -> bool:
    """Whether `Link.run` would carry the command out in another way; nothing was done so far."""
    return str(error).startswith(_ELSEWHERE)


def pack(parts: Sequence[str | bytes]) -> bytes:
    """Return arguments as they go over the wire, without the head that counts them."""
    return b"".join(
        b"$%d\r\n%b\r\n" % (len(data), data)
        for data in (part.encode() if isinstance(part, str) else part for part in parts)
    )
