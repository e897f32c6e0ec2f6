"""The front half: takes sites and flows, publishes what happened, shows matches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fairway.concurrency import background, with_timeout
from fairway.events import Event, EventPublisher
from fairway.events.errors import EventStoreUnavailable
from fairway.events.publishers.store import StoreEventPublisher
from fairway.events.stores.http import HttpEventStore
from resource_flows.database import Database
from resource_flows.domain import ResourceFlow, Site
from resource_flows.service import FLOW_CREATED, SITE_CREATED, TOPIC

_PUBLISH_WITHIN = 5.0


def make_app(publisher: EventPublisher | None = None, database: Database | None = None) -> Starlette:
    """Return the web app; without arguments it uses ``FAIRWAY_URL`` and ``DATABASE_URL``."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        store = HttpEventStore(os.environ.get("FAIRWAY_URL", "http://127.0.0.1:7070"))
        app.state.publisher = publisher or StoreEventPublisher(store, topic=TOPIC)
        app.state.database = database or await Database.open()
        yield
        await store.close()
        if database is None:
            await app.state.database.close()

    routes = [
        Route("/", about),
        Route("/healthz", about),
        Route("/sites", create_site, methods=["POST"]),
        Route("/flows", create_flow, methods=["POST"]),
        Route("/flows/{flow_id}/matches", matches),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def about(request: Request) -> Response:
    """Say who is there."""
    return JSONResponse({"service": "resource-flows", "release": os.environ.get("FAIRWAY_RELEASE", "dev")})


async def create_site(request: Request) -> Response:
    """Take a site: 202, the event is stored."""
    return await _publish(request, Site, SITE_CREATED)


async def create_flow(request: Request) -> Response:
    """Take a flow: 202, the event is stored; its matches are computed behind it."""
    return await _publish(request, ResourceFlow, FLOW_CREATED)


async def matches(request: Request) -> Response:
    """Show the matches of a flow, best first."""
    found = await request.app.state.database.matches(request.path_params["flow_id"])
    return _reply(found)


async def _publish(request: Request, kind: type[Any], name: str) -> Response:
    try:
        thing = msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    flow_site = thing.site.id if isinstance(thing, ResourceFlow) else thing.id
    event = Event(name, msgspec.to_builtins(thing), source="resource-flows", partition_key=flow_site)
    key = request.headers.get("idempotency-key")
    if key:
        event = msgspec.structs.replace(event, id=key)
    try:
        async with with_timeout(background(), _PUBLISH_WITHIN) as ctx:
            await request.app.state.publisher.publish(ctx, event)
    except (EventStoreUnavailable, TimeoutError):
        return JSONResponse({"error": "the event could not be stored; try again"}, status_code=503)
    return _reply({"id": thing.id, "event": event.id}, 202)


def _reply(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


app = make_app()
