"""The HTTP face: one Starlette application over whatever services it is given.

To mount another service: give `Services` a field for it and add one line to `MODULES`; the module is imported only
where the service is there. Its `routes(service)` returns Starlette routes whose handlers carry an
`fairway.api.operation.operation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from fairway.api import problem
from fairway.api.guard import Guard, GuardPolicy
from fairway.api.services import Services
from fairway.errors import FairwayError

__all__ = ["MODULES", "Services", "create_app"]

# field of Services -> module whose routes(service) is mounted
MODULES: dict[str, str] = {
    "platform": "fairway.api.apps",
    "jobs": "fairway.api.jobs",
    "events": "fairway.api.events",
    "webhooks": "fairway.api.webhooks",
    "logs": "fairway.api.logs",
    "health": "fairway.api.health",
}


def create_app(services: Services, *, pages: Sequence[BaseRoute] = (), policy: GuardPolicy | None = None) -> ASGIApp:
    """Return the ASGI application.

    Args:
        services: What there is to serve.
        pages: Further routes, such as the dashboard's.
        policy: Hosts, body limit and open paths; None takes the defaults with the tokens of `services`.
    """
    from fairway.api import system

    routes: list[BaseRoute] = []
    for field, module in MODULES.items():
        service = getattr(services, field)
        if service is not None:
            routes += import_module(module).routes(service)
    routes += system.routes(services)
    app = Starlette(
        routes=[*routes, *pages],
        exception_handlers={
            FairwayError: problem.on_fairway_error,
            HTTPException: problem.on_http_exception,
            Exception: problem.on_bug,
        },
    )
    app.router.redirect_slashes = False
    app.state.services = services
    guard = Guard(app, policy or GuardPolicy(token=services.token, app_token=services.app_token))
    if services.jobs is not None:
        from fairway.api.short import ShortEnqueue

        guard.short = ShortEnqueue(guard, services.jobs)
    return guard
