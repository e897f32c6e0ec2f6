"""The one interface that publishes; which implementation stands behind it is the caller's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fairway.concurrency import Context
    from fairway.events.event import Event


@runtime_checkable
class EventPublisher(Protocol):
    """Whoever takes an event.

    Implementations: `ChannelEventPublisher` (a buffered channel in this process), `StoreEventPublisher` (SQLite or
    any other store), `RedisStreamsEventPublisher`, and `EventBus` itself.
    """

    async def publish(self, ctx: Context, event: Event) -> None:
        """Take the event: return once it is buffered or stored, as the implementation promises.

        Waits while there is no room. Cancelling is safe: the event is either taken or not, and taking it again is
        settled by its id where the implementation stores events.

        Raises:
            InvalidEvent: The event is malformed; nothing was taken.
            Canceled, DeadlineExceeded: `ctx` ended first; nothing was taken.
            EventStoreUnavailable: The store refused; nothing was acknowledged.
        """
        ...
