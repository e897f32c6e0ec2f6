"""The daemon: joins the services, and ends so that nothing is lost whether it is asked to or killed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.concurrency import Context, Shutdown, notify_context
from fairway.platform.doors import Doors
from fairway.platform.host import Host
from fairway.platform.opening import Opening, opened
from fairway.run import cgroup

# The rest is imported in `_run`, when the door's process is on its way already: it takes as long to start.
if TYPE_CHECKING:
    import socket

    from fairway.health.checker import HealthChecker
    from fairway.logs.service import LogService
    from fairway.platform.config import DaemonConfig
    from fairway.platform.layout import Layout
    from fairway.platform.platform import Platform
    from fairway.run.builder import Builder

_END_GRACE = 60.0
_API_PATIENCE = 1.0  # seconds


class Services(msgspec.Struct):
    """What the daemon hands to each face.

    Attributes:
        ctx: Done when the daemon is to end; its cause says why.
        config: What the daemon was started with.
        layout: Paths of the state folder.
        platform: The platform.
        token: Bearer token that the API asks for.
        health: The `fairway.health` checker that the platform feeds with instances.
        logs: The `fairway.logs` service over the log folder.
        extras: Further services by name, for faces that share one; ``app_token`` is what hosted apps are given.
        shutdown: Begin the daemon's end, as Ctrl-C does.
        api_listener: Socket that listens for the HTTP API already; apps that come up before it is loaded wait there.
    """

    ctx: Context
    config: DaemonConfig
    layout: Layout
    platform: Platform
    token: str
    health: HealthChecker
    logs: LogService
    extras: dict[str, Any] = {}
    shutdown: Callable[[], None] = lambda: None
    api_listener: socket.socket | None = None


Face = Callable[[Services], AbstractAsyncContextManager[object]]
"""A face: entered, it serves (or raises `PortTaken`); left, it has stopped. Entered while the apps come up."""

Faces = Sequence[Face]


async def serve(config: DaemonConfig, faces: Faces = ()) -> None:
    """Run the daemon until SIGINT or SIGTERM, or until `Services.shutdown` is called.

    Killed instead, it loses nothing: started again on the same state folder, it takes over instances and door.

    Args:
        config: How.
        faces: What is served beside the apps (HTTP, gRPC, a progress display).

    Raises:
        StateDirError: The state folder cannot be written.
        AlreadyRunning: Another daemon holds it.
        PortTaken: A port is held by another program; the message names it.
        UnknownApp: `DaemonConfig.apps` names one that is not in the registry.
    """
    with opened(config) as opening:
        await _serve(opening, faces)


async def _serve(opening: Opening, faces: Faces) -> None:
    async with notify_context() as ctx, Shutdown(ctx, grace=_END_GRACE) as shutdown:
        machine = opening.machine
        host = Host(
            machine.layout,
            machine.state,
            machine.env,
            machine.hierarchies,
            machine.ports,
            head_start=opening.head_start,
        )
        await _run(opening, faces, host, Doors(host, opening.plan, opening.doors), shutdown=shutdown)


async def _run(opening: Opening, faces: Faces, host: Host, doors: Doors, *, shutdown: Shutdown) -> None:
    config, layout, ctx, background = opening.config, host.layout, shutdown.ctx, host.background
    doors.begin()

    from fairway.health.checker import HealthChecker
    from fairway.platform.platform import Platform
    from fairway.platform.watch import watch_registry

    checker = HealthChecker()
    platform = Platform(host, doors, lambda: _builder(layout), config.registry, checker=checker, only=config.apps)
    stack = AsyncExitStack()
    shutdown.hook("faces", stack.aclose, order=10)
    shutdown.hook("platform", _end_platform, platform, host, config.stop_apps_on_exit, order=20)
    shutdown.hook("background", background.cancel, order=30)
    background.start(checker.run(ctx), name="health")
    starting = asyncio.ensure_future(platform.start(ctx))

    async def reload() -> None:
        await asyncio.wait({starting})  # a file that changes while the apps come up is read once they have
        await platform.reload()

    # The apps come first. Whoever calls the API meanwhile waits in its socket; a first build takes longer than that.
    await asyncio.wait({starting}, timeout=_API_PATIENCE)
    gc.enable()
    if config.watch:
        background.start(watch_registry(ctx, config.registry, opening.seen, reload), name="registry watch")
    from fairway.logs.service import LogService
    from fairway.platform.housekeeping import keep_house
    from fairway.platform.logfiles import LogFiles

    logs = LogService(LogFiles(layout))
    services = Services(ctx, config, layout, platform, layout.token(), checker, logs)
    services.extras["app_token"] = layout.app_token()
    services.shutdown, services.api_listener = shutdown.begin, opening.listener
    background.start(logs.run(ctx), name="logs")
    background.start(doors.follow_certificates(ctx), name="certificates")
    background.start(keep_house(ctx, host, platform.instances), name="housekeeping")
    try:
        for face in faces:
            await stack.enter_async_context(face(services))
    except BaseException:
        starting.cancel()
        await asyncio.wait({starting})
        raise
    # What lives now lives to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await _until(starting, ctx)
    await shutdown.wait()


def _builder(layout: Layout) -> Builder:
    from fairway.run.builder import Builder  # not for a start at which nothing has changed

    return Builder(layout.root)


async def _until(starting: asyncio.Future[None], ctx: Context) -> None:
    """Wait for the start, or for the daemon's end, which cuts it short."""

    async def ended() -> None:
        await ctx.done().recv_ok()

    ending = asyncio.ensure_future(ended())
    try:
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        if not starting.done():
            starting.cancel()
        await asyncio.wait({starting, ending})
    if not starting.cancelled():
        starting.result()


async def _end_platform(platform: Platform, host: Host, stop_apps: bool) -> None:
    await platform.end(stop_apps=stop_apps)
    if stop_apps:
        await host.background.wait(1.0)
        await asyncio.to_thread(cgroup.remove_base, host.hierarchies)


def run(opening: Opening, faces: Faces = ()) -> None:
    """Run a daemon that was opened as `serve` does, on uvloop, or on asyncio's own loop where that is not installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(opening, faces))
    else:
        uvloop.run(_serve(opening, faces))
