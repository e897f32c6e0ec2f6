"""The daemon's own job queue and event bus, for every app that it hosts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.events import Retention
    from fairway.platform.daemon import Services


@asynccontextmanager
async def job_and_event_services(daemon: Services) -> AsyncIterator[None]:
    """A face that opens what the other faces serve: `extras` gets ``jobs``, ``events`` and ``webhooks``.

    The stores are SQLite files in the state folder, or what ``FAIRWAY_JOBS_URL`` and ``FAIRWAY_EVENTS_URL`` name
    (``redis://host/0``), so that a Redis takes over without a change to any app. Events are kept as `event_retention`
    says.

    Raises:
        StoreUnavailable, EventStoreUnavailable: A store cannot be opened.
        EventError: The retention is of another form.
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
        EventBus(events, retention=event_retention()) as bus,
        Webhooks(service, bus, layout) as webhooks,
    ):
        daemon.extras.update(jobs=service, events=bus, webhooks=webhooks)
        yield


def event_retention() -> Retention:
    """Return how long events are kept: what ``FAIRWAY_EVENTS_RETENTION`` says in YAML, or else the default.

    Raises:
        EventError: It is no YAML, or a field is of another form.
    """
    import yaml

    from fairway.events import Retention
    from fairway.events.errors import EventError

    text = os.environ.get("FAIRWAY_EVENTS_RETENTION", "")
    if not text.strip():
        return Retention()
    try:
        values = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except yaml.YAMLError as error:
        raise EventError(f"expected FAIRWAY_EVENTS_RETENTION in YAML such as {{keep: 7d}}: {error}") from error
    return Retention.parse(values)
