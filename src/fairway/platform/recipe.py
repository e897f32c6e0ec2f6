"""How an instance is started: its command, its place in the state file, its port, control group and log.

Needs no event loop: `fairway.platform.headstart` starts what serves before the daemon has loaded the rest of itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from fairway.build.plan import GRACE
from fairway.command import Command
from fairway.platform import loglines
from fairway.platform.machine import WEB, fixed_port, launch_digest
from fairway.platform.state import InstanceRow
from fairway.run import environment, proctable
from fairway.run.cgroup import Cgroup
from fairway.run.release import with_port
from fairway.run.spawn import Launch, Spawned, SpawnError, spawn

if TYPE_CHECKING:
    from pathlib import Path

    from fairway.apps.spec import AppSpec
    from fairway.platform.machine import Machine
    from fairway.run.release import Release


class Recipe(msgspec.Struct, frozen=True):
    """What an instance is made from.

    Attributes:
        app: The app's specification.
        release: What is run.
        process: Name of the process, ``web`` or another.
    """

    app: AppSpec
    release: Release
    process: str

    @property
    def command(self) -> Command:
        """The release's command of this process."""
        return self.release.processes[self.process]

    @property
    def wants_port(self) -> bool:
        """Whether it gets a port: ``web`` does, and whoever's command asks for one."""
        texts = (*self.command.argv, *self.command.env.values())
        return self.process == WEB or any("$PORT" in text or "${PORT}" in text for text in texts)

    @property
    def in_container(self) -> bool:
        """Whether an engine's process listens for it, not one of its own."""
        return self.release.in_container

    def engine_command(self, command: Command, port: int | None, grace: float) -> Command:
        """Return the release's `stop` or `clear` with an instance's port and its grace in whole seconds put in."""
        words = (str(math.ceil(grace)) if word == GRACE else word for word in command.argv)
        argv = tuple(word if port is None else with_port(word, port) for word in words)
        own = {"FAIRWAY_APP": self.app.name, "FAIRWAY_RELEASE": self.release.id, "PORT": str(port or 0)}
        env = environment.compose(self.release.env, command.env, own, marker="")
        del env[proctable.MARKER]  # it is no part of the instance
        return Command(argv, MappingProxyType(env), command.cwd)

    @property
    def fixed_port(self) -> int | None:
        """The port that it insists on, or None."""
        return fixed_port(self.app, self.release) if self.process == WEB else None

    def start_command(self, machine_env: Mapping[str, str], port: int | None, marker: str) -> Command:
        """Return the command of an instance with its port put in and its whole environment.

        Args:
            machine_env: Variables that every app gets.
            port: The instance's port, or None.
            marker: What its processes are known by.
        """
        command = self.command
        own = {"FAIRWAY_APP": self.app.name, "FAIRWAY_RELEASE": self.release.id, **machine_env}
        argv, layers = command.argv, [self.release.env, command.env]
        if port is not None:
            argv = tuple(with_port(word, port) for word in argv)
            if self.release.kind == "docker":
                from fairway.build import docker

                argv = docker.limited(argv, self.app.limits.memory, self.app.limits.cpus)
            layers = [{k: with_port(v, port) for k, v in layer.items()} for layer in layers]
            own["PORT"] = str(port)
        env = environment.compose(*layers, own, marker=marker)
        return Command(argv, MappingProxyType(env), command.cwd)


def new_row(machine: Machine, recipe: Recipe) -> InstanceRow:
    """Return a new, staged instance with a number of its own, as it is written; nothing runs yet."""
    row = InstanceRow(
        app=recipe.app.name,
        process=recipe.process,
        number=machine.state.next_number(recipe.app.name, recipe.process),
        release=recipe.release.id,
        launch=launch_digest(recipe.app, recipe.release),
        standing="staged",
    )
    machine.state.save_instance(row)
    return row


def place(machine: Machine, recipe: Recipe, row: InstanceRow) -> InstanceRow:
    """Give an instance a port where it wants one, and note that it is about to start. Raises `PortsExhausted`."""
    port: int | None = None
    if recipe.wants_port:
        port = recipe.fixed_port or machine.ports.take()
    # Written before the process exists: killed in between, the next daemon finds it by its marker.
    row = msgspec.structs.replace(row, port=port, record=None, started_at=machine.clock.time())
    machine.state.save_instance(row)
    return row


def launch(machine: Machine, recipe: Recipe, row: InstanceRow) -> tuple[InstanceRow, Spawned]:
    """Start the process of an instance that has its place, and note it.

    Raises:
        SpawnError: It cannot be started; the instance's log says so too.
    """
    output = instance_log(machine, row)
    limits, id_ = recipe.app.limits, f"{row.process}.{row.number}"
    # Of this start alone: what the one before has left behind is ended while this one comes up.
    start = f"{id_}.{row.restarts}"
    # What is started of a container is the engine's client, which limits are not meant for.
    memory, cpus = (None, None) if recipe.in_container else (limits.memory, limits.cpus)
    cgroup = Cgroup.create(machine.hierarchies, f"{row.app}.{start}", memory=memory, cpus=cpus)
    wanted = limits.memory is not None or limits.cpus is not None
    if wanted and recipe.release.kind == "compose":
        loglines.note(output, f"{id_}: limits are not enforced, those of the Compose file are")
    elif wanted and not recipe.in_container and cgroup.limits == "none":
        loglines.note(output, f"{id_}: limits are not enforced, no control group can be written here")
    marker = f"{machine.owner}/{row.app}/{start}"
    try:
        spawned = spawn(Launch(recipe.start_command(machine.env, row.port, marker), output, marker, cgroup))
    except SpawnError as error:
        cgroup.remove()
        loglines.note(output, f"{id_}: {error}")
        raise
    try:
        row = msgspec.structs.replace(row, record=spawned.record())
        machine.state.save_instance(row)
    except BaseException:  # a full disk: what is not written down is nobody's
        spawned.kill()
        raise
    return row, spawned


def instance_log(machine: Machine, row: InstanceRow) -> Path:
    """Return the log file of an instance."""
    return machine.layout.log_file(row.app, row.process, row.number)
