"""One instance: a numbered place for a process, with its port, its log file and its restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from fairway.errors import FairwayError
from fairway.health.conditions import parse
from fairway.health.probe import ProbeTarget
from fairway.platform import loglines
from fairway.platform.gate import Gate, GateFailed, wait_ready
from fairway.platform.host import WEB, Host
from fairway.platform.recipe import Recipe, instance_log, launch, new_row, place
from fairway.platform.restart import Backoff
from fairway.platform.state import InstanceRow, Standing
from fairway.platform.status import InstanceState, InstanceStatus
from fairway.run import proctable
from fairway.run.process import Process, SpawnError
from fairway.telemetry import log

if TYPE_CHECKING:
    from pathlib import Path

    from fairway.command import Command
    from fairway.platform.headstart import Early

_LEFTOVER_GRACE = 2.0
_WORKER_SETTLE = 0.3
_ENGINE_PATIENCE = 15.0  # seconds beyond an instance's grace that a container engine has to end it


async def end_containers(recipe: Recipe, command: Command, port: int | None, grace: float) -> str:
    """Have a container engine carry out a release's `stop` or `clear`; return what went wrong, or an empty string.

    Args:
        recipe: What the instance was made from.
        command: `Release.stop` or `Release.clear`.
        port: The instance's port.
        grace: Seconds that containers have to end by themselves, >= 0.
    """
    from fairway.run.engine import converse

    asked = recipe.engine_command(command, port, grace)
    failure = await converse(asked, asked.env, grace + _ENGINE_PATIENCE)
    return f"expected the container engine to end it, {asked.argv[0]} {asked.argv[1]} got {failure}" if failure else ""


class Instance:
    """One instance of one process of one app.

    Its life: made `staged`, `start`ed, `wait_ready`, then `supervise`d while it serves, and `retire`d.

    Attributes:
        row: What is written of it in the state file.
        state: What a person is told.
        process: Its process group, None before the first start and while it waits for the next.
        exit: How it ended last, or None.
        start_seconds: How long it took to get ready when this daemon started it last, or None.
    """

    def __init__(self, host: Host, recipe: Recipe, row: InstanceRow) -> None:
        self.row = row
        self.recipe = recipe
        self.state: InstanceState = "starting"
        self.process: Process | None = None
        self.exit: str | None = None
        self.next_start_at: float | None = None
        self._host = host
        self._backoff = Backoff()
        self.start_seconds: float | None = None
        self._started_at: float | None = None
        self._ready_at: float | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._log_from = 0

    @classmethod
    def create(cls, host: Host, recipe: Recipe) -> Instance:
        """Make a new, staged instance with a number of its own; nothing runs yet."""
        return cls(host, recipe, new_row(host, recipe))

    @classmethod
    def begun(cls, host: Host, recipe: Recipe, early: Early) -> Instance:
        """Take an instance that runs already: it was started before the daemon had loaded the rest of itself."""
        instance = cls(host, recipe, early.row)
        instance.process = Process.watch(early.spawned)
        instance._log_from, instance._started_at = early.log_from, early.started_at
        return instance

    @classmethod
    def adopt(cls, host: Host, recipe: Recipe, row: InstanceRow) -> Instance | None:
        """Take over an instance that an earlier daemon started; None if its leader is gone."""
        process = Process.adopt(row.record) if row.record is not None else None
        if process is None:
            return None
        instance = cls(host, recipe, row)
        instance.process = process
        instance.state = "healthy" if row.process == WEB else "running"
        instance._ready_at = host.clock.monotonic()
        if row.port is not None:
            host.ports.claim(row.port)
        return instance

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """``<process>.<number>``."""
        return f"{self.row.process}.{self.row.number}"

    @property
    def target_id(self) -> str:
        """Name of its upstream in the door; a restart on another port is another upstream."""
        return f"{self.row.app}/{self.id}@{self.row.port}"

    @property
    def log(self) -> Path:
        """Its log file."""
        return instance_log(self._host, self.row)

    @property
    def serves(self) -> bool:
        """Whether requests may be sent to it."""
        return self.process is not None and self.process.exit is None and self.state in {"healthy", "unhealthy"}

    def probe_target(self, *, relayed: bool = False) -> ProbeTarget:
        """What a health check asks. Only for instances with a port.

        Args:
            relayed: Whether a connection alone says nothing, as through a container engine.
        """
        health = self.recipe.app.health
        return ProbeTarget(
            "127.0.0.1",
            self.row.port or 0,
            health.path,
            health.timeout,
            tuple(parse(condition) for condition in health.conditions),
            host_header=self.recipe.app.domain if health.path is not None else None,
            relayed=relayed,
        )

    def last_lines(self, count: int = 50) -> tuple[str, ...]:
        """Return what it wrote last, since its latest start."""
        return loglines.last_lines(self.log, count, since=self._log_from)

    def status(self, table: proctable.ProcessTable | None = None) -> InstanceStatus:
        """Describe it; with a look at all processes, its tree and memory too."""
        process = self.process
        members = process.members(table) if process is not None and table is not None else set()
        return InstanceStatus(
            id=self.id,
            app=self.row.app,
            process=self.row.process,
            number=self.row.number,
            state=self.state,
            release=self.row.release,
            pid=process.pid if process is not None and process.exit is None else None,
            port=self.row.port,
            restarts=self.row.restarts,
            started_at=self.row.started_at,
            next_start_at=self.next_start_at,
            exit=self.exit,
            memory=None
            if table is None or not members or self.recipe.in_container
            else proctable.resident(table, members),
            members=len(members),
            limits=process.cgroup.limits if process is not None else "none",
            log=str(self.log),
        )

    # -- what it does ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start its process on a fresh port. Raises `SpawnError`, `PortsExhausted`."""
        self._give_port_back()
        self.state, self.next_start_at = "starting", None
        self.row = place(self._host, self.recipe, self.row)
        self._log_from = loglines.size(self.log)
        self._started_at = self._host.clock.monotonic()
        self.row, spawned = launch(self._host, self.recipe, self.row)
        self.process = Process.watch(spawned)

    async def wait_ready(self) -> None:
        """Wait until it may serve: ``web`` passes the deploy gate, another process has not ended at once.

        Raises:
            GateFailed: It will not.
        """
        process = self.process
        assert process is not None
        if self.row.process == WEB:
            contained = self.recipe.in_container
            target = self.probe_target(relayed=contained)
            gate = Gate(target, self.recipe.app.health.start_timeout, check_owner=not contained)
            await wait_ready(process, gate, prober=self._host.prober)
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _WORKER_SETTLE)
            if process.exit is not None:
                raise GateFailed(f"ended with {process.exit} at once", code="deploy.exited")
        self.state = "healthy" if self.row.process == WEB else "running"
        self._ready_at = self._host.clock.monotonic()
        if self._started_at is not None:
            self.start_seconds = self._ready_at - self._started_at

    def supervise(self, changed: Callable[[Instance], None]) -> None:
        """Restart it from now on whenever it ends by itself, for ever.

        Args:
            changed: Called when it stops or begins to be able to serve; must not block.
        """
        self._supervisor = self._host.background.start(
            self._supervise(changed), name=f"supervise {self.row.app}/{self.id}"
        )

    async def retire(self, grace: float) -> None:
        """Stop it for good: SIGTERM, `grace` seconds, SIGKILL; its row goes when its processes are gone."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        self.state = "stopping"
        self._stand("retiring")
        await self._ask_engine(self.recipe.release.stop, grace)
        if self.process is not None:
            exit_ = await self.process.stop(grace)
            self.exit = str(exit_)
        await self._ask_engine(self.recipe.release.clear, grace)
        self.state = "stopped"
        self._give_port_back()
        self._host.state.remove_instance(self.row.app, self.row.process, self.row.number)

    def leave(self) -> None:
        """Let it run on without this daemon."""
        if self._supervisor is not None:
            self._supervisor.cancel()
        if self.process is not None:
            self.process.abandon()

    def stood(self, standing: Standing) -> None:
        """Note what `StateStore.commit_swap` has written."""
        self.row = msgspec.structs.replace(self.row, standing=standing)

    def judge(self, healthy: bool) -> bool:
        """Take the health checker's verdict; returns whether it changed anything."""
        state: InstanceState = "healthy" if healthy else "unhealthy"
        if self.state not in {"healthy", "unhealthy"} or self.state == state:
            return False
        self.state = state
        return True

    # -- inside ----------------------------------------------------------------------------------------------

    async def _supervise(self, changed: Callable[[Instance], None]) -> None:
        while True:
            process = self.process
            if process is not None:
                await process.exited.recv_ok()
                self._ended(process)
                changed(self)
                cleaning = self._host.background.start(self._clean(process), name=f"clean {self.row.app}/{self.id}")
                if self.recipe.fixed_port is not None or self.recipe.in_container:
                    # Else what it left behind is ended beside its restart, which has a fresh port and need not wait.
                    await asyncio.wait({cleaning})
            await self._pause()
            try:
                self._save(restarts=self.row.restarts + 1)
                self.start()
                await self.wait_ready()
            except SpawnError as error:
                self.process, self.exit = None, str(error)
                changed(self)
            except GateFailed as error:
                loglines.note(self.log, f"{self.id} {error}")
                if self.process is not None and self.process.exit is None:
                    await self.process.stop(self.recipe.app.deploy.grace)
                await self._ask_engine(self.recipe.release.clear, _LEFTOVER_GRACE)
            else:
                changed(self)

    def _ended(self, process: Process) -> None:
        self.exit = str(process.exit)
        self.state = "backoff"
        log.get("platform").warning("instance ended", app=self.row.app, instance=self.id, exit=self.exit)

    async def _clean(self, process: Process) -> None:
        try:
            await process.clean(_LEFTOVER_GRACE)
        except FairwayError as error:
            log.get("platform").error("processes left behind", app=self.row.app, instance=self.id, error=str(error))
        await self._ask_engine(self.recipe.release.clear, _LEFTOVER_GRACE)

    async def _ask_engine(self, command: Command | None, grace: float) -> None:
        """Carry out the release's `stop` or `clear`, where there is one; its log says what went wrong."""
        if command is not None:
            failure = await end_containers(self.recipe, command, self.row.port, grace)
            if failure:
                loglines.note(self.log, f"{self.id}: {failure}")

    async def _pause(self) -> None:
        clock = self._host.clock
        uptime = clock.monotonic() - self._ready_at if self._ready_at is not None else 0.0
        self._ready_at = None
        delay = self._backoff.next(uptime)
        self.state = "backoff"
        self.next_start_at = clock.time() + delay
        when = f"in {delay:.1f} s" if delay else "now"
        loglines.note(self.log, f"{self.id} ended ({self.exit}), restart {self.row.restarts + 1} {when}")
        if delay:
            await clock.sleep(delay)

    def _save(self, **changes: object) -> None:
        self.row = msgspec.structs.replace(self.row, **changes)
        self._host.state.save_instance(self.row)

    def _stand(self, standing: Standing) -> None:
        self._save(standing=standing)

    def _give_port_back(self) -> None:
        if self.row.port is not None:
            self._host.ports.give_back(self.row.port)

    def __repr__(self) -> str:
        return f"<Instance {self.row.app}/{self.id} {self.state} {self.row.standing} port={self.row.port}>"
