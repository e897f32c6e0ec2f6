"""Health over HTTP: what is known now, and every change as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api.operation import Query, operation, query_flag, query_values, reply
from fairway.api.sse import ServerSentEvent, stream
from fairway.health.state import HealthStatus
from fairway.platform.errors import UnknownApp

if TYPE_CHECKING:
    from fairway.health.checker import HealthChecker


class HealthReport(msgspec.Struct, kw_only=True):
    """What is known of every target.

    Attributes:
        healthy: Whether no target is unhealthy or stale.
        targets: Every target, ascending by key.
    """

    healthy: bool
    targets: list[HealthStatus]


def routes(checker: HealthChecker) -> list[BaseRoute]:
    """Return the routes over `checker`."""

    @operation(
        "Show the health of every app",
        tag="health",
        response=HealthReport,
        query=[
            Query("app", list[str], "Only these apps."),
            Query("follow", bool, "Stream changes as server-sent events; `Last-Event-ID` resumes."),
        ],
        errors=(404, 422),
    )
    async def health(request: Request) -> Response:
        """Answer with what is known now, or stream: one ``snapshot``, then a ``change`` at a time."""
        apps = frozenset(query_values(request, "app"))
        _check_known(request, apps, {status.app for status in checker.statuses()})
        if not query_flag(request, "follow"):
            return reply(_report(checker, apps))
        return stream(_changes(checker, apps, request.headers.get("last-event-id")))

    return [Route("/v1/health", health, methods=["GET"])]


def _check_known(request: Request, apps: frozenset[str], checked: set[str]) -> None:
    """Raise `UnknownApp` unless each of these apps is checked, or one of the platform's that does not run."""
    platform = request.app.state.services.platform
    for name in sorted(apps - checked):
        if platform is None:
            raise UnknownApp(name, checked)
        platform.app(name)


def _report(checker: HealthChecker, apps: frozenset[str]) -> HealthReport:
    targets = [status for status in checker.statuses() if not apps or status.app in apps]
    return HealthReport(healthy=all(status.state not in {"unhealthy", "stale"} for status in targets), targets=targets)


async def _changes(checker: HealthChecker, apps: frozenset[str], after: str | None) -> AsyncIterator[ServerSentEvent]:
    with checker.subscribe(after) as changes:
        yield ServerSentEvent(event="snapshot", data=_report(checker, apps))
        async for event in changes:
            if not apps or event.status.app in apps:
                yield ServerSentEvent(event="change", data=event, id=event.id)
