"""Brings apps up in the order of what they depend on, and does not give up on those that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fairway.concurrency import Chan, select
from fairway.errors import FairwayError
from fairway.platform.errors import DeployFailed, explain
from fairway.platform.order import in_cycle
from fairway.platform.restart import CAP
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.platform.app import HostedApp
    from fairway.platform.host import Host
    from fairway.platform.operations import Operations

_FIRST_RETRY = 2.0


class BringUp:
    """One task an app: waits for what it depends on, builds, starts, and tries again what did not start.

    Args:
        host: The machine.
        apps: Every app, looked up when needed.
        ops: What is done to them.
    """

    def __init__(self, host: Host, apps: Mapping[str, HostedApp], ops: Operations) -> None:
        self._host = host
        self._apps = apps
        self._ops = ops
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._settled: dict[str, Chan[None]] = {}

    def begin(self, names: Iterable[str]) -> None:
        """Start bringing these apps up; one that is on its way already begins anew."""
        chosen = list(names)
        for name in chosen:
            self._settled[name] = Chan(0)
            self._host.progress.tell(name, "queued", "")
        cycles = in_cycle({name: app.spec.depends_on for name, app in self._apps.items()})
        for name in chosen:
            old = self._tasks.get(name)
            self._tasks[name] = self._host.background.start(
                self._one(self._apps[name], cycles.get(name, ()), old), name=f"bring up {name}"
            )

    def pending(self) -> list[str]:
        """Return the apps that have neither come up nor failed yet, ascending."""
        return sorted(name for name, chan in self._settled.items() if not chan.closed)

    async def settled(self, names: Iterable[str] | None = None) -> None:
        """Wait until these apps, or all, have come up or failed once."""
        for name in list(self._settled) if names is None else names:
            await self._settled[name].recv_ok()

    async def forget(self, name: str) -> None:
        """Give an app up: it was removed."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._settle(name)
        self._settled.pop(name, None)

    async def cancel(self) -> None:
        """Give every app up: the daemon ends."""
        for name in list(self._tasks):
            await self.forget(name)

    async def _one(self, app: HostedApp, cycle: tuple[str, ...], old: asyncio.Task[None] | None) -> None:
        if old is not None and not old.done():
            old.cancel()
            await asyncio.wait({old})
        try:
            if cycle:
                self._refuse(app, f"depends on itself: {' -> '.join(cycle)}")
            elif unknown := [d for d in app.spec.depends_on if d not in self._apps]:
                self._refuse(app, f"depends on {', '.join(unknown)}, which is not in the registry")
            else:
                await self._wait_for_dependencies(app)
                await self._try(app)
        finally:
            self._settle(app.name)

    async def _wait_for_dependencies(self, app: HostedApp) -> None:
        for name in app.spec.depends_on:
            needed = self._apps[name]
            if needed.serving:
                continue
            app.activity = "blocked"
            app.message = f"waits for {name}"
            self._host.progress.tell(app.name, "queued", app.message)
            if name in self._settled:
                await select(needed.up.on_recv(), self._settled[name].on_recv())
            if not needed.serving:
                app.message = f"waits for {name}, which is {needed.state()}"
                self._host.progress.tell(app.name, "failed", app.message)
                self._settle(app.name)
                while not needed.serving:
                    await needed.up.recv_ok()
        if app.activity == "blocked":
            app.activity, app.message = None, ""

    async def _try(self, app: HostedApp) -> None:
        pause = _FIRST_RETRY
        while True:
            try:
                await self._ops.bring_up(app)
                return
            except DeployFailed as error:
                log.get("platform").error("app does not come up", app=app.name, error=str(error), code=error.code)
                self._settle(app.name)
                if app.instances or not error.code.startswith("deploy."):
                    return  # the old release serves, or trying again would build the same failure again
            except FairwayError as error:
                log.get("platform").error("app does not come up", app=app.name, error=str(error), code=error.code)
                app.message = explain(error)
                self._host.progress.tell(app.name, "failed", str(error))
                return
            await self._host.clock.sleep(pause)
            pause = min(pause * 2.0, CAP)
            if app.instances or app.row.wanted == "stopped":
                return

    def _refuse(self, app: HostedApp, message: str) -> None:
        app.message = message
        self._host.progress.tell(app.name, "failed", message)

    def _settle(self, name: str) -> None:
        chan = self._settled.get(name)
        if chan is not None and not chan.closed:
            chan.close()
