"""Events straight into a store, for a process that publishes and does not subscribe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.events.errors import EventError
from fairway.events.event import Event
from fairway.events.store import EventStore
from fairway.events.stores import open_event_store

if TYPE_CHECKING:
    from fairway.concurrency import Context


class StoreEventPublisher:
    """An `EventPublisher` that appends to a store under the event's type, or one fixed topic.

    Args:
        store: A store or its URL, such as ``sqlite:///events.db``.
        topic: Topic of every event; None takes the event's type.
    """

    def __init__(self, store: EventStore | str, *, topic: str | None = None) -> None:
        self.store = open_event_store(store) if isinstance(store, str) else store
        self._topic = topic

    async def publish(self, ctx: Context, event: Event) -> None:
        """See `EventPublisher.publish`: returns once the event is as durable as the store's features say."""
        if (ended := ctx.err()) is not None:
            raise ended
        async with ctx.bind():
            await self.store.append([(self._topic or event.type, event)])

    async def close(self) -> None:
        """Close the store."""
        await self.store.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.store!r}>"


class RedisStreamsEventPublisher(StoreEventPublisher):
    """An `EventPublisher` on Redis Streams.

    Args:
        url: ``redis://host:port/db``, or another that `RedisEventStore.open` reads.
        topic: Topic of every event; None takes the event's type.

    Raises:
        EventError: The URL is not one of Redis or Valkey.
    """

    def __init__(self, url: str, *, topic: str | None = None) -> None:
        if not url.startswith(("redis://", "rediss://", "valkey://", "valkeys://", "unix://")):
            raise EventError(f"expected a URL such as redis://127.0.0.1:6379/0, got {url.partition('@')[2] or url!r}")
        super().__init__(url, topic=topic)
