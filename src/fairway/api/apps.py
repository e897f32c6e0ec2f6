"""Apps over HTTP: what there is, and what can be done with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api.operation import Query, operation, query_flag, read, reply
from fairway.api.problem import problem_of
from fairway.api.sse import ServerSentEvent, stream
from fairway.errors import FairwayError
from fairway.platform.status import AppStatus, DeployResult, Progress, ReleaseStatus

if TYPE_CHECKING:
    from fairway.concurrency import RecvChan
    from fairway.platform.platform import Platform


class DeployRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``plan``: only say what would be done."""

    plan: bool = False


class ScaleRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``replicas``: instances of ``web`` wanted, 0 to 100."""

    replicas: int


class RollbackRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``release``: id to go back to, or null for the one before the current."""

    release: str | None = None


class RegistryProblem(msgspec.Struct, kw_only=True):
    """Something wrong in a registry file, which is why its app is not served as it says.

    Attributes:
        file: The file.
        line: Line, or null where the file as a whole is meant.
        field: Path of the field, or empty.
        message: What was expected and what came.
        hint: The way out, or empty.
        code: Stable and dotted.
        app: Name of the app, where it could be read.
    """

    file: str
    line: int | None
    field: str
    message: str
    hint: str
    code: str
    app: str | None


class AppList(msgspec.Struct, kw_only=True):
    """``apps``: every app, ascending by name. ``problems``: what is wrong in the registry."""

    apps: list[AppStatus]
    problems: list[RegistryProblem] = []


class ReleaseList(msgspec.Struct, kw_only=True):
    """Releases of one app, newest first."""

    releases: list[ReleaseStatus]


def app_list(platform: Platform) -> AppList:
    """Return every app of `platform` and what is wrong in its registry."""
    problems = [
        RegistryProblem(
            file=str(problem.file),
            line=problem.mark.line if problem.mark else None,
            field=problem.field,
            message=problem.message,
            hint=problem.hint,
            code=problem.code,
            app=problem.app,
        )
        for problem in platform.problems
    ]
    return AppList(apps=platform.apps(), problems=problems)


_ERRORS = (404, 409, 422)


class _Apps:
    """Handlers over one platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    @operation("List the apps", tag="apps", response=AppList)
    async def list_apps(self, _request: Request) -> Response:
        """Answer with every app, its state, its URL and its instances."""
        return reply(app_list(self.platform))

    @operation("Show one app", tag="apps", response=AppStatus, errors=(404,))
    async def show_app(self, request: Request) -> Response:
        """Answer with one app."""
        return reply(self.platform.app(request.path_params["app"]))

    @operation("List the releases of an app", tag="apps", response=ReleaseList, errors=(404,))
    async def list_releases(self, request: Request) -> Response:
        """Answer with the releases, newest first."""
        return reply(ReleaseList(releases=self.platform.releases(request.path_params["app"])))

    @operation(
        "Deploy an app",
        tag="apps",
        body=DeployRequest,
        body_required=False,
        response=DeployResult,
        errors=_ERRORS,
    )
    async def deploy(self, request: Request) -> Response:
        """Build what the sources say now and switch to it; a client that accepts events is told the progress."""
        name = request.path_params["app"]
        asked = await read(request, DeployRequest, required=False)
        return await self._act(request, name, lambda: self.platform.deploy(name, plan=asked.plan))

    @operation("Restart an app", tag="apps", response=DeployResult, errors=_ERRORS)
    async def restart(self, request: Request) -> Response:
        """Replace every instance by a new one of the same release."""
        name = request.path_params["app"]
        return await self._act(request, name, lambda: self.platform.restart(name))

    @operation("Scale an app", tag="apps", body=ScaleRequest, response=DeployResult, errors=_ERRORS)
    async def scale(self, request: Request) -> Response:
        """Run as many instances of ``web`` as told."""
        name = request.path_params["app"]
        asked = await read(request, ScaleRequest)
        return await self._act(request, name, lambda: self.platform.scale(name, asked.replicas))

    @operation(
        "Roll an app back",
        tag="apps",
        body=RollbackRequest,
        body_required=False,
        response=DeployResult,
        errors=_ERRORS,
    )
    async def rollback(self, request: Request) -> Response:
        """Serve an earlier release again."""
        name = request.path_params["app"]
        asked = await read(request, RollbackRequest, required=False)
        return await self._act(request, name, lambda: self.platform.rollback(name, asked.release))

    @operation("Stop an app", tag="apps", response=DeployResult, errors=_ERRORS)
    async def stop(self, request: Request) -> Response:
        """Drain and stop the app; it stays stopped."""
        name = request.path_params["app"]
        return await self._act(request, name, lambda: self.platform.stop(name))

    @operation("Start an app that was stopped", tag="apps", response=DeployResult, errors=_ERRORS)
    async def start(self, request: Request) -> Response:
        """Start the app."""
        name = request.path_params["app"]
        return await self._act(request, name, lambda: self.platform.start_app(name))

    @operation(
        "Read the registry again",
        tag="apps",
        response=AppList,
        query=(
            Query("all", bool, "Begin to start the apps, too, that `fairway up NAME` has left out."),
            Query("begin", bool, "Answer once it has begun; `/readyz` tells when all have come up or failed."),
        ),
        errors=(422,),
    )
    async def reload(self, request: Request) -> Response:
        """Start new apps, stop removed ones, deploy changed ones."""
        await self.platform.reload(everything=query_flag(request, "all"), wait=not query_flag(request, "begin"))
        return reply(app_list(self.platform))

    @operation(
        "Follow the progress of builds and deploys",
        tag="apps",
        response=Progress,
        media_type="text/event-stream",
        query=[Query("app", list[str], "Only these apps.")],
    )
    async def progress(self, request: Request) -> Response:
        """Stream every step from now on as server-sent events."""
        return stream(_follow(self.platform, frozenset(request.query_params.getlist("app"))))

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/v1/apps", self.list_apps, methods=["GET"]),
            *(
                Route(f"/v1/apps/{{app}}:{verb}", handler, methods=["POST"])
                for verb, handler in {
                    "deploy": self.deploy,
                    "restart": self.restart,
                    "scale": self.scale,
                    "rollback": self.rollback,
                    "stop": self.stop,
                    "start": self.start,
                }.items()
            ),
            Route("/v1/apps/{app}/releases", self.list_releases, methods=["GET"]),
            Route("/v1/apps/{app}", self.show_app, methods=["GET"]),
            Route("/v1/registry:reload", self.reload, methods=["POST"]),
            Route("/v1/progress", self.progress, methods=["GET"]),
        ]

    async def _act(self, request: Request, name: str, act: Callable[[], Awaitable[DeployResult]]) -> Response:
        """Do it and answer with the result; with ``Accept: text/event-stream``, tell every step on the way."""
        if "text/event-stream" not in request.headers.get("accept", ""):
            return reply(await act())
        self.platform.app(name)  # an unknown app is a plain 404, before the stream begins
        return stream(_narrated(self.platform, name, act))


async def _follow(platform: Platform, apps: frozenset[str]) -> AsyncIterator[ServerSentEvent]:
    chan = platform.subscribe()
    try:
        async for step in chan:
            if not apps or step.app in apps:
                yield ServerSentEvent(data=step)
    finally:
        platform.unsubscribe(chan)


async def _narrated(
    platform: Platform, name: str, act: Callable[[], Awaitable[DeployResult]]
) -> AsyncIterator[ServerSentEvent]:
    """Yield ``progress`` events of one app while `act` runs, then one ``result`` or ``problem``.

    A client that goes away cancels the work as far as the platform lets it: up to the swap of routes.
    """
    chan: RecvChan[Progress] = platform.subscribe()
    work = asyncio.ensure_future(act())
    work.add_done_callback(lambda _done: platform.unsubscribe(chan))
    try:
        async for step in chan:
            if step.app == name:
                yield ServerSentEvent(event="progress", data=step)
        try:
            yield ServerSentEvent(event="result", data=await work)
        except FairwayError as error:
            yield ServerSentEvent(event="problem", data=problem_of(error))
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})


def routes(platform: Platform) -> list[BaseRoute]:
    """Return the routes over `platform`."""
    return _Apps(platform).routes()
