"""After a crash of the daemon: take over what serves, end what was half done, and whatever nobody remembers."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping

from fairway.apps.spec import AppSpec
from fairway.errors import FairwayError
from fairway.platform.app import HostedApp
from fairway.platform.host import Host
from fairway.platform.instance import Instance, end_containers
from fairway.platform.recipe import Recipe
from fairway.platform.state import InstanceRow
from fairway.run import proctable
from fairway.run.exitwatch import signal_exact
from fairway.run.process import Process
from fairway.run.release import Release, list_releases
from fairway.telemetry import log

_GRACE = 10.0


async def adopt_instances(host: Host, apps: Mapping[str, HostedApp]) -> int:
    """Take over the instances that serve; end the others, and those of apps that are not in the registry any more.

    An instance that was ``serving`` when the daemon ended serves on. One that was ``staged`` belongs to a deploy that
    was interrupted before its swap, one that was ``retiring`` to one interrupted after it: both are ended, with their
    grace, in the background. One whose processes have ended meanwhile is forgotten; `BringUp` starts what is missing.

    Returns:
        How many were taken over.
    """
    taken = 0
    known: dict[str, dict[str, Release]] = {}
    by_app: dict[str, list[InstanceRow]] = {}
    for row in host.state.instances():
        if host.head_start.holds(row):  # of this daemon's own
            continue
        by_app.setdefault(row.app, []).append(row)
    for name, rows in by_app.items():
        app = apps.get(name)
        releases = known.setdefault(name, {r.id: r for r in list_releases(host.layout.root, name)})
        adopted: list[Instance] = []
        for row in rows:
            instance = _adopt(host, app, row, releases) if row.standing == "serving" else None
            if instance is not None:
                adopted.append(instance)
            else:
                _end(host, row, app, releases.get(row.release))
        if app is not None and adopted:
            app.take(adopted, adopted[-1].recipe.release)
            taken += len(adopted)
        elif app is None:
            host.state.forget_app(name)
    if taken:
        log.get("platform").info("instances adopted", count=taken)
    return taken


def end_strays(host: Host) -> int:
    """Kill every process that carries this state folder's marker though no row knows it; returns how many.

    Such are instances whose daemon was killed between their start and the note of their pid, and what instances that
    have ended meanwhile left behind.
    """
    own = {r.record.marker for r in host.state.instances() if r.record is not None}
    own |= {r.record.marker for r in host.state.doors()}
    table = proctable.snapshot()
    ended = 0
    for pid, marker in proctable.marked(table, host.owner + "/").items():
        if marker not in own and pid not in proctable.ancestors(table):
            log.get("platform").warning("stray process ended", pid=pid, marker=marker)
            ended += signal_exact(pid, table[pid].started, signal.SIGKILL)
    return ended


def _adopt(host: Host, app: HostedApp | None, row: InstanceRow, releases: Mapping[str, Release]) -> Instance | None:
    release = releases.get(row.release)
    if app is None or release is None or row.process not in release.processes:
        return None
    return Instance.adopt(host, Recipe(app.spec, release, row.process), row)


def _end(host: Host, row: InstanceRow, app: HostedApp | None, release: Release | None) -> None:
    process = Process.adopt(row.record) if row.record is not None else None
    contained = release is not None and release.in_container  # its containers may run on without its client
    if process is None and not contained:
        host.state.remove_instance(row.app, row.process, row.number)
        return
    if row.port is not None:
        host.ports.claim(row.port)
    if contained and release is not None:
        work = _retire_contained(host, row, process, app, release)
    else:
        work = _retire(host, row, process)
    host.background.start(work, name=f"end {row.app}/{row.process}.{row.number}")


async def _retire(host: Host, row: InstanceRow, process: Process | None) -> None:
    if process is not None:
        try:
            await process.stop(_GRACE)
        except FairwayError as error:
            marker = row.record and row.record.marker
            log.get("platform").error("instance does not end", app=row.app, marker=marker, error=str(error))
            return
    if row.port is not None:
        host.ports.give_back(row.port)
    host.state.remove_instance(row.app, row.process, row.number)


async def _retire_contained(
    host: Host, row: InstanceRow, process: Process | None, app: HostedApp | None, release: Release
) -> None:
    """End what an engine runs of an instance; in the app's turn, for a Compose project is one for all instances."""
    spec = app.spec if app is not None else AppSpec(name=row.app, file=release.directory)
    recipe = Recipe(spec, release, row.process)
    async with contextlib.AsyncExitStack() as stack:
        if app is not None:
            await stack.enter_async_context(app.turn)
        failures = []
        if release.stop is not None:
            failures.append(await end_containers(recipe, release.stop, row.port, _GRACE))
        await _retire(host, row, process)
        if release.clear is not None:
            failures.append(await end_containers(recipe, release.clear, row.port, _GRACE))
    for failure in filter(None, failures):
        log.get("platform").error("containers left behind", app=row.app, error=failure)
