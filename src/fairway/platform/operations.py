"""What can be done to one hosted app: each operation decides a target state, plans, and has the plan carried out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fairway.concurrency import Chan
from fairway.errors import FairwayError
from fairway.platform import rollout
from fairway.platform.deploy import Rollout, units, upstreams
from fairway.platform.errors import AppStopped, DeployFailed, InvalidRequest, UnknownRelease, explain
from fairway.platform.host import WEB, Host, fixed_port, launch_digest, runs_once
from fairway.platform.status import DeployResult, Phase, ReleaseStatus
from fairway.run import environment
from fairway.run.failure import BuildError
from fairway.run.progress import BuildProgress
from fairway.run.release import Release, list_releases, prune_releases
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec
    from fairway.concurrency import Context
    from fairway.platform.app import HostedApp
    from fairway.platform.doors import Doors
    from fairway.platform.instance import Instance
    from fairway.run.builder import Builder

MAX_SCALE = 100
_PHASES: dict[str, Phase] = {"check": "detect", "toolchain": "toolchain"}


class Operations:
    """Operations on apps; each takes the app's turn first, so that work on one app is serial.

    Args:
        host: The machine.
        doors: The door.
        make_builder: Makes what builds releases, when something has to be built.
        ctx: Done when the daemon ends: builds are given up then.
    """

    def __init__(self, host: Host, doors: Doors, make_builder: Callable[[], Builder], ctx: Context) -> None:
        self._host = host
        self._doors = doors
        self._make_builder = make_builder
        self._builder: Builder | None = None
        self._ctx = ctx

    async def bring_up(self, app: HostedApp) -> DeployResult:
        """Bring an app to what registry and sources say, unless it was stopped or pinned by a rollback.

        Raises:
            DeployFailed: It could not be built or started; what served before serves on.
        """
        async with app.turn:
            if app.row.wanted == "stopped":
                return self._result(app, "start", time.monotonic(), (), message="stays stopped")
            if app.row.pinned is not None:
                pinned = self._find(app, app.row.pinned)
                if pinned is not None:
                    return await self._roll_out(app, pinned, "start")
            early = self._host.head_start.take_release(app.name)
            if early is not None:
                self._tell(app, "build", f"release {early.id}")
                return await self._roll_out(app, early, "deploy")
            return await self._build_and_roll_out(app, "deploy")

    async def deploy(self, app: HostedApp) -> DeployResult:
        """Build and roll out what the sources and `app.spec` say."""
        async with app.turn:
            app.save(wanted="running", pinned=None)
            return await self._build_and_roll_out(app, "deploy")

    async def plan(self, app: HostedApp, spec: AppSpec) -> DeployResult:
        """Build what the sources and `spec` say, and say what would be done with it; nothing is touched."""
        async with app.turn:
            return await self._plan(app, spec)

    async def restart(self, app: HostedApp) -> DeployResult:
        """Replace every instance by one of the same release."""
        async with app.turn:
            if app.release is None or app.row.wanted == "stopped":
                verb = "deploy" if app.release is None else "start"
                raise AppStopped(
                    f"expected {app.name} to run, it does not", hint=f"Bring it up with `fairway {verb} {app.name}`."
                )
            return await self._roll_out(app, app.release, "restart", fresh=True)

    async def scale(self, app: HostedApp, n: int) -> DeployResult:
        """Run `n` instances of ``web``."""
        if not 0 <= n <= MAX_SCALE:
            raise InvalidRequest(f"expected a number of instances from 0 to {MAX_SCALE}, got {n}")
        async with app.turn:
            if app.release is not None and n > 1:
                _check_scale(app.spec, app.release, n)
            app.save(scale=n, scale_base=app.spec.replicas)
            if app.release is None or app.row.wanted == "stopped":
                return self._result(app, "scale", time.monotonic(), (), message=f"{n} instances once it runs")
            return await self._roll_out(app, app.release, "scale")

    async def rollback(self, app: HostedApp, release: str | None) -> DeployResult:
        """Roll out an earlier release and keep to it until the next deploy."""
        async with app.turn:
            found = self._earlier(app, release)
            app.save(wanted="running", pinned=found.id)
            return await self._roll_out(app, found, "rollback")

    async def stop(self, app: HostedApp) -> DeployResult:
        """Drain and end every instance; it stays stopped."""
        async with app.turn:
            began = time.monotonic()
            app.save(wanted="stopped")
            gone = list(app.instances)
            await self.end(app)
            self._tell(app, "done", "stopped")
            return self._result(app, "stop", began, tuple(f"stopped {i.id}" for i in gone), changed=bool(gone))

    async def start(self, app: HostedApp) -> DeployResult:
        """Bring up an app that was stopped."""
        async with app.turn:
            app.save(wanted="running")
            pinned = self._find(app, app.row.pinned) if app.row.pinned else None
            if pinned is not None:
                return await self._roll_out(app, pinned, "start")
            return await self._build_and_roll_out(app, "start")

    async def end(self, app: HostedApp) -> None:
        """Drain and end every instance of an app whose turn the caller has."""
        gone, deploy = list(app.instances), app.spec.deploy
        ids = [u.id for u in upstreams(gone)]
        await app.route([], "serving", {})
        if ids:
            await self._doors.drain(ids, deploy.drain)
        await asyncio.gather(*(i.retire(deploy.grace) for i in gone))
        app.instances = []
        app.message = ""
        await app.refresh()

    def releases(self, app: HostedApp) -> list[ReleaseStatus]:
        """Return the releases that exist, newest first."""
        return [
            ReleaseStatus(
                id=r.id, app=app.name, created_at=r.created_at, current=r.id == app.row.release, digest=r.digest
            )
            for r in list_releases(self._host.layout.root, app.name)
        ]

    # -- inside ----------------------------------------------------------------------------------------------

    async def _build_and_roll_out(self, app: HostedApp, action: str) -> DeployResult:
        try:
            release = await self._build(app, app.spec)
        except DeployFailed as error:
            await self._fall_back(app)
            app.message = explain(error)
            self._tell(app, "failed", str(error))
            raise
        return await self._roll_out(app, release, action)

    async def _fall_back(self, app: HostedApp) -> None:
        """After a failed build, with nothing running (the machine was restarted): start what served last."""
        last = self._find(app, app.row.release) if app.row.release and not app.instances else None
        if last is not None:
            try:
                await self._roll_out(app, last, "start")
            except DeployFailed as error:
                log.get("platform").warning("the last release does not start either", app=app.name, error=str(error))

    async def _build(self, app: HostedApp, spec: AppSpec) -> Release:
        if not app.instances:
            app.activity = "building"
        self._tell(app, "detect", f"looking at {spec.source or spec.compose_file}")
        progress: Chan[BuildProgress] = Chan(64)
        relay = self._host.background.start(self._relay(app, progress), name=f"build progress {app.name}")
        try:
            if self._builder is None:
                self._builder = self._make_builder()
            return await self._builder.build(self._ctx, spec, progress)
        except BuildError as error:
            raise DeployFailed(
                app.name,
                str(error),
                code=error.code,
                log_lines=error.tail,
                log_path=str(error.log_path or ""),
                hint=error.hint,
            ) from error
        finally:
            if not progress.closed:
                progress.close()
            await asyncio.wait({relay})
            app.activity = None

    async def _relay(self, app: HostedApp, progress: Chan[BuildProgress]) -> None:
        async for step in progress:
            if step.phase != "failed":
                self._tell(app, _PHASES.get(step.phase, "build"), step.message)

    async def _roll_out(self, app: HostedApp, release: Release, action: str, *, fresh: bool = False) -> DeployResult:
        began = time.monotonic()
        previous = app.row.release
        todo = self._decide(app, app.spec, release, fresh=fresh)
        if not todo.steps:
            app.message = ""
            app.release = release
            await app.refresh()
            self._tell(app, "done", f"release {release.id} serves already")
            return self._result(app, action, began, (), changed=False, previous=previous)
        old = app.release if app.release is not None else self._find(app, app.row.release)
        serving = release  # what `take` is told: the release of whoever serves after the swap

        def committed(instances: list[Instance]) -> None:
            back = instances and all(i.recipe.release.id != serving.id for i in instances) and old is not None
            app.take(instances, old if back and old is not None else serving)

        work = Rollout(self._host, self._doors, app.route, app.spec, release, todo, list(app.instances), old, committed)
        app.activity = "starting"
        try:
            await work.run()
        except FairwayError as error:
            app.message = explain(error)
            self._tell(app, "failed", str(error))
            raise
        finally:
            app.activity = None
        app.message = ""
        self._tell(app, "done", f"serving release {release.id} at {app.url}")
        self._host.background.start(self._prune(app), name=f"prune {app.name}")
        return self._result(app, action, began, tuple(str(s) for s in todo.steps), previous=previous)

    async def _plan(self, app: HostedApp, spec: AppSpec) -> DeployResult:
        began = time.monotonic()
        try:
            release = await self._build(app, spec)
        except DeployFailed as error:
            self._tell(app, "failed", str(error))
            raise
        todo = self._decide(app, spec, release)
        self._tell(app, "done", "planned")
        return DeployResult(
            app=app.name,
            action="deploy",
            release=release.id,
            previous=app.row.release,
            changed=False,
            planned=True,
            steps=tuple(str(s) for s in todo.steps),
            seconds=time.monotonic() - began,
            message="nothing to do" if not todo.steps else f"{len(todo.steps)} steps, none carried out",
        )

    def _decide(self, app: HostedApp, spec: AppSpec, release: Release, *, fresh: bool = False) -> rollout.Plan:
        exclusive = runs_once(spec, release)
        web = min(app.replicas, 1) if exclusive else app.replicas
        counts = {name: web if name == WEB else 1 for name in release.processes}
        wanted = rollout.Wanted(
            release=release.id,
            launch=launch_digest(spec, release),
            counts=counts,
            strategy="recreate" if exclusive else spec.deploy.strategy,
            canary=spec.deploy.canary,
            drain=spec.deploy.drain,
            grace=spec.deploy.grace,
            fresh=fresh,
        )
        return rollout.plan(units(app.instances), wanted, serving=app.row.release)

    def _earlier(self, app: HostedApp, release: str | None) -> Release:
        on_disk = {r.id: r for r in list_releases(self._host.layout.root, app.name)}
        if release is not None:
            matches = [r for r in on_disk if r == release] or [r for r in on_disk if r.startswith(release)]
            if len(matches) == 1:
                return on_disk[matches[0]]
            what = "is not unique" if matches else "does not exist"
            raise UnknownRelease(
                f"expected a release of {app.name}, {release!r} {what}",
                hint=f"Releases: {', '.join(sorted(on_disk, reverse=True)) or 'none'}.",
            )
        for known in self._host.state.deployed(app.name):
            if known != app.row.release and known in on_disk:
                return on_disk[known]
        raise UnknownRelease(
            f"expected an earlier release of {app.name} to go back to, there is none",
            hint=f"fairway releases {app.name} lists what there is.",
        )

    def _find(self, app: HostedApp, release: str | None) -> Release | None:
        return next((r for r in list_releases(self._host.layout.root, app.name) if r.id == release), None)

    async def _prune(self, app: HostedApp) -> None:
        # In the app's turn: a build that is under way has a folder that no release names yet.
        async with app.turn:
            in_use = frozenset({i.row.release for i in app.instances} | {app.row.release or "", app.row.pinned or ""})
            keep = app.spec.deploy.keep
            root = self._host.layout.root
            contained = [r for r in list_releases(root, app.name) if r.in_container]
            gone = await asyncio.to_thread(prune_releases, root, app.name, keep=keep, in_use=in_use)
            if contained:
                await _remove_images(contained, frozenset(gone))
        if gone:
            log.get("platform").info("old releases removed", app=app.name, releases=gone)

    def _result(
        self,
        app: HostedApp,
        action: str,
        began: float,
        steps: tuple[str, ...],
        *,
        changed: bool = True,
        previous: str | None = None,
        message: str = "",
    ) -> DeployResult:
        return DeployResult(
            app=app.name,
            action=action,
            release=app.row.release if app.instances else None,
            previous=previous,
            changed=changed and bool(steps),
            steps=steps,
            seconds=time.monotonic() - began,
            message=message or (f"{app.name}: {action} done" if changed else f"{app.name}: nothing has changed"),
        )

    def _tell(self, app: HostedApp, phase: Phase, message: str) -> None:
        self._host.progress.tell(app.name, phase, message)


async def _remove_images(releases: Sequence[Release], gone: frozenset[str]) -> None:
    """Remove the images of releases that are gone, unless one that is kept has the same."""
    from fairway.run.engine import images_of, remove_image  # not for a start without containers

    images = {release.id: images_of(release) for release in releases}
    kept = {image for id_, found in images.items() if id_ not in gone for image in found}
    for client, image in {image for id_ in gone for image in images.get(id_, ())} - kept:
        await remove_image(client, image, environment.inherited())


def _check_scale(app: AppSpec, release: Release, n: int) -> None:
    if release.kind == "compose":
        raise InvalidRequest(
            f"expected at most 1 instance of {app.name}, which is a Compose project, got {n}",
            hint="Say `deploy: {replicas: N}` of the service in the Compose file, with a server in front of it there.",
        )
    port = fixed_port(app, release)
    if port is not None:
        raise InvalidRequest(
            f"expected at most 1 instance of {app.name}, which listens on the fixed port {port}, got {n}",
            hint="Let the app listen on $PORT and remove backend.port from its registry file.",
        )
