"""What the API speaks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Services:
    """What the API speaks for; the routes of what is None are absent.

    Attributes:
        platform: `fairway.platform.Platform`: apps, deploys, releases.
        jobs: The job service of `fairway.jobs`.
        events: The event bus of `fairway.events`.
        webhooks: `fairway.platform.webhooks.Webhooks`.
        logs: `fairway.logs.service.LogService`.
        health: `fairway.health.checker.HealthChecker`.
        metrics: `fairway.telemetry.metrics.Metrics`.
        token: Bearer token of administrators over TCP; None leaves TCP open, for tests and single services only.
        app_token: Bearer token of hosted apps: jobs, events and nothing else.
    """

    platform: Any = None
    jobs: Any = None
    events: Any = None
    webhooks: Any = None
    logs: Any = None
    health: Any = None
    metrics: Any = None
    token: str | None = None
    app_token: str | None = None
