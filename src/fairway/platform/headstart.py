"""The head start: instances of unchanged apps, started before the daemon has loaded what it watches them with.

An app takes longer to come up than anything else, and needs the machine's processors for it, while loading the daemon
keeps only one of them busy. So where nothing has to be found out first, its processes are on their way before the event
loop is even imported: the last daemon has ended in order and left no instance behind, and the app's newest release is
of the source, entry and environment that are there now. Everything else takes the usual way, through `BringUp` and the
builder. What is started here is written down as everywhere: row before process, record after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.errors import FairwayError
from fairway.platform.machine import WEB, Machine, launch_digest, runs_once
from fairway.platform.state import InstanceRow
from fairway.run.spawn import Spawned

if TYPE_CHECKING:
    from fairway.apps.registry import Registry
    from fairway.apps.spec import AppSpec
    from fairway.platform.recipe import Recipe
    from fairway.run.release import Release
    from fairway.run.sources import Sources


class Early(msgspec.Struct, frozen=True):
    """An instance that runs and that nobody watches yet.

    Attributes:
        row: As it is written in the state file.
        spawned: Its process.
        log_from: Where its log stood before.
        started_at: When it was started, by the monotonic clock.
    """

    row: InstanceRow
    spawned: Spawned
    log_from: int
    started_at: float


class HeadStart(msgspec.Struct):
    """What was started early, until the start of its app takes it.

    Attributes:
        registry: The registry as it was read for it, or None where it was not.
        releases: The release that an app is to serve, by app.
        waiting: Instances that nobody has taken yet.
    """

    registry: Registry | None = None
    releases: dict[str, Release] = {}
    waiting: list[Early] = []

    def take_registry(self) -> Registry | None:
        """Return the registry as it was read a moment ago, once."""
        registry, self.registry = self.registry, None
        return registry

    def take_release(self, app: str) -> Release | None:
        """Return the release whose instances of `app` were started, once; None where none was."""
        return self.releases.pop(app, None)

    def take(self, recipe: Recipe) -> Early | None:
        """Return an instance of a recipe, which is the caller's from now on; None where none was started."""
        wanted = (recipe.app.name, recipe.process, launch_digest(recipe.app, recipe.release))
        for early in self.waiting:
            if (early.row.app, early.row.process, early.row.launch) == wanted:
                self.waiting.remove(early)
                return early
        return None

    def holds(self, row: InstanceRow) -> bool:
        """Say whether a row of the state file is that of an instance that waits here."""
        place = (row.app, row.process, row.number)
        return any((e.row.app, e.row.process, e.row.number) == place for e in self.waiting)

    def give_up(self, machine: Machine) -> None:
        """Kill what nobody has taken, and forget it: the daemon ends before it has begun, or wants something else."""
        while self.waiting:
            early = self.waiting.pop()
            early.spawned.kill()
            if early.row.port is not None:
                machine.ports.give_back(early.row.port)
            machine.state.remove_instance(early.row.app, early.row.process, early.row.number)

    def __repr__(self) -> str:
        return f"<HeadStart {len(self.waiting)} instances waiting>"


def begin(machine: Machine, head_start: HeadStart, folder: Path, only: tuple[str, ...]) -> None:
    """Start the instances of every app that can do without the usual way, the slowest app first.

    Args:
        machine: The machine, on which no instance runs.
        head_start: What is started is noted here at once, so that whoever interrupts this can end it.
        folder: Folder of registry files.
        only: Names of the apps to bring up; empty for all.
    """
    from fairway.apps.memory import Memory
    from fairway.apps.registry import load
    from fairway.platform.starts import Starts
    from fairway.run.sources import Sources

    with contextlib.suppress(FairwayError):  # the usual way reads it again, and says what is wrong
        head_start.registry = load(folder, memory=Memory(machine.layout.cache / "registry.json"))
    if head_start.registry is None:
        return
    apps = head_start.registry.apps
    if not all(name in apps for name in only):
        return
    sources = Sources(machine.layout.root / "cache" / "files")
    for name in Starts(machine.layout.cache / "starts.json").order(only or apps):
        # The usual way meets it again, and says what is wrong; what one app's files do is no other app's trouble.
        with contextlib.suppress(FairwayError, OSError, ValueError, RecursionError):
            _begin_app(machine, head_start, apps[name], sources)


def _begin_app(machine: Machine, head_start: HeadStart, app: AppSpec, sources: Sources) -> None:
    from fairway.run.unchanged import unchanged_release

    wanted = machine.state.app(app.name)
    if app.depends_on or wanted.wanted != "running" or wanted.pinned is not None or wanted.scale is not None:
        return
    release = unchanged_release(machine.layout.root, app, sources)
    if release is None or runs_once(app, release):
        return  # an earlier release, or an orphan of one, may hold the port that it insists on
    head_start.releases[app.name] = msgspec.structs.replace(release, cached=True)
    for recipe in _recipes(app, release):
        head_start.waiting.append(_start(machine, recipe))


def _recipes(app: AppSpec, release: Release) -> Iterable[Recipe]:
    from fairway.platform.recipe import Recipe

    for process in release.processes:
        for _ in range(app.replicas if process == WEB else 1):
            yield Recipe(app, release, process)


def _start(machine: Machine, recipe: Recipe) -> Early:
    from fairway.platform import loglines
    from fairway.platform.recipe import instance_log, launch, new_row, place

    row = new_row(machine, recipe)
    try:
        row = place(machine, recipe, row)
        log_from = loglines.size(instance_log(machine, row))
        started_at = machine.clock.monotonic()
        row, spawned = launch(machine, recipe, row)
    except (FairwayError, OSError):
        if row.port is not None:
            machine.ports.give_back(row.port)
        machine.state.remove_instance(row.app, row.process, row.number)
        raise
    return Early(row, spawned, log_from, started_at)
