"""The faces of a daemon in the foreground: jobs, events and API; progress and the table on the terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

# What shows how it goes is imported once the daemon has begun to start processes: they need the time more.
if TYPE_CHECKING:
    from fairway.cli.progress import ProgressView
    from fairway.cli.project import Project
    from fairway.cli.watching import Outcome
    from fairway.concurrency import RecvChan
    from fairway.platform.daemon import Face, Services
    from fairway.platform.status import Progress

_REDRAW = 0.1


def faces(project: Project, *, background: bool) -> list[Face]:
    """Return what the daemon of `project` serves beside the apps.

    Args:
        project: Whose daemon.
        background: Without a terminal.
    """
    if background:
        return [_services_and_api]
    return [partial(_terminal, project), _services_and_api]


@asynccontextmanager
async def _services_and_api(daemon: Services) -> AsyncIterator[None]:
    """Jobs, events and the API; loaded in a thread while the apps start, so that neither waits for the other."""
    services = await asyncio.to_thread(import_module, "fairway.platform.services")
    face = await asyncio.to_thread(import_module, "fairway.api.face")
    async with services.job_and_event_services(daemon), face.api_face(daemon):
        yield


@asynccontextmanager
async def _terminal(project: Project, daemon: Services) -> AsyncIterator[None]:
    """A face of the daemon: progress while apps come up, then the table, then word of the end."""
    tasks = [asyncio.create_task(_show(project, daemon)), asyncio.create_task(_say_goodbye(daemon))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(project: Project, daemon: Services) -> None:
    """Draw progress until every app has come up or failed, print the table, then tell of later deploys line by line."""
    from fairway.cli.progress import ProgressView
    from fairway.cli.watching import print_outcome

    platform = daemon.platform
    steps = platform.subscribe()
    view = ProgressView()
    began = time.time()
    try:
        while platform.pending():
            _take_all(steps, view)
            view.draw()
            await asyncio.sleep(_REDRAW)
        _take_all(steps, view)
        view.finish()
        print_outcome(project, _outcome(daemon, began), "Ctrl-C stops everything")
        later = ProgressView(live=False)
        async for step in steps:
            later.update(step.app, step.phase, step.message)
    finally:
        view.finish()
        platform.unsubscribe(steps)


def _outcome(daemon: Services, began: float) -> Outcome:
    import msgspec

    from fairway.api.apps import app_list
    from fairway.cli.watching import Outcome

    told = msgspec.to_builtins(app_list(daemon.platform))
    wanted = daemon.config.apps
    apps = [app for app in told["apps"] if not wanted or app["name"] in wanted]
    tls = daemon.config.door.tls
    api = f"http://{daemon.config.api_host}:{daemon.config.api_port}"
    return Outcome(apps, told["problems"], api, began, tls.root if tls is not None else None)


def _take_all(steps: RecvChan[Progress], view: ProgressView) -> None:
    while (taken := steps.try_recv()) is not None and taken[0] is not None:
        view.update(taken[0].app, taken[0].phase, taken[0].message)


async def _say_goodbye(daemon: Services) -> None:
    """Say that the first Ctrl-C was understood."""
    import click

    from fairway.concurrency import SignalReceived

    await daemon.ctx.done().recv_ok()
    if isinstance(daemon.ctx.cause(), SignalReceived):
        click.echo("\nDraining and stopping… (Ctrl-C again stops at once)", err=True)
