"""What can go wrong with an event; each names the event, the topic or the field."""

from __future__ import annotations

from fairway.errors import FairwayError


class EventError(FairwayError):
    """Base of the event errors."""

    code = "events.error"


class InvalidEvent(EventError):
    """The event itself is malformed; it is not stored."""

    code = "events.invalid"

    def __init__(self, message: str, *, field: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class InvalidTopic(EventError):
    """A topic or a pattern is malformed."""

    code = "events.invalid_topic"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "dot-separated words of letters, digits, _ and -; in a pattern * and >")
        self.field = "topic"


class UnknownEventType(EventError):
    """No handler is registered for the event's type; delivering it again would change nothing."""

    code = "events.unknown_type"


class InvalidEventData(EventError):
    """The event's data does not fit the type that its handler declares."""

    code = "events.invalid_data"


class SlowSubscriber(EventError):
    """A subscriber with the policy ``disconnect`` fell behind and was cut off; it may resume from `offset`."""

    code = "events.slow_subscriber"

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(message, hint=f"subscribe again from offset {offset}")
        self.offset = offset


class UnknownGroup(EventError):
    """No consumer group of that name exists."""

    code = "events.unknown_group"
    field = "group"


class DeliveryLost(EventError):
    """The caller does not hold the event any more, or never did under this fence."""

    code = "events.delivery_lost"
    field = "fence"


class PayloadTooLarge(EventError):
    """The event's encoded data is over the limit; it is not stored."""

    code = "events.payload_too_large"
    field = "data"


class EventStoreUnavailable(EventError):
    """The store cannot take or give events now (disk full, Redis down); nothing was acknowledged."""

    code = "events.store_unavailable"
    default_hint = "try again; nothing was stored"


class BusClosed(EventError):
    """The bus has been closed."""

    code = "events.closed"
