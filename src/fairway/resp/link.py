"""The way to the server that has a store's keys: one connection, made again when it is lost, that follows a cluster.

All keys of a store lie in one slot, so a cluster is no more than a server that moves. Whoever does not have the keys
answers ``MOVED`` with the address of the slot's owner, and the link goes there. At each connection it learns the other
nodes' addresses (``CLUSTER SLOTS``), and asks them when its own has died; once a replica has taken over, they name it.
A server without cluster mode refuses that one question, which tells it apart: there is nothing to configure.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fairway.errors import FairwayError
from fairway.resp.address import CONNECT_S, Address
from fairway.resp.wire import Argument, Refusal, Wire
from fairway.telemetry import log

ANSWER_S = 10.0
"""Seconds without any answer, while one is owed, after which a connection counts as dead."""
_HOPS = 6  # redirections that one call follows
_SPLIT_S = 0.05  # between two tries while a slot's keys are on their way from one node to another
_ELSEWHERE = ("NOSCRIPT", "MOVED", "ASK", "TRYAGAIN")  # refusals that say how the command can be carried out
_EVALSHA, _EVAL = b"EVALSHA", b"EVAL"


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

    What a call raises besides `Refusal` are the errors of `Address.faults`.

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
        self._faults = self._address.faults
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
        """Return where the keys may be, the likeliest first. From any thread."""
        return list({str(one): one for one in (self._address, *self._nodes, *self._seeds)}.values())

    async def command(self, *command: Argument) -> Any:
        """Send one command and return its answer.

        Raises:
            Refusal: Redis refused it; nothing was done.
            FairwayError: The connection could not be made, or was lost: then it may have been carried out.
        """
        try:
            return await self._send(command)
        except Refusal as error:
            return await self._follow(command, error)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script; one that the server does not know is sent along. Raises as `command` does."""
        try:
            return await self._send((_EVALSHA, script.sha, len(keys), *keys, *args))
        except Refusal as error:
            return await self._follow((_EVAL, script.text, len(keys), *keys, *args), error)

    def send(self, packed: bytes) -> asyncio.Future[Any] | None:
        """Send a packed command if the connection is up; None if it has to be made first.

        The future raises `Refusal`, which is not followed: see `leads_elsewhere`.
        """
        wire = self._wire
        return None if wire is None or wire.lost or self._closed else wire.send(packed)

    async def connect(self) -> None:
        """Make the connection unless it is up.

        Raises:
            Refusal: Redis refused the greeting.
            FairwayError: The connection could not be made.
        """
        wire = self._wire
        if wire is None or wire.lost or self._closed:
            await self._connect()

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
        told = self.refused(error)
        if told is error:
            raise error
        raise told from error

    def refused(self, error: Refusal) -> Exception:
        """Return what a call raises for a refusal that leads nowhere: itself, unless a service has words of its own."""
        return error

    def _move(self, place: str) -> None:
        address = self._address.node(place)
        if str(address) == str(self._address):
            return  # another call has gone there meanwhile
        log.get(self._faults.service).info("redis keeps the keys at another node now", address=str(address))
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

    def leave(self) -> None:
        """Drop the connection: a name may lead to another server by now. The next call connects again."""
        self._address = self._seeds[0]
        self._drop()

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
            raise self._faults.closed()
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
                raise self._faults.closed() from None
            raise

    async def _find(self) -> Wire:
        """Connect to the last address, or else to whichever node answers, and from there to who has the keys."""
        candidates = self.places()
        patience = CONNECT_S if len(candidates) == 1 else CONNECT_S / 2
        tried: set[str] = set()
        failure: FairwayError | Refusal | None = None
        while candidates:
            address = candidates.pop(0)
            if str(address) in tried:
                continue
            tried.add(str(address))
            try:
                wire = await address.connect(self._patience, patience)
                moved = await self._greet(wire, address)
            except (self._faults.unavailable, Refusal) as error:
                failure = failure or error
                continue
            if moved is None:
                self._address, self._wire = address, wire
                return wire
            self._retire(wire)
            candidates.insert(0, moved)
            told = f"redis at {address}: the {self._faults.service} are at {moved}, which does not answer"
            failure = failure or self._faults.unavailable(told)
        raise failure or self._faults.unavailable("expected the address of a redis, got none")

    async def _greet(self, wire: Wire, address: Address) -> Address | None:
        """Learn the nodes and ask for the keys; return who has them, None for this server."""
        try:
            try:
                self._nodes = address.nodes(await wire.call((b"CLUSTER", b"SLOTS"))) or self._nodes
            except Refusal:  # no cluster, or not to be asked by this user: then the URL's nodes have to do
                pass
            try:
                if self._greeting is not None:
                    await self._greeting(wire)
            except Refusal as error:
                word, *rest = str(error).split()
                if word == "MOVED" and len(rest) == 2:
                    return address.node(rest[1])
                if word not in {"ASK", "TRYAGAIN"}:  # those: the slot is on its way; each call finds its own
                    raise
        except BaseException:
            wire.abort("the greeting failed")
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
            wire.abort(f"the store of {self._faults.service} was closed")
            await wire.gone

    async def finish(self, seconds: float) -> None:
        """Wait until everything under way was answered, for `seconds` at most."""
        wires = [*self._retired] if self._wire is None else [*self._retired, self._wire]
        await asyncio.gather(*[wire.finish(seconds) for wire in wires])

    def __repr__(self) -> str:
        wire = self._wire
        state = "closed" if self._closed else "idle" if wire is None else "lost" if wire.lost else "up"
        return f"<Link {self._address} [{state}]>"


def leads_elsewhere(error: Refusal) -> bool:
    """Whether `Link.run` would carry the command out in another way; nothing was done so far."""
    return str(error).startswith(_ELSEWHERE)
