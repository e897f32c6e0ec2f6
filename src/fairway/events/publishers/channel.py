"""Events over a buffered channel to workers in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fairway.concurrency import Chan, Context, SendOnClosed, WaitGroup, select
from fairway.events.errors import BusClosed, EventError
from fairway.events.event import Event
from fairway.events.handler import EventHandler

_LOG = logging.getLogger("fairway.events")


class ChannelEventPublisher:
    """An `EventPublisher` over a channel: events wait in memory until a worker takes one, each exactly one.

    A full buffer makes `publish` wait: back-pressure instead of loss. A crash loses what is in the buffer.

    Args:
        buffer_size: Events that may wait, >= 0.
        on_error: Called with event and exception where a handler fails; None logs it.

    Example:
        >>> publisher = ChannelEventPublisher(100)
        >>> publisher
        <ChannelEventPublisher [0/100 buffered, 0 handled, 0 failed]>
    """

    def __init__(self, buffer_size: int = 100, *, on_error: Callable[[Event, Exception], None] | None = None) -> None:
        if buffer_size < 0:
            raise EventError(f"expected buffer_size >= 0, got {buffer_size}")
        self._chan: Chan[Event] = Chan(buffer_size)
        self._workers = WaitGroup()
        self._on_error = on_error or _log_failure
        self._handled = 0
        self._failed = 0

    async def publish(self, ctx: Context, event: Event) -> None:
        """See `EventPublisher.publish`. Raises `BusClosed` after `close`."""
        event.check()
        if (ended := ctx.err()) is not None:
            raise ended
        if self._chan.closed:
            raise BusClosed(f"event {event.id} of type {event.type!r}: the publisher is closed")
        if self._chan.try_send(event):
            return
        try:
            match await select(self._chan.on_send(event), ctx.done().on_recv()):
                case (1, _, _):
                    raise ctx.err() or EventError("the context ended without an error")
        except SendOnClosed:
            raise BusClosed(f"event {event.id} of type {event.type!r}: the publisher was closed meanwhile") from None

    def start_workers(self, ctx: Context, workers: int, handler: EventHandler) -> None:
        """Start tasks that handle events until `ctx` ends, or until the channel is closed and drained.

        A handler that fails is reported and the worker goes on; `wait` waits for the workers.

        Args:
            ctx: Given to the handler; its end stops the workers between two events.
            workers: How many, >= 1.
            handler: Called once an event.
        """
        if workers < 1:
            raise EventError(f"expected at least one worker, got {workers}")
        for _ in range(workers):
            self._workers.go(self._work, ctx, handler)

    def close(self) -> None:
        """Take no more events; workers drain what is buffered and end. Closing twice is no error."""
        if not self._chan.closed:
            self._chan.close()

    async def wait(self) -> None:
        """Wait until every worker has ended."""
        await self._workers.wait()

    async def _work(self, ctx: Context, handler: EventHandler) -> None:
        while True:
            match await select(self._chan.on_recv(), ctx.done().on_recv()):
                case (0, event, True):
                    await self._handle(ctx, handler, event)
                case _:
                    return

    async def _handle(self, ctx: Context, handler: EventHandler, event: Event) -> None:
        try:
            await handler.handle(ctx, event)
        except Exception as error:
            self._failed += 1
            self._on_error(event, error)
        else:
            self._handled += 1

    def statistics(self) -> dict[str, int]:
        """Return events buffered, the buffer's size, handled and failed."""
        return {
            "buffered": len(self._chan),
            "buffer_size": self._chan.cap,
            "handled": self._handled,
            "failed": self._failed,
        }

    def __repr__(self) -> str:
        return (
            f"<ChannelEventPublisher [{len(self._chan)}/{self._chan.cap} buffered, {self._handled} handled, "
            f"{self._failed} failed]>"
        )


def _log_failure(event: Event, error: Exception) -> None:
    _LOG.error("handler failed for event %s of type %r: %s", event.id, event.type, error, exc_info=error)
