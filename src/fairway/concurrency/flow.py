"""`Flow`: the receive channel of a pipeline, with the tasks that fill it.

The tasks of one call (`pipeline`, `fan_out`, …) are a group under a context of their own: they end with the input, with
the context that was handed in, or with the first failure, and then the outputs are closed. A failure surfaces
where the values would have come from: at the receiver.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fairway.concurrency.chan import Chan
from fairway.concurrency.context import CancelContext, Context, require_context
from fairway.concurrency.errgroup import ErrGroup
from fairway.concurrency.errors import Canceled, Closed, DeadlineExceeded
from fairway.concurrency.views import RecvView

if TYPE_CHECKING:
    from typing import Self

T_co = TypeVar("T_co", covariant=True)
_log = logging.getLogger(__name__)
# Stages whose tasks run: the loop holds tasks weakly, and a consumer may keep nothing but the channel.
_running: set[Stage] = set()


class Stage:
    """The tasks of one call and their outputs. Internal."""

    __slots__ = ("_left", "_outputs", "ctx", "failure", "group", "seen")

    def __init__(self, ctx: Context) -> None:
        self.failure: BaseException | None = None
        self.seen: bool = False
        self.group: ErrGroup = ErrGroup(require_context(ctx))
        self.ctx: CancelContext = self.group.ctx
        self._outputs: list[Chan[Any]] = []
        self._left = 0

    def output(self) -> Flow[Any]:
        """Return a new output, which is closed when all tasks have ended."""
        chan: Chan[Any] = Chan()
        self._outputs.append(chan)
        return Flow(chan, self)

    def start(self, *bodies: Callable[[], Awaitable[None]]) -> None:
        """Start the tasks; with a context that has ended, or without any, the outputs are closed at once."""
        if self.ctx.err() is not None or not bodies:
            self._close(self._outputs)
            return
        _running.add(self)
        self._left = len(bodies)
        for body in bodies:
            self.group.try_go(self._run, body)

    async def _run(self, body: Callable[[], Awaitable[None]]) -> None:
        try:
            await body()
        except CancelledError:
            raise
        except BaseException as exc:
            if self.failure is None:
                self.failure = exc
            raise
        finally:
            self._left -= 1
            if not self._left:
                self._close(self._outputs)
                self.ctx.cancel(self.failure)
                _running.discard(self)

    def _close(self, outputs: list[Chan[Any]]) -> None:
        for chan in outputs:
            if not chan.closed:
                chan.close()

    def surface(self) -> None:
        """Raise what the tasks have failed with, if they have."""
        if self.failure is not None:
            self.seen = True
            raise self.failure

    def __del__(self) -> None:
        if self.failure is not None and not self.seen:
            _log.error("a pipeline failed and nobody received its end: %r", self.failure)


class Flow(RecvView[T_co]):
    """A receive channel that knows the tasks behind it.

    Once it is drained it raises what a task has failed with, where a plain channel would report its end; in a
    `select` look at `failure`. Used as a block (``async with pipeline(…) as out:``) it stops the tasks on exit
    and waits for them; else they end with their input or their context.
    """

    __slots__ = ("_stage",)

    def __init__(self, chan: Chan[Any], stage: Stage) -> None:
        super().__init__(chan)
        self._stage = stage

    @property
    def failure(self) -> BaseException | None:
        """What a task has failed with, or None."""
        self._stage.seen = True
        return self._stage.failure

    async def recv(self) -> T_co:
        """Wait for a value and return it. Raises `Closed` at the end, or the failure of a task."""
        value, ok = await self._chan.recv_ok()
        if not ok:
            self._stage.surface()
            raise Closed
        return value  # type: ignore[return-value]  # ok says that it is a value

    async def recv_ok(self) -> tuple[T_co, Literal[True]] | tuple[None, Literal[False]]:
        """Wait for a value or the end. Raises the failure of a task instead of reporting the end."""
        received = await self._chan.recv_ok()
        if not received[1]:
            self._stage.surface()
        return received

    def try_recv(self) -> tuple[T_co, Literal[True]] | tuple[None, Literal[False]] | None:
        """Receive if that needs no waiting. Raises the failure of a task instead of reporting the end."""
        received = self._chan.try_recv()
        if received is not None and not received[1]:
            self._stage.surface()
        return received

    async def recv_many(self, n: int, /) -> list[T_co]:
        """Wait for 1 to `n` values. Raises the failure of a task instead of reporting the end."""
        values = await self._chan.recv_many(n)
        if not values:
            self._stage.surface()
        return values

    async def __anext__(self) -> T_co:
        """Receive the next value; at the end raise the failure of a task or `StopAsyncIteration`."""
        value, ok = await self._chan.recv_ok()
        if not ok:
            self._stage.surface()
            raise StopAsyncIteration
        return value  # type: ignore[return-value]  # ok says that it is a value

    async def aclose(self) -> None:
        """Stop the tasks of this call and wait for them; values in transit are dropped. Raises their failure."""
        self._stage.ctx.cancel()
        try:
            await self._stage.group.wait()
        except (Canceled, DeadlineExceeded):
            # Being stopped is no failure; what failed before that is surfaced below.
            if self._stage.failure is not None:
                self._stage.surface()
        self._stage.seen = True

    async def __aenter__(self) -> Self:
        """Return the flow itself."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Call `aclose`; a failure that the block has received already is not raised twice."""
        failure = self._stage.failure
        try:
            await self.aclose()
        except Exception:
            if exc is None or exc is not failure:
                raise
