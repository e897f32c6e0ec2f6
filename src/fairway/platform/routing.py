"""The door's routes of one app: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fairway.apps.spec import AppSpec, DoorSpec, Endpoint
from fairway.proxy.routes import BasicAuth, HeaderMatch, Limits, RateLimit, Redirect, Route, State, Sticky, Target

# An instance that dies is noticed within milliseconds and replaced in a new table; requests that meet it wait for that.
PATIENCE = 2.0


class Upstream(msgspec.Struct, frozen=True):
    """One instance that the door may send requests to: unique id, port, release, the health checker's verdict."""

    id: str
    port: int
    release: str
    healthy: bool = True


class Public(msgspec.Struct, frozen=True):
    """Where clients reach the door: its port for HTTP, and the one for HTTPS or None."""

    http: int = 80
    https: int | None = None

    def url(self, host: str, path: str = "") -> str:
        """Return the URL of a host, by HTTPS where that is served."""
        if self.https is not None:
            return f"https://{host}{'' if self.https == 443 else f':{self.https}'}{path}"
        return f"http://{host}{'' if self.http == 80 else f':{self.http}'}{path}"


def notice(app: str, state: str) -> str:
    """Return what the door's 503 says of an app that is in this state, and what its operator can type."""
    match state:
        case "building":
            return f"{app} is being built. `fairway ps` says how far it is."
        case "blocked":
            return f"{app} waits for an app that it depends on. `fairway ps` says which."
        case "starting":
            return f"{app} is starting. `fairway logs {app}` shows what it prints."
        case "failed":
            return f"{app} has failed. `fairway ps` says why."
        case "stopped":
            return f"{app} is stopped. `fairway start {app}` starts it."
    return f"No instance of {app} is ready. `fairway ps {app}` says more."


def routes(
    app: AppSpec,
    upstreams: Sequence[Upstream],
    *,
    state: State = "serving",
    split: Mapping[str, int] | None = None,
    hold_timeout: float = 30.0,
    public: Public | None = None,
    notice: str = "",
) -> tuple[Route, ...]:
    """Return the routes of an app: its backend, that of each alias, and its frontend where that has a place of its own.

    Args:
        app: The app.
        upstreams: Instances that serve.
        state: What the door does with requests, see `fairway.proxy.routes.Route`.
        split: Share of requests by release, or None for all alike.
        hold_timeout: Seconds that a held request waits.
        public: Where clients reach the door, for redirects; None for port 80 alone.
        notice: What a 503 says.
    """
    if not upstreams and state == "serving":
        state = "unavailable"
    public = public or Public()
    labelled = split or {}
    targets = tuple(
        Target(
            id=u.id,
            host="127.0.0.1",
            port=u.port,
            release=u.release if labelled or app.door.sticky else "",
            healthy=u.healthy,
        )
        for u in upstreams
    )
    common = {
        "state": state,
        "hold_timeout": max(0.1, min(hold_timeout, 3600.0)),
        "notice": notice,
        "patience": PATIENCE,
        **_conditions(app.door),
    }
    backend = Route(
        name=app.name,
        host=app.domain,
        path=app.backend.path,
        targets=targets,
        split=dict(labelled),
        redirect=_to_https(app.door, app.domain, public),
        **common,
    )
    found = [backend, *_aliases(app, backend, public)]
    front = app.frontend
    if front is not None and (front.domain, front.path) not in {
        (None, app.backend.path),
        (app.domain, app.backend.path),
    }:
        host = front.domain or app.domain
        redirect = _to_https(app.door, host, public)
        found.append(_front(app, front, backend, {**common, "host": host, "redirect": redirect}))
    return tuple(found)


def _conditions(door: DoorSpec) -> dict[str, Any]:
    """Return what a registry entry asks of the door, as fields of a route."""
    rate = None
    if door.rate is not None:
        rate = RateLimit(rate=door.rate, burst=door.burst or max(1, math.ceil(door.rate)), key=door.rate_by)
    return {
        "limits": Limits(
            body_bytes=door.body_limit,
            header_bytes=door.header_limit,
            body_timeout=door.body_timeout,
            upstream_timeout=door.upstream_timeout,
            rate=rate,
            concurrency=door.max_requests,
        ),
        "balance": door.balance,
        "sticky": Sticky(cookie=door.sticky) if door.sticky else None,
        "strip": door.strip,
        "methods": door.methods,
        "headers": tuple(HeaderMatch(name=name, value=value) for name, value in door.headers.items()),
        "auth": BasicAuth(users=door.basic_auth) if door.basic_auth else None,
        "allow": door.allow,
    }


def _to_https(door: DoorSpec, host: str, public: Public) -> Redirect | None:
    if "https" not in door.redirect or public.https is None:
        return None
    return Redirect(location=public.url(host), keep_path=True, when="insecure")


def _aliases(app: AppSpec, backend: Route, public: Public) -> list[Route]:
    found = []
    for number, alias in enumerate(app.door.aliases):
        redirect = _to_https(app.door, alias, public)
        if "aliases" in app.door.redirect:
            redirect = Redirect(location=public.url(app.domain), keep_path=True)
        name = f"{app.name}/alias.{number}"
        found.append(msgspec.structs.replace(backend, name=name, host=alias, redirect=redirect))
    return found


def _front(app: AppSpec, front: Endpoint, backend: Route, common: Mapping[str, Any]) -> Route:
    targets, split = backend.targets, backend.split
    if front.port is not None and front.port != app.backend.port:
        # A port that a Compose file publishes for the frontend, whatever serves the backend.
        targets = (Target(id=f"{app.name}/frontend@{front.port}", host="127.0.0.1", port=front.port),)
        split = {}
    return Route(name=f"{app.name}/frontend", path=front.path, targets=targets, split=split, **common)
