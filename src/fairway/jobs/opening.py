"""From a URL to the store that it names."""

from __future__ import annotations

from urllib.parse import urlsplit

from fairway.jobs.errors import JobError
from fairway.jobs.store import Store, StoreOptions


def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """Return the store that `url` names, not opened yet.

    Args:
        url: ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``redis://host:port/0`` (also
            ``rediss://``, ``unix://``, ``valkey://``; several nodes of a cluster with commas between), or
            ``http://host:port`` of a Fairway daemon that keeps the store.
        options: Bounds, or None for the defaults.

    Raises:
        JobError: No store has this scheme.
    """
    options = options or StoreOptions()
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        from fairway.jobs.stores.memory import MemoryStore

        return MemoryStore(options)
    if scheme == "sqlite":
        from fairway.jobs.stores.sqlite import SqliteStore

        return SqliteStore.from_url(url, options)
    if scheme in {"redis", "rediss", "unix", "valkey", "valkeys", "redis+cluster", "rediss+cluster"}:
        from fairway.jobs.stores.redis import RedisStore

        return RedisStore.from_url(url, options)
    if scheme in {"http", "https", "http+unix"}:
        from fairway.jobs.client import HttpStore

        return HttpStore(url, options)
    raise JobError(
        f"expected a store URL that starts with memory://, sqlite:///, redis:// or http://, got {url!r}",
        code="jobs.store_url",
    )
