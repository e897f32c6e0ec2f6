"""The opening of the daemon: all that has to be so before it runs, and what can be on its way while it is loaded.

Synchronous and without an event loop, for importing one takes as long as an app of this kind takes to come up: the
state folder is taken and every port asked for before anything is touched, and then the door's workers and the apps of
the head start are started, in processes of their own, on processors that would be idle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from fairway.platform import headstart
from fairway.platform.doorplan import DoorPlan
from fairway.platform.errors import StateDirError
from fairway.platform.headstart import HeadStart
from fairway.platform.listen import listen
from fairway.platform.lock import DaemonLock
from fairway.platform.look import Look, look
from fairway.platform.machine import Machine, app_environment
from fairway.platform.state import StateStore
from fairway.run import cgroup
from fairway.run.reaper import become_subreaper

if TYPE_CHECKING:
    import socket

    from fairway.platform.config import DaemonConfig
    from fairway.run.spare import Spare
    from fairway.run.spawn import Spawned


class Opening(msgspec.Struct):
    """What the daemon goes on with.

    Attributes:
        config: How it runs.
        machine: Paths, state, ports, control groups.
        plan: The door's workers.
        doors: Workers that are on their way, by number, until `Doors` takes them.
        head_start: Instances that are on their way, until their apps take them.
        listener: Socket that listens for the API.
        seen: The registry's folder from before it was read.
    """

    config: DaemonConfig
    machine: Machine
    plan: DoorPlan
    doors: dict[int, Spawned]
    head_start: HeadStart
    listener: socket.socket
    seen: Look

    def give_up(self) -> None:
        """Kill what nobody has taken."""
        self.head_start.give_up(self.machine)
        while self.doors:
            number, spawned = self.doors.popitem()
            spawned.kill()
            self.machine.state.remove_door(number)


@contextmanager
def opened(config: DaemonConfig, spare: Spare | None = None) -> Iterator[Opening]:
    """Take the state folder and the ports, and start what can be started; given back on exit.

    Args:
        config: How the daemon runs.
        spare: A process that waits to become the first worker of the door, or None; it is this function's from now on.

    Raises:
        StateDirError: The state folder cannot be written.
        AlreadyRunning: Another daemon holds it.
        PortTaken: A port is held by another program; the message names it.
        TlsError: The operator's certificate cannot be used.
    """
    with contextlib.closing(spare) if spare is not None else contextlib.nullcontext():
        yield from _opened(config, spare)


def _opened(config: DaemonConfig, spare: Spare | None) -> Iterator[Opening]:
    layout = config.layout
    try:
        layout.create()
    except OSError as error:
        raise StateDirError(
            f"expected to write the state folder {layout.root}, got: {error.strerror}",
            hint="Run it as the folder's owner, or set FAIRWAY_STATE_DIR to a folder that can be written.",
        ) from error
    with DaemonLock(layout.lock) as lock, contextlib.closing(StateStore(layout.database)) as state:
        machine = Machine(layout, state, app_environment(layout, config.api_url))
        plan = DoorPlan(machine, (config.door_host, config.door_port), config.door_workers, config.door)
        # Every port is asked for before anything is touched.
        plan.check_port()
        plan.check_certificates()
        with listen(config.api_host, config.api_port, what="API", option="--api") as listener:
            lock.write(config.api_url)
            opening = Opening(config, machine, plan, {}, HeadStart(), listener, look(config.registry))
            try:
                _start(opening, spare, clean=lock.clean)
                yield opening
            finally:
                opening.give_up()


def _start(opening: Opening, spare: Spare | None, *, clean: bool) -> None:
    machine, config = opening.machine, opening.config
    opening.plan.begin(opening.doors, spare)
    machine.hierarchies = cgroup.discover(machine.owner)
    become_subreaper()  # before there is an instance that could lose a child
    # After a crash there may be instances to adopt, and processes that nobody has written down: one after the other.
    if clean and not machine.state.instances():
        headstart.begin(machine, opening.head_start, config.registry, config.apps)
