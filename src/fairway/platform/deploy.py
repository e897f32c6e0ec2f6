"""Carries a rollout's plan out, step by step, and undoes what it did if a step fails before the swap."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from fairway.platform import canary, rollout
from fairway.platform.errors import DeployFailed
from fairway.platform.gate import GateFailed
from fairway.platform.host import WEB
from fairway.platform.instance import Instance
from fairway.platform.recipe import Recipe
from fairway.platform.routing import Upstream
from fairway.proxy.routes import State
from fairway.run.ports import PortsExhausted
from fairway.run.process import SpawnError

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec, CanarySpec
    from fairway.platform.doors import Doors
    from fairway.platform.host import Host
    from fairway.platform.status import Phase
    from fairway.run.release import Release

Route = Callable[[list[Instance], State, dict[str, int]], Awaitable[None]]

_TAIL = 50
_CANARY_TICK = 1.0


class Rollout(msgspec.Struct):
    """One rollout of one app, from its plan to its end.

    Attributes:
        host: The machine.
        doors: The door.
        route: Sets what the door does with the app's requests: instances, ``serving`` or ``holding``, share by release.
        app: The app.
        release: What is rolled out.
        plan: The steps.
        serving: Instances that serve; replaced at the swap.
        old: The release that serves now, for going back where the strategy stops it first; or None.
        committed: Called at the swap with the instances that serve from then on.
    """

    host: Host
    doors: Doors
    route: Route
    app: AppSpec
    release: Release
    plan: rollout.Plan
    serving: list[Instance]
    old: Release | None
    committed: Callable[[list[Instance]], None]
    started: list[Instance] = []
    swapped: bool = False
    _retired: list[Instance] = []

    async def run(self) -> None:
        """Carry the plan out.

        Cancellation: before the swap everything is undone; after it the rest goes on in the background.

        Raises:
            DeployFailed: A step failed; what served before serves again.
        """
        steps = list(self.plan.steps)
        cut = next((i for i, step in enumerate(steps) if isinstance(step, rollout.Swap)), len(steps))
        try:
            for step in steps[:cut]:
                await self._carry_out(step)
        except BaseException:
            await self._shielded(self._undo(), "undo")
            raise
        await self._shielded(self._finish(steps[cut:]), "finish")

    async def _finish(self, steps: Sequence[rollout.Step]) -> None:
        for step in steps:
            await self._carry_out(step)

    async def _shielded(self, work: object, name: str) -> None:
        task = self.host.background.start(work, name=f"{name} {self.app.name}")  # type: ignore[arg-type]  # a coroutine
        await asyncio.shield(task)

    async def _carry_out(self, step: rollout.Step) -> None:
        match step:
            case rollout.Hold():
                self._tell("route", str(step))
                await self.route(self.serving, "holding", {})
            case rollout.Start():
                self._tell("start", str(step))
                self._start(step)
            case rollout.Probe():
                self._tell("probe", "waiting until healthy")
                await self._probe(self.started)
            case rollout.Canary():
                self._tell("route", str(step))
                await self._watch(step)
            case rollout.Swap():
                await self._swap(step)
            case rollout.Drain():
                await self._drain(step)
            case rollout.Stop():
                await self._stop(step)

    def _start(self, step: rollout.Start) -> None:
        for _ in range(step.count):
            recipe = Recipe(self.app, self.release, step.process)
            early = self.host.head_start.take(recipe)
            if early is not None:
                self.started.append(Instance.begun(self.host, recipe, early))
                continue
            instance = Instance.create(self.host, recipe)
            self.started.append(instance)
            try:
                instance.start()
            except (SpawnError, PortsExhausted) as error:
                raise self._failure(instance, str(error), error.code) from error

    async def _probe(self, instances: list[Instance]) -> None:
        async def one(instance: Instance) -> None:
            try:
                await instance.wait_ready()
            except GateFailed as error:
                raise self._failure(instance, str(error), error.code) from error

        try:
            async with asyncio.TaskGroup() as group:
                for instance in instances:
                    group.create_task(one(instance))
        except BaseExceptionGroup as errors:  # the first to fail speaks for all
            failed = [e for e in errors.exceptions if isinstance(e, DeployFailed)]
            raise failed[0] if failed else errors.exceptions[0] from None

    async def _watch(self, step: rollout.Canary) -> None:
        spec = step.spec
        split = _shares(
            self.release.id, [i.row.release for i in self.serving if i.serves and i.row.process == WEB], spec
        )
        if not split:
            return  # nothing serves that it could be compared with
        await self.route([*self.serving, *self.started], "serving", split)
        ids = {i.target_id for i in self.started}
        clock = self.host.clock
        began, first = clock.monotonic(), await self._sample(ids)
        while True:
            await clock.sleep(min(_CANARY_TICK, spec.watch))
            dead = next((i for i in self.started if i.process is not None and i.process.exit is not None), None)
            if dead is not None and dead.process is not None:
                raise self._failure(dead, f"ended with {dead.process.exit} while it was watched", "deploy.canary")
            verdict = canary.judge(spec, await self._sample(ids) - first, clock.monotonic() - began)
            if verdict.outcome == "back":
                raise self._failure(self.started[0], f"was rolled back: {verdict.reason}", "deploy.canary")
            if verdict.outcome == "keep":
                self._tell("route", f"watched: {verdict.reason}")
                return

    async def _sample(self, ids: set[str]) -> canary.Sample:
        found = [t for s in await self.doors.statistics() for name, t in s.targets.items() if name in ids]
        return canary.Sample(
            sum(t.requests for t in found), sum(t.errors_5xx for t in found), sum(t.latency_sum_s for t in found)
        )

    async def _swap(self, step: rollout.Swap) -> None:
        keep = {(u.process, u.number) for u in self.plan.kept}
        kept = [i for i in self.serving if (i.row.process, i.row.number) in keep]
        self._retired = [i for i in self.serving if i not in kept]
        now = [*kept, *self.started]
        self.host.state.commit_swap(self.app.name, step.release, [(i.row.process, i.row.number) for i in now])
        for instance in self._retired:
            instance.stood("retiring")
        for instance in now:
            instance.stood("serving")
        self.swapped = True
        self._tell("route", f"serving release {step.release}")
        self.committed(now)
        await self.doors.publish()

    async def _drain(self, step: rollout.Drain) -> None:
        going = self._find(step.units)
        self._tell("drain", str(step))
        left = await self.doors.drain([i.target_id for i in going if i.row.process == WEB], step.timeout)
        if left:
            self._tell("drain", f"{left} requests did not finish within {step.timeout:g} s")

    async def _stop(self, step: rollout.Stop) -> None:
        going = self._find(step.units)
        if not self.swapped:
            self._retired = going
        await asyncio.gather(*(i.retire(step.grace) for i in going))

    async def _undo(self) -> None:
        """Before the swap: end what was started, bring back what was stopped, and give the routes back."""
        # Requests go to what served before, where any of it still runs; else they go on being held.
        alive = [i for i in self.serving if i.process is not None and i.process.exit is None and i.state != "stopping"]
        if alive or not self.serving:
            await self.route(alive, "serving", {})
        canaries = [u.id for u in upstreams(self.started)]
        if canaries:
            await self.doors.drain(canaries, self.app.deploy.drain)
        await asyncio.gather(*(i.retire(self.app.deploy.grace) for i in self.started))
        stopped = [i for i in self._retired if i.process is None or i.process.exit is not None]
        if stopped and self.old is not None:
            self._tell("start", f"bringing release {self.old.id} back")
            await self._bring_back(stopped, self.old)

    async def _bring_back(self, stopped: list[Instance], old: Release) -> None:
        again: list[Instance] = []
        for instance in stopped:
            fresh = Instance.create(self.host, Recipe(self.app, old, instance.row.process))
            again.append(fresh)
            with contextlib.suppress(SpawnError):  # supervised from here on, it is tried again
                fresh.start()
        with contextlib.suppress(DeployFailed):
            await self._probe([i for i in again if i.process is not None])
        now = [i for i in self.serving if i not in stopped] + again
        self.host.state.commit_swap(self.app.name, old.id, [(i.row.process, i.row.number) for i in now])
        for instance in now:
            instance.stood("serving")
        self.committed(now)
        await self.doors.publish()

    def _find(self, units: tuple[rollout.Unit, ...]) -> list[Instance]:
        wanted = {(u.process, u.number) for u in units}
        return [i for i in (*self.serving, *self._retired) if (i.row.process, i.row.number) in wanted]

    def _failure(self, instance: Instance, message: str, code: str) -> DeployFailed:
        return DeployFailed(
            self.app.name,
            f"{self.app.name}: {instance.id} of release {self.release.id} {message}",
            code=code,
            log_lines=instance.last_lines(_TAIL),
            log_path=str(instance.log),
        )

    def _tell(self, phase: Phase, message: str) -> None:
        self.host.progress.tell(self.app.name, phase, message)


def _shares(new: str, old: Sequence[str], spec: CanarySpec) -> dict[str, int]:
    """Return the share of each release: the new one's weight, the rest to the old ones; empty without an old one."""
    others = sorted(set(old) - {new})
    if not others:
        return {}
    rest = (100 - spec.weight) * 100
    return {new: spec.weight * 100, **{label: rest // len(others) for label in others}}


def upstreams(instances: Sequence[Instance]) -> list[Upstream]:
    """Return what the door may send requests to: the ``web`` instances that serve."""
    return [
        Upstream(i.target_id, i.row.port, i.row.release, i.state != "unhealthy")
        for i in instances
        if i.row.process == WEB and i.row.port is not None and i.serves
    ]


def units(instances: Sequence[Instance]) -> list[rollout.Unit]:
    """Return instances as the planner sees them."""
    return [rollout.Unit(i.row.process, i.row.number, i.row.launch) for i in instances]
