"""The API as a face of the daemon: `fairway.platform.daemon.serve(config, faces=[api_face])`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fairway.api.app import Services, create_app
from fairway.api.guard import GuardPolicy
from fairway.api.measures import measure
from fairway.api.server import serve
from fairway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from fairway.platform.daemon import Services as DaemonServices


@asynccontextmanager
async def api_face(daemon: DaemonServices) -> AsyncIterator[tuple[str, int]]:
    """Serve the HTTP API of a daemon for the block; yields the address and port.

    ``FAIRWAY_API_HOSTS`` names further hosts, separated by commas, under which it may be called.

    Raises:
        PortTaken: Another program listens there.
    """
    services = Services(
        platform=daemon.platform,
        health=daemon.health,
        logs=daemon.logs,
        jobs=daemon.extras.get("jobs"),
        events=daemon.extras.get("events"),
        webhooks=daemon.extras.get("webhooks"),
        metrics=measure(
            daemon.extras.setdefault("metrics", Metrics()),
            *(daemon.platform, daemon.health, daemon.logs),
            events=daemon.extras.get("events"),
        ),
        token=daemon.token,
        app_token=daemon.layout.app_token(),
    )
    config = daemon.config
    named = os.environ.get("FAIRWAY_API_HOSTS", "").lower().replace(",", " ").split()
    policy = GuardPolicy(token=services.token, app_token=services.app_token, hosts=frozenset(named))
    app = create_app(services, policy=policy)
    unix, listener = daemon.layout.api_socket, daemon.api_listener
    async with serve(app, host=config.api_host, port=config.api_port, unix=unix, listener=listener) as bound:
        try:
            yield bound
        finally:
            if services.events is not None:
                services.events.end_subscriptions()  # else the server waits for their streams, and cuts them
