"""One connection to Redis that any number of tasks share: commands go out as they come, answers come back in order.

A pool lends a connection to a call for its whole round trip; here calls that are made at the same time travel together,
which is worth a factor of three where many tasks make one call each. Packing and parsing are hiredis's. A call that is
cancelled only stops listening: its answer is read and dropped, so that no answer can meet the wrong call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import hiredis

from fairway.resp.vigil import LIMIT_S, Vigil

Argument = str | bytes | int | float
"""What a command is made of."""


class Refusal(Exception):
    """What Redis answers when it refuses a command; the first word is its code."""


class Wire(asyncio.Protocol):
    """The connection itself; made by `Address.connect`.

    Args:
        patience: Seconds without any answer, while one is owed, after which it counts as dead: a half-open connection
            never says so itself.
        unavailable: Makes the error of a call whose connection was lost, from its message.
    """

    def __init__(self, patience: float, unavailable: Callable[[str], Exception]) -> None:
        self._reader = hiredis.Reader(replyError=Refusal)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._patience = patience
        self._unavailable = unavailable
        self._retired = False
        self._vigil = Vigil()
        self._until = 0.0  # when to fall asleep over the call under way
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
                future.set_exception(self._unavailable(why))

    def abort(self, why: str) -> None:
        """Drop the connection; every call that waits fails as unavailable."""
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

        The future raises `Refusal`, or what `unavailable` makes where the connection is lost: then the command may
        have been carried out.
        """
        future = self._loop.create_future()
        if self.lost:
            future.set_exception(self._unavailable("the connection to redis was lost"))
            return future
        if not self._waiting:
            self._heard = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(self._patience, self._look)
            if self._transport is not None:
                # Whoever makes one call after another would pay a turn of the loop for company that does not come.
                self._waiting.append(future)
                vigil = self._vigil
                vigil.left -= 1
                if not vigil.left:
                    vigil.judge(perf_counter())
                self._transport.write(packed)
                if vigil.awake:
                    self._until = perf_counter() + LIMIT_S
                    self._loop.call_soon(self._stay)
                return future
        elif len(self._waiting) == 1:
            self._vigil.joined = True
        self._waiting.append(future)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        return future

    def _stay(self) -> None:
        """Keep the loop from falling asleep: see `fairway.resp.vigil`."""
        if len(self._waiting) == 1 and perf_counter() < self._until:
            self._loop.call_soon(self._stay)

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


def pack(parts: Sequence[str | bytes]) -> bytes:
    """Return arguments as they go over the wire, without the head that counts them."""
    return b"".join(
        b"$%d\r\n%b\r\n" % (len(data), data)
        for data in (part.encode() if isinstance(part, str) else part for part in parts)
    )
