"""The way to the server that has the events: one connection, made again when it is lost, that follows a cluster.

All keys of a store lie in one slot, so a cluster is no more than a server that moves: whichever node is asked answers
``MOVED`` with the address of the slot's owner, and the link goes there. At each connection it learns the other nodes'
addresses (``CLUSTER SLOTS``), and asks them when its own has died; once a replica has taken over, they name it. A
server without cluster mode refuses that one question, which tells it apart: there is nothing to configure.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from fairway.events.errors import BusClosed, EventStoreUnavailable
from fairway.events.stores.redis_wire import CONNECT_S, Address, Argument, Refusal, Wire

ANSWER_S = 10.0
"""Seconds without any answer, while one is owed, after which a connection counts as dead."""
_HOPS = 6  # redirections that one call follows
_SPLIT_S = 0.05  # between two tries while a slot's keys are on their way from one node to another
_LOG = logging.getLogger("fairway.events")


class Script:
    """A script and the digest by which a server that has seen it knows it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324  # Redis's own name for a script

    def __repr__(self) -> str:
        return f"<Script {self.sha.decode()[:8]}>"


class Link:
    """See the module's text. One event loop.

    Args:
        addresses: One server, or some nodes of a cluster.
        patience: Seconds an answer may take.
    """

    def __init__(self, addresses: Sequence[Address], patience: float = ANSWER_S) -> None:
        self._seeds = tuple(addresses)
        self._address = self._seeds[0]
        self._nodes: tuple[Address, ...] = ()  # of the cluster, as they were told last
        self._patience = patience
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None
        self._retired: set[Wire] = set()  # left, with answers still to come
        self._closed = False

    @property
    def address(self) -> Address:
        """The server that the link leads to, or led to last."""
        return self._address

    @property
    def clustered(self) -> bool:
        """Whether the server is a node of a cluster, known once connected."""
        return bool(self._nodes)

    async def command(self, *command: Argument) -> Any:
        """Send one command and return its answer.

        Raises:
            Refusal: Redis refused it; nothing was done.
            EventStoreUnavailable: The connection was lost or could not be made.
            BusClosed: The link was closed.
        """
        try:
            return await self._send(command)
        except Refusal as error:
            return await self._follow(command, error)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script; one that the server does not know is sent along. Raises as `command` does."""
        command: tuple[Argument, ...] = (b"EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            return await self._send(command)
        except Refusal as error:
            if not str(error).startswith("NOSCRIPT"):
                return await self._follow((b"EVAL", script.text, *command[2:]), error)
        return await self.command(b"EVAL", script.text, *command[2:])

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
        address = self._node(place)
        if str(address) == str(self._address):
            return  # another call has gone there meanwhile
        _LOG.info("event store: the events lie at %s now", address)
        self._address = address
        self._drop()

    async def _ask(self, place: str, command: Sequence[Argument]) -> Any:
        """One command to the node that takes the slot over, on a connection of its own: the slot is not there yet."""
        wire = await self._node(place).connect(self._patience)
        try:
            wire.call((b"ASKING",)).add_done_callback(lambda future: future.cancelled() or future.exception())
            return await wire.call(command)
        finally:
            wire.abort("it was for one command")
            await wire.gone

    def _node(self, place: str) -> Address:
        host, _, port = place.rpartition(":")
        # A node that knows no name for another leaves it out: it is the one that was asked.
        return self._address.at(host.strip("[]") or self._address.host, int(port))

    def leave(self) -> None:
        """Drop the connection: a name may lead to another server by now. The next call connects again."""
        self._address = self._seeds[0]
        self._drop()

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._retired.add(wire)
            wire.gone.add_done_callback(lambda _: self._retired.discard(wire))
            wire.retire()

    async def _connect(self) -> Wire:
        if self._closed:
            raise BusClosed("the event store is closed")
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
                raise BusClosed("the event store is closed") from None
            raise

    async def _find(self) -> Wire:
        """Connect to the last address, or else to whichever node answers: it will tell where the slot is."""
        candidates = list({str(one): one for one in (self._address, *self._nodes, *self._seeds)}.values())
        refused: EventStoreUnavailable | None = None
        for address in candidates:
            try:
                wire = await address.connect(self._patience, CONNECT_S if len(candidates) == 1 else CONNECT_S / 2)
            except EventStoreUnavailable as error:
                refused = refused or error
                continue
            self._address = address
            try:
                await self._learn(wire)
            except EventStoreUnavailable as error:
                refused = refused or error
                continue
            except BaseException:
                wire.abort("nobody waits for it any more")
                raise
            self._wire = wire
            return wire
        raise refused or EventStoreUnavailable("expected the address of a redis, got none")

    async def _learn(self, wire: Wire) -> None:
        try:
            slots = await wire.call((b"CLUSTER", b"SLOTS"))
        except Refusal:  # no cluster, or not to be asked by this user: then the URL's nodes have to do
            return
        places = {
            (node[0].decode() if node[0] else self._address.host, int(node[1])) for entry in slots for node in entry[2:]
        }
        self._nodes = tuple(self._address.at(host, port) for host, port in sorted(places))

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
            wire.abort("the event store was closed")
            await wire.gone

    def __repr__(self) -> str:
        wire = self._wire
        state = "closed" if self._closed else "idle" if wire is None else "lost" if wire.lost else "up"
        return f"<Link {self._address} [{state}]>"
