"""The platform's one face: what the API, the command line and the daemon ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.concurrency import Context, RecvChan
from fairway.errors import FairwayError
from fairway.platform.app import HostedApp
from fairway.platform.bringup import BringUp
from fairway.platform.doors import Doors
from fairway.platform.errors import InvalidRequest, UnknownApp
from fairway.platform.host import Host
from fairway.platform.instance import Instance
from fairway.platform.operations import Operations
from fairway.platform.order import stop_order
from fairway.platform.recovery import adopt_instances, end_strays
from fairway.platform.starts import Starts
from fairway.platform.status import AppStatus, DeployResult, Progress, ReleaseStatus
from fairway.run import proctable
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.apps.problem import Problem
    from fairway.apps.registry import Registry
    from fairway.apps.spec import AppSpec
    from fairway.health.checker import HealthChecker
    from fairway.run.builder import Builder

_SCRAPE_PATIENCE = 2.0  # seconds


class Platform:
    """Apps as they run: every method but `apps`, `app`, `pending` and `releases` changes something.

    Names of apps that are not in the registry raise `UnknownApp`, which names the nearest. Work on one app is serial:
    a second call waits for the first. Cancelling a call undoes the work up to the swap of routes; from then on it is
    finished in the background.

    Args:
        host: The machine.
        doors: The door.
        make_builder: Makes what builds releases, when something has to be built.
        registry: Folder of registry files.
        checker: Health checker that is fed with instances, or None.
        only: Names to bring up with what they depend on; empty for all.
    """

    def __init__(
        self,
        host: Host,
        doors: Doors,
        make_builder: Callable[[], Builder],
        registry: Path,
        *,
        checker: HealthChecker | None = None,
        only: tuple[str, ...] = (),
    ) -> None:
        self.problems: list[Problem] = []
        self._host = host
        self._doors = doors
        self._make_builder = make_builder
        self._registry = registry
        self._checker = checker
        self._only = only
        self._apps: dict[str, HostedApp] = {}
        self._ops: Operations | None = None
        self._bring_up: BringUp | None = None
        self._reloading = asyncio.Lock()
        self._begun = self._door_up = False

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self, ctx: Context) -> None:
        """Adopt what runs, then bring every app to its wanted state; returns when each has come up or failed.

        Raises:
            UnknownApp: A name of `only` is not in the registry.
            PortTaken: The door's port is held by another program.
            RegistryError: The registry cannot be read at all.
        """
        specs = await self._load(self._host.head_start.take_registry())
        for name in self._only:
            if name not in specs:
                raise UnknownApp(name, specs)
        self._ops = Operations(self._host, self._doors, self._make_builder, ctx)
        self._bring_up = BringUp(self._host, self._apps, self._ops)
        for spec in specs.values():
            self._add(spec)
        await adopt_instances(self._host, self._apps)
        end_strays(self._host)
        if self._checker is not None:
            self._host.background.start(self._follow_health(), name="health verdicts")
        for name in self._only:
            if self._apps[name].row.wanted == "stopped":
                self._apps[name].save(wanted="running")
        starts = Starts(self._host.layout.cache / "starts.json")
        self._bring_up.begin(starts.order(self._chosen()))
        self._begun = True
        await asyncio.sleep(0)  # each goes as far as it can now, and the first routes say what goes on with it
        for app in self._apps.values():
            app.announce()
        await self._doors.opened()
        await self._doors.publish()
        self._door_up = True
        await self._bring_up.settled()
        self._host.head_start.give_up(self._host)  # nobody has wanted it, or it would have been taken
        for app in self._apps.values():
            seconds = [i.start_seconds for i in app.instances if i.start_seconds is not None]
            if seconds:
                starts.note(app.name, max(seconds))
        starts.save(self._apps)
        self._host.state.settle()  # not while they come up: an instance would wait for the disk three times

    async def end(self, *, stop_apps: bool) -> None:
        """End the platform: stop the door and every app, or leave both running for the next daemon."""
        if self._bring_up is not None:
            await self._bring_up.cancel()
        if not self._begun:
            await self._doors.abandon()  # it did not come that far: what an earlier daemon has left runs on
        elif stop_apps:
            grace = max((a.spec.deploy.drain for a in self._apps.values()), default=0.0)
            await self._doors.stop(grace)
            for group in stop_order({a.name: a.spec.depends_on for a in self._apps.values()}):
                await asyncio.gather(*(self._end_app(self._apps[name]) for name in group))
        else:
            self._doors.leave()
            for app in self._apps.values():
                for instance in app.instances:
                    instance.leave()
        for app in self._apps.values():
            await app.close()
        self._host.progress.close()

    async def reload(self, *, everything: bool = False, wait: bool = True) -> None:
        """Read the registry again: new apps start, removed ones stop, changed ones are deployed, bad ones reported.

        A file that has become invalid changes nothing: its app goes on as it is, and says so.

        Args:
            everything: Begin to bring up, too, the apps that were left out as others were named at the start; what
                was stopped stays stopped. They are not waited for.
            wait: Return when the apps that have changed came up or failed; else when that has begun. `pending` tells
                what is on its way.
        """
        async with self._reloading:
            ops, bring_up = self._running()
            mended = {p.file for p in self.problems}
            specs = await self._load()
            broken = {p.file for p in self.problems}
            changed: list[str] = []
            for spec in specs.values():
                known = self._apps.get(spec.name)
                if known is None:
                    self._add(spec)
                    changed.append(spec.name)
                elif known.spec != spec or spec.file in mended:
                    known.spec = spec
                    known.url = self._url(spec)
                    known.save(pinned=None)
                    changed.append(spec.name)
            for name in [n for n in self._apps if n not in specs and self._apps[n].spec.file not in broken]:
                await self._remove(name, ops)
            for app in self._apps.values():
                if app.spec.file in broken:
                    app.message = next(str(p) for p in self.problems if p.file == app.spec.file)
            left_out: list[str] = []
            if everything and self._only:
                left_out = sorted(self._apps.keys() - {*self._chosen(), *changed})
                self._only = ()
            bring_up.begin([*changed, *left_out])
            if wait:
                await bring_up.settled(changed)

    # -- what there is ---------------------------------------------------------------------------------------

    def apps(self) -> list[AppStatus]:
        """Every app of the registry, ascending by name. Never blocks."""
        table = proctable.snapshot()
        return [self._apps[name].status(table) for name in sorted(self._apps)]

    def app(self, name: str) -> AppStatus:
        """One app. Raises `UnknownApp`."""
        return self._get(name).status(proctable.snapshot())

    def pending(self) -> list[str]:
        """Apps that `start` has not brought up or given up yet, ascending; all of them before it was called.

        ``/readyz`` is 200, `fairway up` prints its table and ``up -d`` returns once this is empty.
        """
        if self._bring_up is None or not self._begun:
            return ["(starting)"]
        return [*([] if self._door_up else ["(door)"]), *self._bring_up.pending()]

    def releases(self, name: str) -> list[ReleaseStatus]:
        """Releases of one app, newest first. Raises `UnknownApp`."""
        app = self._get(name)
        return self._running()[0].releases(app)

    async def door_metrics(self) -> str:
        """Return the metrics of the door's workers in Prometheus' text format, each with its label ``worker``."""
        from fairway.proxy.metrics import render_metrics

        told = await self._doors.statistics_by_worker(_SCRAPE_PATIENCE)
        return render_metrics({str(number): statistics for number, statistics in sorted(told.items())})

    def subscribe(self) -> RecvChan[Progress]:
        """Every progress event from now on; a reader that falls behind by more than 1,024 events loses the oldest."""
        return self._host.progress.subscribe()

    def unsubscribe(self, chan: RecvChan[Progress]) -> None:
        """End a subscription and close its channel; unknown ones are ignored."""
        self._host.progress.unsubscribe(chan)

    # -- what can be done ------------------------------------------------------------------------------------

    async def deploy(self, name: str, *, plan: bool = False) -> DeployResult:
        """Build and bring up what the sources and the registry say now, with no failed request.

        Args:
            name: Name of the app.
            plan: Build, and only say what would be done then.

        Raises:
            UnknownApp: No such app.
            DeployFailed: Build or health check failed; the old release goes on serving.
        """
        ops, _ = self._running()
        spec = (await self._load()).get(name)
        if name not in self._apps and spec is not None:
            self._add(spec)
        app = self._get(name)
        if spec is None:
            # Its file has become invalid: what it says now cannot be deployed.
            problem = next((str(p) for p in self.problems if p.file == app.spec.file or p.app == name), "it is gone")
            raise InvalidRequest(f"expected a valid registry file for {name}: {problem}", code="registry.invalid")
        if plan:
            return await ops.plan(app, spec)
        app.spec = spec
        app.url = self._url(spec)
        return await ops.deploy(app)

    async def restart(self, name: str) -> DeployResult:
        """Replace every instance by a new one of the same release, with no failed request."""
        return await self._running()[0].restart(self._get(name))

    async def scale(self, name: str, n: int) -> DeployResult:
        """Run `n` (0 to 100) instances of ``web``; kept over restarts of the daemon until the registry file changes."""
        return await self._running()[0].scale(self._get(name), n)

    async def rollback(self, name: str, release: str | None = None) -> DeployResult:
        """Deploy an earlier release again: the one named, or the one before the current. Raises `UnknownRelease`.

        It is kept to, over restarts of the daemon too, until the next `deploy` or change of the registry file.
        """
        return await self._running()[0].rollback(self._get(name), release)

    async def stop(self, name: str) -> DeployResult:
        """Drain and stop the app; it stays stopped until `start_app` or `deploy`."""
        return await self._running()[0].stop(self._get(name))

    async def start_app(self, name: str) -> DeployResult:
        """Start an app that was stopped."""
        return await self._running()[0].start(self._get(name))

    # -- inside ----------------------------------------------------------------------------------------------

    def instances(self) -> list[Instance]:
        """Every instance that serves or is to serve again, of all apps."""
        return [i for app in self._apps.values() for i in app.instances]

    async def _load(self, known: Registry | None = None) -> dict[str, AppSpec]:
        """Return the apps of the registry as it is now, or as `known` has read it a moment ago."""
        registry = known
        if registry is None:
            from fairway.apps.memory import Memory
            from fairway.apps.registry import load

            memory = Memory(self._host.layout.cache / "registry.json")
            registry = await asyncio.to_thread(load, self._registry, memory=memory)
        self.problems = registry.problems
        for problem in self.problems:
            log.get("platform").error("registry entry left out", problem=str(problem))
        return registry.apps

    def _add(self, spec: AppSpec) -> None:
        app = self._apps[spec.name] = HostedApp(self._host, self._doors, spec, self._checker, self._url(spec))
        app.announce()

    def _url(self, spec: AppSpec) -> str:
        return self._doors.public.url(spec.domain, "" if spec.backend.path == "/" else spec.backend.path)

    def _chosen(self) -> list[str]:
        if not self._only:
            return list(self._apps)
        chosen: list[str] = []
        queue = list(self._only)
        while queue:
            name = queue.pop()
            if name in self._apps and name not in chosen:
                chosen.append(name)
                queue += self._apps[name].spec.depends_on
        return chosen

    async def _remove(self, name: str, ops: Operations) -> None:
        app = self._apps.pop(name)
        if self._bring_up is not None:
            await self._bring_up.forget(name)
        async with app.turn:
            await ops.end(app)
        self._doors.set_routes(name, ())
        await self._doors.publish()
        await app.close()
        self._host.state.forget_app(name)
        log.get("platform").info("app removed", app=name)

    async def _end_app(self, app: HostedApp) -> None:
        gone = list(app.instances)
        results = await asyncio.gather(*(i.retire(app.spec.deploy.grace) for i in gone), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                log.get("platform").error("instance does not end", app=app.name, error=str(result))
        app.instances = []

    async def _follow_health(self) -> None:
        assert self._checker is not None
        with self._checker.subscribe() as events:
            async for event in events:
                app = self._apps.get(event.status.app)
                if app is not None and event.status.state in {"healthy", "unhealthy"}:
                    app.verdict(event.status.key, event.status.state == "healthy")

    def _get(self, name: str) -> HostedApp:
        app = self._apps.get(name)
        if app is None:
            raise UnknownApp(name, self._apps)
        return app

    def _running(self) -> tuple[Operations, BringUp]:
        if self._ops is None or self._bring_up is None:
            raise FairwayError("expected the platform to be started, it is still starting", code="platform.starting")
        return self._ops, self._bring_up

    def __repr__(self) -> str:
        return f"<Platform [{len(self._apps)} apps, {len(self.instances())} instances]>"
