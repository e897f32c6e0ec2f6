"""The stores behind `fairway.events.store`: memory, SQLite, Redis, and a daemon over HTTP."""

from __future__ import annotations

from fairway.events.errors import EventError
from fairway.events.store import EventStore


def open_event_store(url: str) -> EventStore:
    """Open the store that a URL names.

    ``memory://``, ``sqlite:///path``, ``redis://host:port/db`` (also ``rediss://``, ``valkey://``, ``valkeys://`` and
    ``unix://``), or ``http://host:port`` of a Fairway daemon, with the token in ``FAIRWAY_TOKEN``.

    Raises:
        EventError: No store is known for the scheme.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from fairway.events.stores.memory import MemoryEventStore

        return MemoryEventStore()
    if scheme == "sqlite":
        from fairway.events.stores.sqlite import SqliteEventStore

        return SqliteEventStore.open(url)
    if scheme in ("redis", "rediss", "valkey", "valkeys", "unix"):
        from fairway.events.stores.redis import RedisEventStore

        return RedisEventStore.open(url)
    if scheme in ("http", "https"):
        from fairway.events.stores.http import HttpEventStore

        return HttpEventStore(url)
    raise EventError(
        f"expected an event store such as memory://, sqlite:///path or redis://host/0, got {scheme!r}",
        hint="set the store's URL to one of these",
    )
