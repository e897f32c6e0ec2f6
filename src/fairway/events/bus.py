"""The event bus: publish by topic, subscribe live or replayed, consume in groups.

One task reads the store's log in order and hands every event to the live subscribers whose pattern matches, so that
all see one order, whoever published and from whichever process. A subscriber that starts in the past reads the log by
itself until it has caught up with that task, and joins the live ones in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Self

from fairway.concurrency import CancelContext, Context, WaitGroup, after_func, background, with_cancel
from fairway.events.consumer import GroupConsumer, GroupOptions
from fairway.events.errors import BusClosed, EventError, EventStoreUnavailable, InvalidTopic
from fairway.events.event import Event
from fairway.events.handler import EventHandler
from fairway.events.store import DEAD_PREFIX, EventStore, revive
from fairway.events.stores import open_event_store
from fairway.events.subscription import Policy, Subscription
from fairway.events.topic import check_topic

_LOG = logging.getLogger("fairway.events")
_BATCH = 512
_PAUSE = (0.1, 5.0)  # seconds: first and longest pause while the store is away


class EventBus:
    """Events by topic over a store; an `EventPublisher` too.

    Args:
        store: A store or its URL (``memory://``, ``sqlite:///path``, ``redis://host/0``).

    Example:
        >>> async def main() -> None:
        ...     async with EventBus("memory://") as bus:
        ...         async with bus.subscribe("orders.*") as orders:
        ...             await bus.publish(background(), Event("created", {"id": 1}), topic="orders.eu")
        ...             print((await orders.channel.recv()).event.data)
        >>> asyncio.run(main())
        {'id': 1}
    """

    def __init__(self, store: EventStore | str = "memory://") -> None:
        self.store = open_event_store(store) if isinstance(store, str) else store
        self._ctx: Context = background()
        self._stop: CancelContext | None = None
        self._tasks = WaitGroup()
        self._live: set[Subscription] = set()
        self._all: set[Subscription] = set()
        self._cursor = 0
        self._started = False
        self._order = count()
        self._reached: list[tuple[int, int, asyncio.Future[None]]] = []  # heap of publishers that wait for an offset

    async def __aenter__(self) -> Self:
        if self._started:
            raise EventError("expected a bus to be entered once; make a new one")
        self._started = True
        self._ctx = self._stop = with_cancel(background())
        self._cursor = await self.store.last()
        self._tasks.go(self._pump)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every subscription and consumer, wait for them, close the store. Closing twice is no error."""
        if self._stop is None:
            return
        stop, self._stop = self._stop, None
        stop.cancel()
        for subscription in list(self._all):
            subscription.close()
        await self._tasks.wait()
        self._announce(sys.maxsize)
        await self.store.close()

    async def publish(self, ctx: Context, event: Event, *, topic: str | None = None) -> None:
        """Store the event under `topic` (None: its type), then wait for ``block`` subscribers that are behind.

        See `EventPublisher.publish` for errors and cancellation.
        """
        await self.publish_many(ctx, [(topic or event.type, event)])

    async def publish_many(self, ctx: Context, records: list[tuple[str, Event]]) -> list[int]:
        """Store events under their topics, all or none, in one step; return their offsets.

        Raises:
            InvalidTopic: A topic is malformed, or starts with ``$``: those are the system's own.
        """
        self._check_open()
        for topic, _ in records:
            if topic.startswith("$"):
                raise InvalidTopic(f"topics that start with $ are the system's own, got {topic[:80]!r}")
        if (ended := ctx.err()) is not None:
            raise ended
        async with ctx.bind():
            offsets = await self.store.append(records)
            blocking = [subscription for subscription in self._live if subscription.policy == "block"]
            if blocking:
                await self._wait_room(blocking, offsets[-1])
        return offsets

    async def _wait_room(self, blocking: list[Subscription], offset: int) -> None:
        if self._cursor < offset:  # the task that reads the log has not handed it over yet
            reached = asyncio.get_running_loop().create_future()
            heapq.heappush(self._reached, (offset, next(self._order), reached))
            await reached
        for subscription in blocking:
            await subscription.wait_room()

    @asynccontextmanager
    async def subscribe(
        self,
        pattern: str,
        *,
        policy: Policy = "block",
        buffer: int = 64,
        after: int | None = None,
        since: float | None = None,
    ) -> AsyncIterator[Subscription]:
        """Open a subscription for the length of the block.

        Args:
            pattern: Topics, such as ``orders.*`` or ``>``.
            policy: What happens once `buffer` events wait unread, see `Subscription`.
            buffer: Events that may wait unread, >= 1.
            after: Replay what lies above this offset first; 0 is the whole log.
            since: Replay what was appended at or after this time (seconds since the epoch) first.

        Raises:
            InvalidTopic: The pattern is malformed.
            BusClosed: The bus is not open.
        """
        subscription = await self.open_subscription(pattern, policy=policy, buffer=buffer, after=after, since=since)
        try:
            yield subscription
        finally:
            subscription.close()

    async def open_subscription(
        self, pattern: str, *, policy: Policy, buffer: int, after: int | None, since: float | None
    ) -> Subscription:
        """Open a subscription that the caller closes; see `subscribe`."""
        self._check_open()
        subscription = Subscription(pattern, policy, buffer, on_close=self._forget)
        if since is not None:
            after = await self.store.offset_before(since)
        elif after is not None:
            after = min(after, await self.store.last())  # an offset of a log that was lost since
        self._all.add(subscription)
        if policy == "block":
            self._tasks.go(subscription.forward)
        if after is None:
            self._live.add(subscription)
        else:
            self._tasks.go(self._replay, subscription, after)
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        self._live.discard(subscription)
        self._all.discard(subscription)

    async def _replay(self, subscription: Subscription, after: int) -> None:
        pause = _pauses()
        while not subscription.closed:
            cursor = self._cursor
            if after >= cursor:
                # Caught up, and no await since the comparison: the pump hands over what follows.
                subscription.skip(after)
                self._live.add(subscription)
                return
            try:
                batch = await self.store.read(after, _BATCH)
            except EventStoreUnavailable as error:
                await self._back_off(error, next(pause))
                continue
            except BusClosed:
                return
            for stored in batch:
                if subscription.matches(stored.topic) and not await subscription.feed(stored):
                    return
            after = batch[-1].offset if batch else max(after, cursor)

    async def _pump(self) -> None:
        pause = _pauses()
        while self._ctx.err() is None:
            try:
                async with self._ctx.bind():
                    if not await self.store.wait(self._cursor, 2.0) and await self.store.last() < self._cursor:
                        _LOG.warning("event bus: the log was lost; reading the new one from its first event")
                        self._cursor = 0
                    batch = await self.store.read(self._cursor, _BATCH)
            except EventStoreUnavailable as error:
                await self._back_off(error, next(pause))
                continue
            except BusClosed:
                return
            except Exception:
                if self._ctx.err() is not None:
                    return
                raise
            pause = _pauses()
            for stored in batch:
                self._cursor = stored.offset
                for subscription in list(self._live):
                    if subscription.matches(stored.topic):
                        subscription.offer(stored)
            self._announce(self._cursor)
            await asyncio.sleep(0)  # readers take what was handed over before the next batch comes

    def _announce(self, offset: int) -> None:
        while self._reached and self._reached[0][0] <= offset:
            future = heapq.heappop(self._reached)[2]
            if not future.done():
                future.set_result(None)

    async def _back_off(self, error: EventStoreUnavailable, seconds: float) -> None:
        _LOG.warning("event bus: %s; trying again in %.1f s", error, seconds)
        done = self._ctx.done()
        try:
            async with asyncio.timeout(seconds):
                await done.recv_ok()
        except TimeoutError:
            return

    @asynccontextmanager
    async def consume(
        self, pattern: str, *, group: str, after: int | None = None, options: GroupOptions | None = None
    ) -> AsyncIterator[GroupConsumer]:
        """Be a member of a group for the length of the block and receive `Delivery` objects from its channel.

        Args:
            pattern: Topics that the group reads.
            group: Name of the group; its members share the events.
            after: Where a *new* group starts: above this offset, None for now on.
            options: How the group delivers.
        """
        self._check_open()
        await self.store.join(group, pattern, after)
        consumer = GroupConsumer(self.store, group, pattern, options or GroupOptions())
        ctx = with_cancel(self._ctx)
        members = WaitGroup()
        members.go(consumer.run, ctx)
        try:
            yield consumer
        finally:
            ctx.cancel()
            await members.wait()

    async def handle(
        self,
        ctx: Context,
        pattern: str,
        handler: EventHandler,
        *,
        group: str,
        after: int | None = None,
        options: GroupOptions | None = None,
    ) -> None:
        """Handle a group's events with `handler` until `ctx` ends; then finish what is in hand and return.

        Done is acknowledged, an exception is delivered again after the backoff, `UnknownEventType` and
        `InvalidEventData` are dead-lettered at once.
        """
        self._check_open()
        await self.store.join(group, pattern, after)
        consumer = GroupConsumer(self.store, group, pattern, options or GroupOptions())
        claims = with_cancel(ctx)
        unlink = after_func(self._ctx, claims.cancel)
        members = WaitGroup()
        members.go(consumer.run, claims)
        members.go(consumer.run_handler, ctx, handler)
        try:
            await members.wait()
        finally:
            unlink()
            claims.cancel()
            await members.wait()

    async def replay_dead(self, ctx: Context, group: str) -> int:
        """Publish every dead letter of a group again, under its first topic, and return how many there were.

        Each is published under a new id, so that it is not taken for a duplicate; the dead letters stay in the log.
        """
        self._check_open()
        after, count = 0, 0
        end = await self.store.last()
        while batch := await self.store.read(after, _BATCH, DEAD_PREFIX + check_topic(group)):
            for stored in batch:
                after = stored.offset
                if after > end:
                    return count
                topic, event = revive(stored)
                await self.publish(ctx, event, topic=topic)
                count += 1
        return count

    def _check_open(self) -> None:
        if self._stop is None:
            raise BusClosed("expected an open bus: async with EventBus(...) as bus")

    def statistics(self) -> dict[str, int]:
        """Return the number of subscriptions, how many of them are live, and the newest offset handed over."""
        return {"subscriptions": len(self._all), "live": len(self._live), "cursor": self._cursor}

    def __repr__(self) -> str:
        state = "open" if self._stop is not None else "closed"
        return f"<EventBus {self.store.features.name} [{state}, {len(self._all)} subscriptions]>"


def _pauses() -> Iterator[float]:
    pause, longest = _PAUSE
    while True:
        yield pause
        pause = min(longest, pause * 2)
