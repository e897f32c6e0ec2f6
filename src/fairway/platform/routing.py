"""The door's routes of one app: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fairway.apps.spec import AppSpec, Endpoint
from fairway.proxy.routes import Route, State, Target

# An instance that dies is noticed within milliseconds and replaced in a new table; requests that meet it wait for that.
PATIENCE = 2.0


class Upstream(msgspec.Struct, frozen=True):
    """One instance that the door may send requests to: unique id, port, release, the health checker's verdict."""

    id: str
    port: int
    release: str
    healthy: bool = True


def routes(
    app: AppSpec,
    upstreams: Sequence[Upstream],
    *,
    state: State = "serving",
    split: Mapping[str, int] | None = None,
    hold_timeout: float = 30.0,
) -> tuple[Route, ...]:
    """Return the routes of an app: its backend, and its frontend where that has a domain or path of its own.

    Args:
        app: The app.
        upstreams: Instances that serve.
        state: What the door does with requests, see `fairway.proxy.routes.Route`.
        split: Share of requests by release, or None for all alike.
        hold_timeout: Seconds that a held request waits.
    """
    if not upstreams and state == "serving":
        state = "unavailable"
    labelled = split or {}
    targets = tuple(
        Target(
            id=u.id,
            host="127.0.0.1",
            port=u.port,
            release=u.release if labelled else "",
            healthy=u.healthy,
        )
        for u in upstreams
    )
    common = {"state": state, "hold_timeout": max(0.1, min(hold_timeout, 3600.0)), "patience": PATIENCE}
    found = [
        Route(name=app.name, host=app.domain, path=app.backend.path, targets=targets, split=dict(labelled), **common)  # type: ignore[arg-type]  # a mapping of two types
    ]
    front = app.frontend
    if front is not None and (front.domain, front.path) not in {
        (None, app.backend.path),
        (app.domain, app.backend.path),
    }:
        found.append(_front(app, front, targets, labelled, common))
    return tuple(found)


def _front(
    app: AppSpec, front: Endpoint, targets: tuple[Target, ...], split: Mapping[str, int], common: Mapping[str, object]
) -> Route:
    if front.port is not None and front.port != app.backend.port:
        # A port that a Compose file publishes for the frontend, whatever serves the backend.
        targets = (Target(id=f"{app.name}/frontend@{front.port}", host="127.0.0.1", port=front.port),)
        split = {}
    return Route(
        name=f"{app.name}/frontend",
        host=front.domain or app.domain,
        path=front.path,
        targets=targets,
        split=dict(split),
        **common,  # type: ignore[arg-type]  # a mapping of two types
    )
