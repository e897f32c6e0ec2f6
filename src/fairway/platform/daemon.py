"""The daemon: joins the services, and ends so that nothing is lost whether it is asked to or killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.concurrency import Context, Shutdown, notify_context
from fairway.platform.doors import Doors, DoorSetup
from fairway.platform.errors import StateDirError
from fairway.platform.host import Host, app_environment
from fairway.platform.layout import Layout
from fairway.platform.listen import listen
from fairway.platform.lock import DaemonLock
from fairway.platform.state import StateStore
from fairway.run import cgroup

# The rest is imported in `_run`, when the door's process is on its way already: it takes as long to start.
if TYPE_CHECKING:
    import socket

    from fairway.health.checker import HealthChecker
    from fairway.logs.service import LogService
    from fairway.platform.platform import Platform

_END_GRACE = 60.0
_API_PATIENCE = 1.0  # seconds


class DaemonConfig(msgspec.Struct, frozen=True):
    """How the daemon runs.

    Attributes:
        registry: Folder of registry files.
        state_dir: State folder; None for ``.fairway`` two folders above the registry (the project's root).
        door_host: Address the door listens on.
        door_port: Port the door listens on.
        door_workers: Door processes that share the port, >= 1.
        door: What they are started with: HTTPS, access log, trusted networks.
        api_host: Address of the HTTP API.
        api_port: Port of the HTTP API.
        apps: Names to bring up; empty for all.
        watch: Reload when registry files change.
        stop_apps_on_exit: Stop instances and door when the daemon ends in order (Ctrl-C); False leaves them to be
            adopted by the next daemon.
    """

    registry: Path
    state_dir: Path | None = None
    door_host: str = "127.0.0.1"
    door_port: int = 8080
    door_workers: int = 1
    door: DoorSetup = msgspec.field(default_factory=DoorSetup)
    api_host: str = "127.0.0.1"
    api_port: int = 7070
    apps: tuple[str, ...] = ()
    watch: bool = True
    stop_apps_on_exit: bool = True

    @property
    def layout(self) -> Layout:
        """Paths of the state folder."""
        return Layout(self.state_dir or self.registry.absolute().parent.parent / ".fairway")


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
    layout = config.layout
    try:
        layout.create()
    except OSError as error:
        raise StateDirError(
            f"expected to write the state folder {layout.root}, got: {error.strerror}",
            hint="Run it as the folder's owner, or set FAIRWAY_STATE_DIR to a folder that can be written.",
        ) from error
    with DaemonLock(layout.lock) as lock:
        state = StateStore(layout.database)
        try:
            async with notify_context() as ctx, Shutdown(ctx, grace=_END_GRACE) as shutdown:
                host = Host(layout, state, app_environment(layout, _api_url(config)))
                doors = Doors(host, (config.door_host, config.door_port), config.door_workers, config.door)
                # Every port is asked for before anything is touched.
                doors.check_port()
                doors.check_certificates()
                with listen(config.api_host, config.api_port, what="API", option="--api") as listener:
                    lock.write(_api_url(config))
                    await _run(config, faces, host, doors, listener=listener, shutdown=shutdown)
        finally:
            state.close()


async def _run(
    config: DaemonConfig, faces: Faces, host: Host, doors: Doors, *, listener: socket.socket, shutdown: Shutdown
) -> None:
    layout, ctx, background = host.layout, shutdown.ctx, host.background
    doors.begin()
    host.hierarchies = cgroup.discover(host.owner)

    from fairway.run.reaper import become_subreaper

    become_subreaper()  # before there is an instance that could lose a child

    from fairway.health.checker import HealthChecker
    from fairway.platform.platform import Platform
    from fairway.platform.watch import look, watch_registry
    from fairway.run.builder import Builder

    checker = HealthChecker()
    platform = Platform(host, doors, Builder(layout.root), config.registry, checker=checker, only=config.apps)
    stack = AsyncExitStack()
    shutdown.hook("faces", stack.aclose, order=10)
    shutdown.hook("platform", _end_platform, platform, host, config.stop_apps_on_exit, order=20)
    shutdown.hook("background", background.cancel, order=30)
    background.start(checker.run(ctx), name="health")
    seen = look(config.registry)
    starting = asyncio.ensure_future(platform.start(ctx))

    async def reload() -> None:
        await asyncio.wait({starting})  # a file that changes while the apps come up is read once they have
        await platform.reload()

    # The apps come first. Whoever calls the API meanwhile waits in its socket; a first build takes longer than that.
    await asyncio.wait({starting}, timeout=_API_PATIENCE)
    if config.watch:
        background.start(watch_registry(ctx, config.registry, seen, reload), name="registry watch")
    from fairway.logs.service import LogService
    from fairway.platform.housekeeping import keep_house
    from fairway.platform.logfiles import LogFiles

    logs = LogService(LogFiles(layout))
    services = Services(ctx, config, layout, platform, layout.token(), checker, logs)
    services.extras["app_token"] = layout.app_token()
    services.shutdown, services.api_listener = shutdown.begin, listener
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
    await _until(starting, ctx)
    await shutdown.wait()


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


def _api_url(config: DaemonConfig) -> str:
    """Return where whoever is on this machine reaches the API: a wildcard address by the loopback one."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(config.api_host, config.api_host)  # noqa: S104  # read, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{config.api_port}"


def run(config: DaemonConfig, faces: Faces = ()) -> None:
    """Run `serve` on uvloop, or on asyncio's own loop where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(config, faces))
    else:
        uvloop.run(serve(config, faces))
