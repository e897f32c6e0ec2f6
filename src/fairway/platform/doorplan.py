"""The door's workers as processes: what they are started with, and that their ports are free; needs no event loop."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.command import Command
from fairway.platform.errors import PortTaken
from fairway.platform.owner import DOOR_APP
from fairway.platform.state import DoorRow
from fairway.run import environment, ports
from fairway.run.cgroup import Cgroup
from fairway.run.spare import SpareGone
from fairway.run.spawn import Launch, Spawned, SpawnError, spawn

if TYPE_CHECKING:
    from fairway.platform.machine import Machine
    from fairway.platform.tls import Certificates, TlsConfig
    from fairway.run.spare import Spare

ACCESS_LOG_APP = "_door"
_STRAY_PATIENCE = 2.0  # seconds for SIGKILL to work


class DoorSetup(msgspec.Struct, frozen=True):
    """What every worker is started with beside its address.

    Attributes:
        tls: How HTTPS is served, or None for plain HTTP alone.
        access_log: Share of successful requests that the access log takes, 0.0 to 1.0 (errors always); None for none.
        trusted: Networks (CIDR) whose ``X-Forwarded-*`` are believed.
    """

    tls: TlsConfig | None = None
    access_log: float | None = 1.0
    trusted: tuple[str, ...] = ()


class DoorPlan:
    """The workers that are to run on one address.

    Args:
        machine: The machine.
        address: Host and port to listen on.
        workers: Processes that share the port, >= 1.
        setup: What they are started with.
    """

    def __init__(
        self, machine: Machine, address: tuple[str, int], workers: int = 1, setup: DoorSetup | None = None
    ) -> None:
        self.address = address
        self.count = workers
        self.setup = setup or DoorSetup()
        self.certificates = _certificates(self.setup.tls, machine) if self.setup.tls is not None else None
        self._machine = machine

    @property
    def listen(self) -> str:
        """Where they listen and what with, as it is written in the state file."""
        host, port = self.address
        return " ".join((f"{host}:{port} x{self.count}", *self.options))

    @property
    def options(self) -> list[str]:
        """The options that every worker has in common; others than a running worker has ask for a new one."""
        found: list[str] = []
        if self.certificates is not None:
            tls = self.certificates.config
            found += ["--tls-listen", f"{_bracketed(tls.host)}:{tls.port}"]
            found += ["--certificates", str(self.certificates.folder)]
            if tls.acme is not None:
                found += ["--acme-challenges", str(self.certificates.challenges)]
        if self.setup.access_log is not None:
            found += ["--access-log-sample", f"{self.setup.access_log:g}"]
        for network in self.setup.trusted:
            found += ["--trusted", network]
        return found

    def check_port(self) -> None:
        """Make sure, before anything is touched, that the address is free or held by a door of this state folder.

        Raises:
            PortTaken: Another program listens there; the message names it.
        """
        own = {row.record.pid for row in self._machine.state.doors()}
        asked = [(*self.address, "the door", "--listen")]
        if (tls := self.setup.tls) is not None:
            asked.append((tls.host, tls.port, "HTTPS", "--tls-listen"))
        for host, port, what, option in asked:
            if ports.is_free(port, host) or ports.listener_among(port, own) or self._end_stray(host, port, own):
                continue
            holder = ports.holder(port) or "another process"
            raise PortTaken(
                f"expected to listen on {host}:{port} for {what}, it is held by {holder}",
                hint=f"Stop that program, or choose another port with `fairway up {option} 127.0.0.1:PORT`.",
            )

    def _end_stray(self, host: str, port: int, own: set[int]) -> bool:
        """End the worker that holds a port and that nobody has written down: its daemon was killed as it started it.

        Returns:
            Whether the port is free now.
        """
        from fairway.run import proctable

        table = proctable.snapshot()
        marked = proctable.marked(table, f"{self._machine.owner}/{DOOR_APP}/").keys() - own
        strays = [pid for pid in marked if ports.listener_among(port, (pid,))]
        if not strays:
            return False
        from fairway.run.exitwatch import signal_exact

        for pid in strays:
            signal_exact(pid, table[pid].started, signal.SIGKILL)
        until = time.monotonic() + _STRAY_PATIENCE
        while not (free := ports.is_free(port, host)) and time.monotonic() < until:
            time.sleep(0.01)
        return free

    def check_certificates(self) -> None:
        """Make sure, before anything is touched, that the operator's certificate can be used. Raises `TlsError`."""
        if self.certificates is not None:
            self.certificates.check()

    def begin(self, begun: dict[int, Spawned], spare: Spare | None = None) -> None:
        """Start every worker where nothing has to be adopted or prepared first.

        They take as long to come up as the daemon itself. A worker that does not start is left to `Doors.start`, which
        tries again and says why it does not work.

        Args:
            begun: Gets them by their number, each at once, so that whoever interrupts this can end it.
            spare: A process that waits to become the first of them; it is dismissed where there is no need for it.
        """
        if spare is not None and spare.marker != self._machine.layout.door_marker(0):
            spare.close()
            spare = None
        if self.certificates is None and not self._machine.state.doors():
            with contextlib.suppress(SpawnError, OSError):
                for number in range(self.count):
                    given, spare = spare, None
                    begun[number] = self._spawn_or_order(number, given)
        if spare is not None:
            spare.close()

    def _spawn_or_order(self, number: int, spare: Spare | None) -> Spawned:
        if spare is not None:
            with contextlib.suppress(SpareGone):
                return self.spawn(number, spare)
        return self.spawn(number)

    def spawn(self, number: int, spare: Spare | None = None) -> Spawned:
        """Start a worker's process and note it in the state file.

        Args:
            number: The worker's number.
            spare: A process that waits to become this worker, or None for a new one.
        """
        layout, marker = self._machine.layout, self._machine.layout.door_marker(number)
        layout.door_socket(number).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = layout.log_file(DOOR_APP, "door", number)
        arguments = self._arguments(number)
        if spare is not None:
            output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            spawned = Spawned(spare.pid, spare.order(arguments, output).started, marker, Cgroup((), "none"))
        else:
            argv = (sys.executable, "-m", "fairway.proxy", *arguments)
            spawned = spawn(Launch(Command(argv, environment.of_module(marker), Path("/")), output, marker))
        try:
            self._machine.state.save_door(DoorRow(worker=number, listen=self.listen, record=spawned.record()))
        except BaseException:  # a full disk: what is not written down is nobody's, and would hold the port for ever
            spawned.kill()
            raise
        return spawned

    def _arguments(self, number: int) -> list[str]:
        host, port = self.address
        found = ["--listen", f"{_bracketed(host)}:{port}", "--socket", str(self._machine.layout.door_socket(number))]
        found.append("--await-routes")  # what the last daemon's worker has left names instances that are gone
        found += self.options
        if self.setup.access_log is not None:
            access_log = self._machine.layout.log_file(ACCESS_LOG_APP, "access", number)
            access_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            found += ["--access-log", str(access_log)]
        if self.count > 1:
            found.append("--reuse-port")
        return found

    def __repr__(self) -> str:
        return f"<DoorPlan {self.listen}>"


def _certificates(tls: TlsConfig, machine: Machine) -> Certificates:
    from fairway.platform.tls import Certificates

    return Certificates(tls, machine.layout.certificates)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
