"""The daemon's own job queue and event bus, for every app that it hosts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.events.store import EventStore
    from fairway.platform.daemon import Services

_KEEP = 7 * 86_400.0
_TRIM_EVERY = 3600.0


@asynccontextmanager
async def job_and_event_services(daemon: Services) -> AsyncIterator[None]:
    """A face that opens what the other faces serve: `extras` gets ``jobs``, ``events`` and ``webhooks``.

    The stores are SQLite files in the state folder, or what ``FAIRWAY_JOBS_URL`` and ``FAIRWAY_EVENTS_URL`` name
    (``redis://host/0``), so that a Redis takes over without a change to any app. Events are kept for seven days, and
    longer where a consumer group still needs them.

    Raises:
        StoreUnavailable, EventStoreUnavailable: A store cannot be opened.
    """
    from fairway.events import EventBus
    from fairway.jobs.opening import open_store
    from fairway.jobs.service import JobService
    from fairway.platform.webhooks import Webhooks

    layout = daemon.layout
    jobs = os.environ.get("FAIRWAY_JOBS_URL") or f"sqlite:///{layout.jobs_database}"
    events = os.environ.get("FAIRWAY_EVENTS_URL") or f"sqlite:///{layout.events_database}"
    async with (
        JobService(open_store(jobs)) as service,
        EventBus(events) as bus,
        Webhooks(service, bus, layout) as webhooks,
    ):
        daemon.extras.update(jobs=service, events=bus, webhooks=webhooks)
        async with event_retention(bus.store):
            yield


@asynccontextmanager
async def event_retention(store: EventStore) -> AsyncIterator[None]:
    """Remove events older than seven days that no group needs, every hour, for the length of the block."""
    trimming = asyncio.create_task(_trim(store), name="event retention")
    try:
        yield
    finally:
        trimming.cancel()
        await asyncio.wait((trimming,))


async def _trim(store: EventStore) -> None:
    from fairway.events.errors import EventStoreUnavailable
    from fairway.telemetry import log

    while True:
        try:
            removed = await store.trim(time.time() - _KEEP)
        except EventStoreUnavailable as error:
            log.get("events").warning("retention put off", error=str(error))
        except Exception:
            log.get("events").exception("retention failed; trying again later")
        else:
            log.get("events").debug("retention", removed=removed)
        await asyncio.sleep(_TRIM_EVERY)
