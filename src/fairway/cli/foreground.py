"""The daemon in this process: its faces, its log, its progress on the terminal, its end by Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

import click

from fairway.cli import exits
from fairway.cli.project import Project
from fairway.telemetry import log

# What shows how it goes is imported once the daemon has begun to start processes: they need the time more.
if TYPE_CHECKING:
    from fairway.cli.progress import ProgressView
    from fairway.cli.watching import Outcome
    from fairway.concurrency import RecvChan
    from fairway.platform.daemon import DaemonConfig, Face, Services
    from fairway.platform.status import Progress

_REDRAW = 0.1


def run(project: Project, config: DaemonConfig, *, background: bool) -> int:
    """Run the daemon until it is told to end; return the exit status.

    Args:
        project: Whose daemon.
        config: How it runs.
        background: Started by `up -d`: everything goes to the daemon's log as JSON, nothing to a terminal.
    """
    from fairway.cli.stopping import stop_leftovers
    from fairway.platform.daemon import run as run_daemon

    faces: list[Face] = [_services_and_api]
    if background:
        log.configure(stream=sys.stderr, json=True)
    else:
        # The terminal belongs to the progress and the table; the daemon's own lines go where `-d` puts them.
        log.configure(stream=_own_log(project), json=True)
        faces.insert(0, partial(_terminal, project))
    try:
        run_daemon(config, faces)
    except KeyboardInterrupt:
        pass  # a third Ctrl-C, which met the daemon as it dropped everything: what it left is ended below
    # A second Ctrl-C makes the daemon drop everything where it stands; nothing of it may stay behind, whatever comes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    count = stop_leftovers(project, grace=0.0)
    if not background:
        click.echo(f"Killed {count} processes." if count else "Stopped.")
    return exits.INTERRUPTED if count else exits.OK


def _own_log(project: Project) -> TextIO:
    path = project.layout.daemon_log
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return open(file, "a", buffering=1, encoding="utf-8")
    except OSError:
        return sys.stderr  # the daemon is about to say, in its own words, that it cannot write there


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
    from fairway.concurrency import SignalReceived

    await daemon.ctx.done().recv_ok()
    if isinstance(daemon.ctx.cause(), SignalReceived):
        click.echo("\nDraining and stopping… (Ctrl-C again stops at once)", err=True)
