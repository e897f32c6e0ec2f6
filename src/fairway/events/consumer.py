"""A member of a consumer group: claims events, hands them to a channel or a handler, settles them.

One task claims; it sleeps until the log grows, a lease or a delay runs out, or a worker has room. It claims no more
than there is room for, so an event never waits under a lease that nobody renews: while a handler runs, its lease is
extended at a third of its length.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass

from fairway.concurrency import Chan, Context, RecvChan, SendOnClosed, WaitGroup, WeightedSemaphore
from fairway.events.delivery import LONGEST, Delivery
from fairway.events.errors import (
    BusClosed,
    EventError,
    EventStoreUnavailable,
    InvalidEventData,
    UnknownEventType,
    UnknownGroup,
)
from fairway.events.handler import EventHandler
from fairway.events.store import Claimed, EventStore

_LOG = logging.getLogger("fairway.events")
_LONGEST_REST = 30.0  # seconds; what a lost wake-up costs at most
_STORE_BACKOFF = (0.1, 5.0)  # seconds: first and longest pause while the store is away


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """How a group delivers.

    Attributes:
        lease: Seconds that one delivery may take before it counts as lost, > 0, a year at most.
        max_deliveries: Tries before an event is dead-lettered, >= 1.
        backoff: Seconds before the second try; doubles with each, up to `max_backoff`.
        concurrency: Events in the hands of this member at once, >= 1.
    """

    lease: float = 30.0
    max_deliveries: int = 5
    backoff: float = 1.0
    max_backoff: float = 60.0
    concurrency: int = 1

    def __post_init__(self) -> None:
        seconds = 0 < self.lease <= LONGEST and 0 <= self.backoff <= LONGEST and 0 <= self.max_backoff <= LONGEST
        if not seconds or self.max_deliveries < 1 or self.concurrency < 1:
            raise EventError(
                f"expected lease above 0, backoff and max_backoff from 0, all up to {LONGEST:g} seconds, "
                f"max_deliveries and concurrency >= 1, got {self.lease}, {self.backoff}, {self.max_backoff}, "
                f"{self.max_deliveries} and {self.concurrency}"
            )

    def delay(self, attempt: int) -> float:
        """Return the seconds before try `attempt` + 1: backoff · 2^(attempt−1), at most `max_backoff`.

        Example:
            >>> [GroupOptions(backoff=1, max_backoff=5).delay(n) for n in (1, 2, 3, 4, 2000)]
            [1.0, 2.0, 4.0, 5, 5]
        """
        return min(self.max_backoff, self.backoff * float(2 ** min(attempt - 1, 62)))


class GroupConsumer:
    """One member of a group; made by `EventBus.consume` and `EventBus.handle`.

    Args:
        store: Where the events lie.
        group: The group's name; it has been joined.
        pattern: The topics it reads, to join again from the start where the store lost everything.
        options: How it delivers.
        start: Newest offset when it joined: where it goes on if the group is deleted before it has claimed anything.
    """

    def __init__(self, store: EventStore, group: str, pattern: str, options: GroupOptions, start: int) -> None:
        self._store = store
        self._pattern = pattern
        self.group = group
        self.options = options
        self._out: Chan[Delivery] = Chan()
        self._log_id = store.log_id
        self._newest = start  # newest offset seen: less than that means that the log was lost
        self._taken = start  # offset up to which there was nothing left to claim
        self._room = WeightedSemaphore(options.concurrency)

    @property
    def channel(self) -> RecvChan[Delivery]:
        """Deliveries, to be settled by the receiver; each holds one unit of `concurrency` until `settle` is called."""
        return self._out.receiver

    def settle(self) -> None:
        """Give one unit of `concurrency` back; `run_handler` does it by itself."""
        self._room.release(1)

    async def run(self, ctx: Context) -> None:
        """Claim until `ctx` ends; the store going away pauses it and it goes on by itself."""
        pause = _STORE_BACKOFF[0]
        try:
            while ctx.err() is None:
                try:
                    async with ctx.bind():
                        await self._round_or_join(ctx)
                    pause = _STORE_BACKOFF[0]
                except EventStoreUnavailable as error:
                    _LOG.warning("group %s: %s; trying again in %.1f s", self.group, error, pause)
                    async with ctx.bind():
                        await asyncio.sleep(pause)
                    pause = min(pause * 2, _STORE_BACKOFF[1])
        except (BusClosed, SendOnClosed):
            _LOG.debug("group %s: the bus was closed", self.group)
        except Exception:
            if ctx.err() is None:
                raise
        finally:
            if not self._out.closed:
                self._out.close()

    async def _round_or_join(self, ctx: Context) -> None:
        try:
            await self._round(ctx)
        except UnknownGroup:
            newest = await self._store.last()
            if newest < self._newest or self._is_another_log():
                _LOG.warning("group %s is gone with the whole log: it starts again from the first event", self.group)
                self._taken = 0
            else:
                _LOG.warning("group %s was deleted under its member: it goes on where it was", self.group)
            await self._store.join(self.group, self._pattern, self._taken)
            self._newest, self._log_id = newest, self._store.log_id

    def _is_another_log(self) -> bool:
        """Whether the store has seen another log than this member claimed from the last time."""
        found = self._store.log_id
        return found != self._log_id and bool(found and self._log_id)

    async def _round(self, ctx: Context) -> None:
        await self._room.acquire(ctx, 1)
        free = 1
        while free < self.options.concurrency and self._room.try_acquire(1):
            free += 1
        unsent: list[Claimed] = []
        try:
            changes, position = self._store.changes, await self._store.last()
            self._newest = max(self._newest, position)
            unsent = await self._claim(free)
            if self._is_another_log():  # and somebody has made the group there already
                self._taken = 0
            self._log_id = self._store.log_id
            idle = not unsent
            while unsent:
                await self._out.send(Delivery(self._store, self.group, unsent[0], self.options.max_deliveries))
                del unsent[0]
                free -= 1
        finally:
            self._room.release(free)
            await self._give_back(unsent)
        if idle:
            self._taken = position
            await self._rest(position, changes)

    async def _claim(self, free: int) -> list[Claimed]:
        """Claim; where the caller is cancelled meanwhile, wait for the answer and give back what it leased."""
        options = self.options
        claiming = asyncio.ensure_future(self._store.claim(self.group, free, options.lease, options.max_deliveries))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await asyncio.wait({claiming})
            if claiming.exception() is None:
                await self._give_back(claiming.result())
            raise

    async def _give_back(self, claimed: list[Claimed]) -> None:
        # Never handed out: for another member, whatever its number of deliveries.
        for item in claimed:
            await self._store.nack(self.group, item.stored.offset, item.fence, 0.0, sys.maxsize)

    async def _rest(self, position: int, changes: int) -> None:
        due = await self._store.next_due(self.group)
        await self._store.wait(position, _LONGEST_REST if due is None else min(due, _LONGEST_REST), changes)

    async def run_handler(self, ctx: Context, handler: EventHandler) -> None:
        """Give deliveries to `handler` with `concurrency` workers until the channel closes."""
        workers = WaitGroup()
        for _ in range(self.options.concurrency):
            workers.go(self._work, ctx, handler)
        await workers.wait()

    async def _work(self, ctx: Context, handler: EventHandler) -> None:
        async for delivery in self._out:
            try:
                await self._handle(ctx, delivery, handler)
            except BusClosed:
                _LOG.warning("group %s: %r stays unsettled until its lease runs out: closed", self.group, delivery)
            except UnknownGroup:
                _LOG.warning("group %s: %r was settled too late: the group is gone", self.group, delivery)
            except EventStoreUnavailable as error:
                _LOG.warning("group %s: %r stays unsettled until its lease runs out: %s", self.group, delivery, error)
            finally:
                self.settle()

    async def _handle(self, ctx: Context, delivery: Delivery, handler: EventHandler) -> None:
        keeper = asyncio.ensure_future(self._keep(delivery))
        try:
            await handler.handle(ctx, delivery.event)
        except (UnknownEventType, InvalidEventData) as error:
            await delivery.kill(str(error))
        except Exception as error:
            _LOG.warning("group %s: handler failed for %r: %s", self.group, delivery, error, exc_info=error)
            await delivery.nack(self.options.delay(delivery.attempt))
        except BaseException:
            await delivery.nack()
            raise
        else:
            await delivery.ack()
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, delivery: Delivery) -> None:
        while True:
            await asyncio.sleep(self.options.lease / 3)
            try:
                if not await delivery.extend(self.options.lease):
                    _LOG.warning("group %s: the lease of %r was lost while it was handled", self.group, delivery)
                    return
            except EventStoreUnavailable as error:
                _LOG.warning("group %s: the lease of %r is not extended: %s", self.group, delivery, error)

    def __repr__(self) -> str:
        return f"<GroupConsumer {self.group} [{len(self._out)} waiting]>"
