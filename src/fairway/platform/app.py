"""One app as it is hosted: what it should be, its instances, what the door and the health checker know of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from fairway.concurrency import Chan
from fairway.health.state import Check
from fairway.platform import routing
from fairway.platform.deploy import upstreams
from fairway.platform.host import WEB, Host, runs_once
from fairway.platform.instance import Instance
from fairway.platform.state import AppRow
from fairway.platform.status import AppState, AppStatus
from fairway.proxy.routes import State
from fairway.run import proctable
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec
    from fairway.health.checker import HealthChecker
    from fairway.platform.doors import Doors
    from fairway.run.release import Release

# An instance that is back within this many seconds is worth waiting for; beyond it, a plain 503 is.
_WORTH_HOLDING = 5.0


class HostedApp:
    """One app of the registry on this machine.

    Attributes:
        spec: What the registry says.
        row: What is wanted beyond it, as written in the state file.
        release: The release that serves, or None.
        instances: The instances that serve or are to serve again.
        turn: Held by whoever changes the app: work on one app is serial.
        up: Closed while the app serves, replaced by an open one when it stops serving.
    """

    def __init__(self, host: Host, doors: Doors, spec: AppSpec, checker: HealthChecker | None, url: str) -> None:
        self.spec = spec
        self.row: AppRow = host.state.app(spec.name)
        self.release: Release | None = None
        self.instances: list[Instance] = []
        self._message = ""
        self._activity: AppState | None = None
        self.turn = asyncio.Lock()
        self.up: Chan[None] = Chan(0)
        self.url = url
        self._host = host
        self._doors = doors
        self._checker = checker
        self._routed: list[Instance] = []
        self._state: State = "serving"
        self._split: dict[str, int] = {}
        self._changes: Chan[None] = Chan(1)
        self._watched: set[str] = set()
        self._loop = host.background.start(self._follow(), name=f"changes of {spec.name}")

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.spec.name

    @property
    def message(self) -> str:
        """Why it is not as it should be, or empty."""
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        if text != self._message:
            self._message = text
            self._moved()

    @property
    def activity(self) -> AppState | None:
        """``blocked``, ``building`` or ``starting`` while work goes on, else None."""
        return self._activity

    @activity.setter
    def activity(self, state: AppState | None) -> None:
        if state != self._activity:
            self._activity = state
            self._moved()

    @property
    def replicas(self) -> int:
        """Instances of ``web`` wanted: what `scale` asked for, while the registry says what it said then."""
        if self.release is not None and runs_once(self.spec, self.release):
            return min(self.spec.replicas, 1)
        if self.row.scale is not None and self.row.scale_base == self.spec.replicas:
            return self.row.scale
        return self.spec.replicas

    @property
    def web(self) -> list[Instance]:
        """The instances that get requests."""
        return [i for i in self.instances if i.row.process == WEB]

    @property
    def serving(self) -> bool:
        """Whether it can answer now; an app without ``web`` can when all its processes run."""
        if self.web or self.replicas == 0:
            return any(i.serves for i in self.web)
        return bool(self.instances) and all(i.state == "running" for i in self.instances)

    def state(self) -> AppState:
        """Sum its condition up in a word."""
        if self.row.wanted == "stopped" and not self.instances:
            return "stopped"
        if not self.instances:
            return self.activity or ("failed" if self.message else "stopped")
        well = sum(1 for i in self.instances if i.state in {"healthy", "running"})
        if well == len(self.instances) and len(self.web) >= self.replicas:
            return "degraded" if self.message else "running"
        if self.serving and (not self.web or any(i.state == "healthy" for i in self.web)):
            return "degraded"
        return "starting" if any(i.state == "starting" for i in self.instances) else "failed"

    def status(self, table: proctable.ProcessTable | None = None) -> AppStatus:
        """Describe it; with a look at all processes, its instances' trees and memory too."""
        runtime = "process"
        if self.release is not None and self.release.in_container:
            runtime = "compose"
        return AppStatus(
            name=self.name,
            state=self.state(),
            url=self.url,
            domain=self.spec.domain,
            runtime=runtime,
            release=self.row.release,
            replicas=self.replicas,
            ready=sum(1 for i in self.web if i.serves and i.state == "healthy"),
            instances=tuple(i.status(table) for i in self.instances),
            message=self.message or self._trouble(),
            file=str(self.spec.file),
            depends_on=self.spec.depends_on,
        )

    def _trouble(self) -> str:
        bad = [f"{i.id} {i.state} ({i.exit})" if i.exit else f"{i.id} {i.state}" for i in self.instances if i.state in
               {"backoff", "unhealthy"}]  # fmt: skip
        return ", ".join(bad)

    # -- what changes ----------------------------------------------------------------------------------------

    def save(self, **changes: object) -> None:
        """Change and write what is wanted of it."""
        self.row = msgspec.structs.replace(self._host.state.app(self.name), **changes)
        self._host.state.save_app(self.row)

    def take(self, instances: list[Instance], release: Release) -> None:
        """Make these the instances that serve, as `StateStore.commit_swap` has written: supervised, checked, routed.

        The door is told by the next `Doors.publish`.
        """
        fresh = [i for i in instances if i not in self.instances]
        self.instances = instances
        self.release = release
        self.row = self._host.state.app(self.name)
        for instance in fresh:
            instance.supervise(self._changed)
        self._routed, self._state, self._split = instances, "serving", {}
        self._note()

    async def route(self, instances: list[Instance], state: State, split: dict[str, int]) -> None:
        """Set what the door does with requests from now on, and wait until it does.

        Args:
            instances: Which may get requests, as far as they can serve.
            state: ``serving`` or ``holding``.
            split: Share by release, or empty.
        """
        self._routed, self._state, self._split = instances, state, split
        await self.refresh()

    async def refresh(self) -> None:
        """Tell the door and the health checker how things are now."""
        self._note()
        await self._doors.publish()

    def announce(self) -> None:
        """Note for the next `Doors.publish` that the app exists: whoever asks for it is told what goes on with it."""
        self._note()

    def verdict(self, key: str, healthy: bool) -> None:
        """Take the health checker's verdict on one of its instances."""
        for instance in self.instances:
            if f"{self.name}/{instance.id}" == key and instance.judge(healthy):
                self._changed(instance)

    async def close(self) -> None:
        """Stop following changes; instances are left as they are."""
        self._loop.cancel()
        await asyncio.wait({self._loop})
        self._watch(())

    # -- inside ----------------------------------------------------------------------------------------------

    def _changed(self, _instance: Instance) -> None:
        self._changes.try_send(None)  # full: a refresh is due already, and it will see this too

    def _moved(self) -> None:
        """While nothing of it runs, the door says what goes on instead."""
        if not self.instances:
            self._changes.try_send(None)

    async def _follow(self) -> None:
        async for _ in self._changes:
            try:
                await self.refresh()
            except Exception as error:
                log.get("platform").error("routes are not told", app=self.name, exc_info=error)

    def _note(self) -> None:
        found = upstreams(self._routed)
        state = self._state
        if not found and state == "serving" and self._returning():
            state = "holding"
        health, deploy = self.spec.health, self.spec.deploy
        patience = health.start_timeout + deploy.drain + deploy.grace if self._state == "holding" else _WORTH_HOLDING
        labels = {u.release for u in found}
        split = self._split if self._split and labels >= self._split.keys() else {}
        public = self._doors.public
        notice = "" if found else routing.notice(self.name, self.state())
        reason = self._doors.set_routes(
            self.name,
            routing.routes(
                self.spec, found, state=state, split=split, hold_timeout=patience, public=public, notice=notice
            ),
        )
        if reason:
            self.message = reason
        self._watch([i for i in self.instances if i.serves and i.row.process == WEB])
        if self.serving and not self.up.closed:
            self.up.close()
        elif not self.serving and self.up.closed:
            self.up = Chan(0)

    def _returning(self) -> bool:
        """Whether an instance will be there so soon that its requests are better kept waiting."""
        if not self.instances:
            return self._activity == "starting" and not self._message  # at once after a failure it has no such hope
        horizon = self._host.clock.time() + _WORTH_HOLDING
        return any(
            i.state == "starting" or (i.state == "backoff" and (i.next_start_at or 0.0) < horizon)
            for i in self._routed
            if i.row.process == WEB
        )

    def _watch(self, instances: list[Instance] | tuple[()]) -> None:
        if self._checker is None:
            return
        health = self.spec.health
        keys: set[str] = set()
        for instance in instances:
            key = f"{self.name}/{instance.id}"
            keys.add(key)
            self._checker.watch(
                Check(key, self.name, instance.probe_target(), health.interval, health.rise, health.fall)
            )
        for key in self._watched - keys:
            self._checker.forget(key)
        self._watched = keys

    def __repr__(self) -> str:
        return f"<HostedApp {self.name} {self.state()} [{len(self.instances)} instances]>"
