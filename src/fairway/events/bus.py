"""The event bus: publish by topic, subscribe live or replayed, consume in groups.

One task reads the store's log in order and hands every event to the live subscribers whose pattern matches, so that
all see one order, whoever published and from whichever process. A subscriber that starts in the past reads the log by
itself until it has caught up with that task, and joins the live ones in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Any, Self

from fairway.concurrency import CancelContext, Context, WaitGroup, after_func, background, nil, with_cancel
from fairway.events.consumer import GroupConsumer, GroupOptions
from fairway.events.errors import BusClosed, EventError, EventStoreUnavailable, InvalidTopic
from fairway.events.event import Event
from fairway.events.handler import EventHandler
from fairway.events.retention import Retainer, Retention
from fairway.events.store import DEAD_PREFIX, EventStore, RecentStore, RetainedStore, Stored, revive
from fairway.events.stores import open_event_store
from fairway.events.subscription import Policy, Subscription
from fairway.events.topic import check_topic

_LOG = logging.getLogger("fairway.events")
_BATCH = 512
_FAIR = 64  # events that publishers hand over before they let others run
_LOOK = 2.0  # seconds between two looks whether the log is still the one that was read
_DEFAULT = Retention()
_PAUSE = (0.1, 5.0)  # seconds: first and longest pause while the store is away


class EventBus:
    """Events by topic over a store; an `EventPublisher` too.

    Args:
        store: A store or its URL (``memory://``, ``sqlite:///path``, ``redis://host/0``).
        retention: How long events and groups are kept while the bus is open; None keeps all. Behind an HTTP API the
            daemon decides.

    Example:
        >>> async def main() -> None:
        ...     async with EventBus("memory://") as bus:
        ...         async with bus.subscribe("orders.*") as orders:
        ...             await bus.publish(background(), Event("created", {"id": 1}), topic="orders.eu")
        ...             print((await orders.channel.recv()).event.data)
        >>> asyncio.run(main())
        {'id': 1}
    """

    def __init__(self, store: EventStore | str = "memory://", *, retention: Retention | None = _DEFAULT) -> None:
        self.store = open_event_store(store) if isinstance(store, str) else store
        self._retainer: Retainer | None = None
        if retention is not None and isinstance(self.store, RetainedStore):
            self._retainer = Retainer(self.store, retention)
        self._recent = self.store.recent if isinstance(self.store, RecentStore) else None
        self._ctx: Context = background()
        self._stop: CancelContext | None = None
        self._tasks = WaitGroup()
        self._members = WaitGroup()  # of groups: their acknowledgements need the store
        self._looked = 0.0  # when the pump last made sure of the log, by the loop's clock
        self._log_id = ""  # of the log that is read
        self._lost = 0  # how often the log was lost: offsets of before mean nothing then
        self._live: set[Subscription] = set()
        self._all: set[Subscription] = set()
        self._blocking: set[Subscription] = set()  # whom publishers wait for: live once, with the policy block
        self._unyielding = 0  # events handed over by publishers since they last let other tasks run
        self._dropped = 0  # by subscriptions that have ended
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
        self._log_id = self.store.log_id
        self._tasks.go(self._pump)
        if self._retainer is not None:
            self._tasks.go(self._retainer.run, self._ctx)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every subscription and consumer, wait for them, close the store. Closing twice is no error.

        Handlers finish what they have in hand and acknowledge it, so never call it from within a handler.
        """
        if self._stop is None:
            return
        stop, self._stop = self._stop, None
        stop.cancel()
        self.end_subscriptions()
        try:
            await self._members.wait()
            await self._tasks.wait()
        finally:
            self._announce(sys.maxsize)
            await self.store.close()

    def end_subscriptions(self) -> None:
        """End the subscriptions of now, and let the bus go on: a server that stops lets its streams finish by it."""
        for subscription in list(self._all):
            subscription.close()

    async def publish(self, ctx: Context, event: Event, *, topic: str | None = None) -> None:
        """Store the event under `topic` (None: its type), then wait for ``block`` subscribers that are behind.

        See `EventPublisher.publish` for errors and cancellation; where `ctx` ends while it waits for a subscriber, the
        event is stored already.
        """
        await self.publish_many(ctx, [(topic or event.type, event)])

    async def publish_many(self, ctx: Context, records: list[tuple[str, Event]]) -> list[int]:
        """Store events under their topics, all or none, in one step; return their offsets.

        Raises:
            InvalidTopic: A topic is malformed, or starts with ``$``: those are the system's own.
        """
        self._check_open()
        for topic, _ in records:
            if not isinstance(topic, str) or topic.startswith("$"):
                raise InvalidTopic(f"topics that start with $ are the system's own, got {str(topic)[:80]!r}")
        if not records:
            return []
        if (ended := ctx.err()) is not None:
            raise ended
        if ctx.done() is nil:  # it can never end: nothing to bind to
            return await self._store_and_wait(records)
        async with ctx.bind():
            return await self._store_and_wait(records)

    async def _store_and_wait(self, records: list[tuple[str, Event]]) -> list[int]:
        offsets = await self.store.append(records)
        if self._recent is not None and self._live:
            while self._cursor < offsets[-1] and (batch := self._recent(self._cursor, _BATCH)):
                self._hand_over(batch)  # the task that reads the log would ask for what is here
        if self.store.features.objects and self._live:
            # In this process's memory: reading never waits, so the publisher hands over by itself what is new.
            while self._cursor < offsets[-1] and (batch := await self.store.read(self._cursor, _BATCH)):
                self._hand_over(batch)
            self._unyielding += 1
            if self._unyielding >= _FAIR:
                self._unyielding = 0
                await asyncio.sleep(0)
        if self._blocking:
            await self._wait_room(offsets[-1])
        return offsets

    async def _wait_room(self, offset: int) -> None:
        if self._cursor < offset:  # the task that reads the log has not handed it over yet
            reached = asyncio.get_running_loop().create_future()
            heapq.heappush(self._reached, (offset, next(self._order), reached))
            await reached
        for subscription in [one for one in self._blocking if not one.has_room]:
            await subscription.wait_room()  # as long as it reads, or has patience

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
        self,
        pattern: str,
        *,
        policy: Policy,
        buffer: int,
        after: int | None,
        since: float | None,
        patience: float | None = None,
    ) -> Subscription:
        """Open a subscription that the caller closes; see `subscribe`, and `Subscription` for `patience`."""
        self._check_open()
        if (after is not None and after < 0) or (since is not None and not math.isfinite(since)):
            raise EventError(f"expected after >= 0 and since in seconds since the epoch, got {after} and {since}")
        subscription = Subscription(
            pattern, policy, buffer, on_close=self._forget, on_lag=self._catch_up, patience=patience
        )
        if since is not None:
            after = await self.store.offset_before(since)
        else:
            newest = await self.store.last()
            if after is None:
                subscription.skip(newest)  # the task that reads the log may be behind: from now on means from now on
            else:
                after = min(after, newest)  # an offset of a log that was lost since
        self._check_open()
        self._all.add(subscription)
        if policy == "block":
            self._tasks.go(subscription.forward)
        if after is None:
            self._join_live(subscription)
        else:
            self._tasks.go(self._replay, subscription, after)
        return subscription

    def _join_live(self, subscription: Subscription) -> None:
        self._live.add(subscription)
        if subscription.policy == "block":
            self._blocking.add(subscription)

    def _forget(self, subscription: Subscription) -> None:
        self._live.discard(subscription)
        self._blocking.discard(subscription)
        if subscription in self._all:
            self._all.discard(subscription)
            self._dropped += subscription.dropped

    def _catch_up(self, subscription: Subscription, after: int) -> None:
        self._live.discard(subscription)
        self._tasks.go(self._replay, subscription, after)

    async def _replay(self, subscription: Subscription, after: int) -> None:
        try:
            await self._read_log(subscription, after)
        except BaseException:
            subscription.close()  # ended, not silent
            raise

    async def _read_log(self, subscription: Subscription, after: int) -> None:
        pause, lost = _pauses(), self._lost
        while not subscription.closed:
            if lost != self._lost:
                after, lost = 0, self._lost
            cursor = self._cursor
            if after >= cursor:
                # Caught up, and no await since the comparison: the pump hands over what follows.
                subscription.skip(after)
                self._join_live(subscription)
                return
            try:
                batch = await self.store.read(after, _BATCH)
            except EventStoreUnavailable as error:
                await self._back_off(error, next(pause))
                continue
            except BusClosed:
                return
            pause = _pauses()
            for stored in batch:
                if subscription.matches(stored.topic) and not await subscription.feed(stored):
                    return
            after = batch[-1].offset if batch else max(after, cursor)

    async def _pump(self) -> None:
        pause, position = _pauses(), self._cursor
        while self._ctx.err() is None:
            try:
                async with self._ctx.bind():
                    changes = self.store.changes
                    self._follow()
                    # Else publishers have handed over what woke this task, and `wait` knows whether there is more.
                    batch = await self.store.read(self._cursor, _BATCH) if self._cursor == position else []
                    if batch:
                        self._hand_over(batch)
                        await asyncio.sleep(0)  # readers take what was handed over before the next batch comes
                    position = self._cursor
                    if len(batch) < _BATCH:
                        await self._wait_for_news(changes)
            except EventStoreUnavailable as error:
                await self._back_off(error, next(pause))
                continue
            except BusClosed:
                return
            except Exception as error:
                if self._ctx.err() is not None:
                    return
                _LOG.exception("event bus: reading the log above offset %d failed", self._cursor)
                await self._back_off(error, next(pause))
                continue
            pause = _pauses()

    async def _wait_for_news(self, changes: int) -> None:
        if await self.store.wait(self._cursor, _LOOK, changes):
            return
        now = asyncio.get_running_loop().time()
        if self.store.changes != changes and now - self._looked < _LOOK:
            return
        self._looked = now
        if await self.store.last() < self._cursor:
            self._begin_again()

    def _follow(self) -> None:
        """Begin again where the store has seen that the log is another one, however far that has grown."""
        found = self.store.log_id
        if found != self._log_id:
            known, self._log_id = self._log_id, found
            if known and found:
                self._begin_again()

    def _begin_again(self) -> None:
        _LOG.warning("event bus: the log was lost; reading the new one from its first event")
        self._log_id = self.store.log_id
        self._cursor = 0
        self._lost += 1
        for subscription in self._live:
            subscription.skip(0)

    def _hand_over(self, batch: list[Stored]) -> None:
        live = list(self._live)  # nothing is awaited here, so none joins
        for stored in batch:
            if stored.offset <= self._cursor:
                continue  # a publisher was faster
            topic = stored.topic
            for subscription in live:
                if subscription.matches(topic):
                    subscription.offer(stored)
        self._cursor = max(self._cursor, batch[-1].offset)
        self._announce(self._cursor)

    def _announce(self, offset: int) -> None:
        while self._reached and self._reached[0][0] <= offset:
            future = heapq.heappop(self._reached)[2]
            if not future.done():
                future.set_result(None)

    async def _back_off(self, error: Exception, seconds: float) -> None:
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
        consumer = await self._join(group, pattern, after, options)
        ctx = with_cancel(self._ctx)
        members = WaitGroup()
        members.go(self._member, consumer.run, ctx)
        try:
            yield consumer
        finally:
            ctx.cancel()
            await members.wait()

    async def _join(self, group: str, pattern: str, after: int | None, options: GroupOptions | None) -> GroupConsumer:
        start = await self.store.last()
        await self.store.join(group, pattern, after)
        return GroupConsumer(self.store, group, pattern, options or GroupOptions(), start)

    async def _member(self, run: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._members.add(1)
        try:
            await run(*args)
        finally:
            self._members.done()

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
        """Handle a group's events with `handler` until `ctx` or the bus ends; then finish what is in hand and return.

        The handler is given a context that ends with either.
        Done is acknowledged, an exception is delivered again after the backoff, `UnknownEventType` and
        `InvalidEventData` are dead-lettered at once.
        """
        self._check_open()
        consumer = await self._join(group, pattern, after, options)
        claims = with_cancel(ctx)
        unlink = after_func(self._ctx, claims.cancel)
        members = WaitGroup()
        members.go(self._member, consumer.run, claims)
        members.go(self._member, consumer.run_handler, claims, handler)
        try:
            await members.wait()
        finally:
            unlink()
            claims.cancel()
            await members.wait()

    async def replay_dead(self, ctx: Context, group: str) -> int:
        """Publish every dead letter of a group again, under its first topic, and return how many there were.

        Each is published once under a new id, so that it is not taken for a duplicate; the dead letters stay in the
        log, and asking again publishes only what has died since.

        Raises:
            UnknownGroup: There is no such group, and no dead letter of one that was deleted.
        """
        self._check_open()
        after, count = 0, 0
        end = await self.store.last()
        while ctx.err() is None and (batch := await self.store.read(after, _BATCH, DEAD_PREFIX + check_topic(group))):
            for stored in batch:
                after = stored.offset
                if after > end:
                    return count
                # Straight to the store: the first topic may be one of the system's.
                newest = await self.store.last()
                [offset] = await self.store.append([revive(stored)])
                count += offset > newest
        if (ended := ctx.err()) is not None:
            raise ended
        if not after:
            await self.store.next_due(group)  # refuses a group that does not exist
        return count

    def _check_open(self) -> None:
        if self._stop is None:
            raise BusClosed("expected an open bus: async with EventBus(...) as bus")

    def statistics(self) -> dict[str, int]:
        """Return the number of subscriptions, how many of them are live, the newest offset handed over, how many events
        they dropped, and what retention removed since the start.
        """
        kept = {"removed": 0, "expired_groups": 0} if self._retainer is None else self._retainer.statistics()
        dropped = self._dropped + sum(one.dropped for one in self._all)
        return {
            "subscriptions": len(self._all),
            "live": len(self._live),
            "cursor": self._cursor,
            "dropped": dropped,
            **kept,
        }

    def __repr__(self) -> str:
        state = "open" if self._stop is not None else "closed"
        return f"<EventBus {self.store.features.name} [{state}, {len(self._all)} subscriptions]>"


def _pauses() -> Iterator[float]:
    pause, longest = _PAUSE
    while True:
        yield pause
        pause = min(longest, pause * 2)
