"""The event bus: typed events, durable topics, consumer groups.

>>> from fairway.events import Event, EventBus
>>> Event("site_created", {"id": 7}, source="sites").check().type
'site_created'
"""

from fairway.events.bus import EventBus
from fairway.events.consumer import GroupOptions
from fairway.events.delivery import Delivery
from fairway.events.event import Event
from fairway.events.handler import EventHandler, EventHandlers
from fairway.events.publisher import EventPublisher
from fairway.events.publishers.channel import ChannelEventPublisher
from fairway.events.publishers.store import RedisStreamsEventPublisher, StoreEventPublisher
from fairway.events.retention import Bound, Retention
from fairway.events.store import EventStore
from fairway.events.stores import open_event_store
from fairway.events.subscription import Policy, Subscription

__all__ = [
    "Bound",
    "ChannelEventPublisher",
    "Delivery",
    "Event",
    "EventBus",
    "EventHandler",
    "EventHandlers",
    "EventPublisher",
    "EventStore",
    "GroupOptions",
    "Policy",
    "RedisStreamsEventPublisher",
    "Retention",
    "StoreEventPublisher",
    "Subscription",
    "open_event_store",
]
