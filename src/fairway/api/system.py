"""Liveness, readiness, metrics and the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api.operation import operation, reply

if TYPE_CHECKING:
    from fairway.api.services import Services


class Ready(msgspec.Struct, kw_only=True):
    """Whether the daemon takes requests.

    Attributes:
        ready: True once it does.
        waiting_for: What it still waits for, in words.
    """

    ready: bool
    waiting_for: list[str] = []


@operation("Say that the process answers", tag="system", response=dict[str, str], public=True)
async def healthz(_request: Request) -> Response:
    """Answer 200 while the loop turns."""
    return reply({"status": "ok"})


@operation("Say whether every part is ready", tag="system", response=Ready, errors=(503,), public=True)
async def readyz(request: Request) -> Response:
    """Answer 200 when the daemon takes requests, else 503 with what it waits for."""
    services: Services = request.app.state.services
    pending = getattr(services.platform, "pending", None)
    waiting = list(pending()) if callable(pending) else []
    return reply(Ready(ready=not waiting, waiting_for=waiting), 503 if waiting else 200)


@operation("Metrics in Prometheus' text format", tag="system", media_type="text/plain")
async def metrics(request: Request) -> Response:
    """Answer with every metric of the daemon, and those that the door's workers count themselves."""
    services: Services = request.app.state.services
    of_door = getattr(services.platform, "door_metrics", None)
    door = await of_door() if callable(of_door) else ""
    body, content_type = services.metrics.render()
    body += door.encode()
    return Response(body, media_type=None, headers={"content-type": content_type})


@operation("This document", tag="system", response=dict[str, Any], public=True)
async def openapi(request: Request) -> Response:
    """Answer with the OpenAPI document of what is mounted."""
    from fairway.api.openapi import document

    return reply(document(request.app.routes))


def routes(services: Services) -> list[BaseRoute]:
    """Return the routes that are there whatever is served."""
    found: list[BaseRoute] = [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
    if services.metrics is not None:
        found.append(Route("/metrics", metrics, methods=["GET"]))
    return found
