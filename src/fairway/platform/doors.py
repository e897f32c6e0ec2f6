"""The door's processes: started, told their routes, restarted, and found again after a crash of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.command import Command
from fairway.errors import FairwayError
from fairway.platform.errors import PlatformError, PortTaken
from fairway.platform.restart import Backoff
from fairway.platform.routing import Public
from fairway.platform.state import DoorRow
from fairway.proxy.control import DoorClient, Statistics
from fairway.proxy.errors import ControlError, ProxyError, RouteError
from fairway.proxy.routes import Route, RouteTable, validate_table
from fairway.run import environment, ports
from fairway.run.process import Launch, Process, SpawnError
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context
    from fairway.platform.host import Host
    from fairway.platform.tls import Certificates, TlsConfig

LOG_APP = "_fairway"
ACCESS_LOG_APP = "_door"
_START_TIMEOUT = 20.0
_STOP_GRACE = 2.0
_ADOPT_PATIENCE = 2.0
_NOTHING = -1  # no revision of the routes


class DoorFailed(PlatformError):
    """A door worker did not come up."""

    code = "door.failed"


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


class Worker(msgspec.Struct):
    """One door process and the client that talks to it."""

    number: int
    process: Process
    client: DoorClient
    backoff: Backoff
    started_at: float
    supervisor: asyncio.Task[None] | None = None


class Doors:
    """The door workers on one address, and the routes that they are to have.

    Args:
        host: The machine.
        address: Host and port to listen on.
        workers: Processes that share the port, >= 1.
        setup: What they are started with.
    """

    def __init__(self, host: Host, address: tuple[str, int], workers: int = 1, setup: DoorSetup | None = None) -> None:
        self.address = address
        self._setup = setup or DoorSetup()
        tls = self._setup.tls
        self._certificates = _certificates(tls, host) if tls is not None else None
        self.public = Public(address[1], tls.port if tls is not None else None)
        self.workers: dict[int, Worker] = {}
        self._host = host
        self._count = workers
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._refused: dict[str, str] = {}
        self._revision = 0
        self._in_force = _NOTHING
        self._asked = 0
        self._pushed = 0
        self._version = 0
        self._pushing = asyncio.Lock()
        self._stopping = False
        self._opening: asyncio.Future[int] | None = None
        self._early: dict[int, Process] = {}

    # -- processes -------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Adopt the workers that run, start those that are missing; returns how many were adopted.

        Raises:
            DoorFailed: A worker did not come up.
        """
        if self._certificates is not None:
            await asyncio.to_thread(self._certificates.prepare)
        adopted = 0
        for row in self._host.state.doors():
            if row.worker not in self._early and await self._adopt(row):
                adopted += 1
        missing = [n for n in range(self._count) if n not in self.workers]
        await asyncio.gather(*(self._start(n) for n in missing))
        return adopted

    def begin(self) -> None:
        """Begin `start` in the background; `opened` waits for it.

        Where nothing has to be adopted or prepared first, the workers' processes are on their way when this returns:
        they take as long to start as the rest of the daemon.
        """
        if self._certificates is None and not self._host.state.doors():
            with contextlib.suppress(SpawnError, OSError):  # `start` tries again, and says why it does not work
                for number in range(self._count):
                    self._early[number] = self._spawn(number)
        self._opening = asyncio.ensure_future(self.start())

    async def opened(self) -> None:
        """Wait until `start` is done; begins it where nobody has. Raises what `start` raises."""
        if self._opening is None:
            self.begin()
        assert self._opening is not None
        await asyncio.shield(self._opening)

    async def abandon(self) -> None:
        """Give a start up before anything serves: adopted workers go on, new ones end."""
        await self._settle()
        fresh = [w for w in self.workers.values() if not w.process.adopted]
        self._stopping = True
        await asyncio.gather(*(self._end(worker, 0.0) for worker in fresh))
        self.leave()

    async def stop(self, grace: float) -> None:
        """End every worker: nothing new, requests in flight within `grace` seconds (0: none), then the processes."""
        await self._settle()
        self._stopping = True
        await asyncio.gather(*(self._end(worker, grace) for worker in list(self.workers.values())))

    def leave(self) -> None:
        """Let the workers run on without this daemon."""
        self._stopping = True
        for worker in self.workers.values():
            if worker.supervisor is not None:
                worker.supervisor.cancel()
            worker.process.abandon()

    # -- routes ----------------------------------------------------------------------------------------------

    def set_routes(self, app: str, routes: tuple[Route, ...]) -> str:
        """Note an app's routes for the next `publish`; returns why they are refused, or an empty string.

        A bad app is refused alone: the routes of the others are published all the same.
        """
        if self._routes.get(app, ()) == routes:
            return ""
        self._revision += 1
        reason = ""
        if routes:
            try:
                validate_table(RouteTable(routes=routes))
                others = tuple(r for name, rs in self._routes.items() if name != app for r in rs)
                validate_table(RouteTable(routes=(*others, *routes)))
            except RouteError as error:
                reason = str(error)
        if routes and not reason:
            self._routes[app] = routes
        else:
            self._routes.pop(app, None)
        return reason

    async def publish(self) -> None:
        """Tell every worker the routes noted so far; returns when they are in force. Calls at one time are joined."""
        self._asked += 1
        mine = self._asked
        async with self._pushing:
            if self._pushed >= mine:
                return
            covers, revision = self._asked, self._revision
            if revision == self._in_force:  # a worker that has come since was given the same table
                self._pushed = covers
                return
            table, secured = self._table(), True
            if self._certificates is not None:
                await self._certificates.ensure(self.hosts(), self.reload_certificates)
                secured = not self._certificates.needs(self.hosts())
            taken = await asyncio.gather(*(self._push(worker, table) for worker in list(self.workers.values())))
            self._pushed, self._in_force = covers, revision if secured and all(taken) else _NOTHING

    async def drain(self, targets: list[str], timeout: float) -> int:
        """Let requests in flight to `targets` finish; returns how many were left after `timeout` seconds."""

        async def one(worker: Worker) -> int:
            try:
                return await worker.client.drain(targets, timeout)
            except ControlError as error:
                log.get("platform").warning("door worker does not drain", worker=worker.number, error=str(error))
                return 0

        return sum(await asyncio.gather(*(one(w) for w in list(self.workers.values()))))

    async def statistics(self) -> list[Statistics]:
        """Return the counters of every worker that answers."""
        return list((await self.statistics_by_worker()).values())

    async def statistics_by_worker(self, patience: float = 10.0) -> dict[int, Statistics]:
        """Return the counters of every worker that answers within `patience` seconds, by its number."""

        async def one(worker: Worker) -> tuple[int, Statistics] | None:
            try:
                async with asyncio.timeout(patience):
                    return worker.number, await worker.client.statistics()
            except (ControlError, TimeoutError):
                return None  # it is being restarted; its counters are gone with it

        found = await asyncio.gather(*(one(w) for w in list(self.workers.values())))
        return dict(pair for pair in found if pair is not None)

    # -- certificates ----------------------------------------------------------------------------------------

    def hosts(self) -> list[str]:
        """Return the names that the door serves, ascending."""
        return sorted({route.host for routes in self._routes.values() for route in routes})

    async def reload_certificates(self) -> None:
        """Let every worker read the certificates again, for the connections that come from then on."""
        for worker in list(self.workers.values()):
            await self._reload(worker)

    async def _reload(self, worker: Worker) -> None:
        try:
            await worker.client.reload_certificates()
        except ProxyError as error:
            log.get("platform").error("door worker keeps its certificates", worker=worker.number, error=str(error))

    async def follow_certificates(self, ctx: Context) -> None:
        """Keep the certificates up to date until `ctx` is done; returns at once where the door serves no HTTPS."""
        if self._certificates is not None:
            await self._certificates.follow(ctx, self.hosts, self.reload_certificates)

    async def _settle(self) -> None:
        """Wait for a start that is under way, however it ends."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
            if not self._opening.cancelled() and (error := self._opening.exception()) is not None:
                log.get("platform").warning("the door did not come up", error=str(error))

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _listen(self) -> str:
        host, port = self.address
        return " ".join((f"{host}:{port} x{self._count}", *self._options))

    @property
    def _options(self) -> list[str]:
        """The options that every worker has in common; others than a running worker has ask for a new one."""
        found: list[str] = []
        if self._certificates is not None:
            tls = self._certificates.config
            found += ["--tls-listen", f"{_bracketed(tls.host)}:{tls.port}"]
            found += ["--certificates", str(self._certificates.folder)]
            if tls.acme is not None:
                found += ["--acme-challenges", str(self._certificates.challenges)]
        if self._setup.access_log is not None:
            found += ["--access-log-sample", f"{self._setup.access_log:g}"]
        for network in self._setup.trusted:
            found += ["--trusted", network]
        return found

    def _table(self) -> RouteTable:
        # Ahead of whatever an earlier daemon has pushed, and of this one's own.
        self._version = max(self._version + 1, int(time.time() * 1000))
        return RouteTable(version=self._version, routes=tuple(r for _, rs in sorted(self._routes.items()) for r in rs))

    async def _push(self, worker: Worker, table: RouteTable) -> bool:
        try:
            await worker.client.push(table)
        except ControlError as error:
            # It is gone or about to be: its successor gets the table before it counts as started.
            log.get("platform").warning("door worker takes no routes", worker=worker.number, error=str(error))
            return False
        return True

    def check_port(self) -> None:
        """Make sure, before anything is touched, that the address is free or held by a door of this state folder.

        Raises:
            PortTaken: Another program listens there; the message names it.
        """
        own = {row.record.pid for row in self._host.state.doors()}
        asked = [(*self.address, "the door", "--listen")]
        if (tls := self._setup.tls) is not None:
            asked.append((tls.host, tls.port, "HTTPS", "--tls-listen"))
        for host, port, what, option in asked:
            if not ports.is_free(port, host) and not ports.listener_among(port, own):
                holder = ports.holder(port)
                raise PortTaken(
                    f"expected to listen on {host}:{port} for {what}, it is held by {holder or 'another process'}",
                    hint=f"Stop that program, or choose another port with `fairway up {option} 127.0.0.1:PORT`.",
                )

    def check_certificates(self) -> None:
        """Make sure, before anything is touched, that the operator's certificate can be used. Raises `TlsError`."""
        if self._certificates is not None:
            self._certificates.check()

    async def _adopt(self, row: DoorRow) -> bool:
        process = Process.adopt(row.record)
        if process is None:
            self._host.state.remove_door(row.worker)
            return False
        client = DoorClient(self._host.layout.door_socket(row.worker))
        worker = Worker(row.worker, process, client, Backoff(), time.monotonic())
        answers = True
        try:
            async with asyncio.timeout(_ADOPT_PATIENCE):
                await client.statistics()
        except (ControlError, TimeoutError) as error:
            log.get("platform").warning("door worker does not answer", worker=row.worker, error=str(error))
            answers = False
        if not answers or row.listen != self._listen or row.worker >= self._count:
            await self._end(worker, _STOP_GRACE if answers else 0.0)
            return False
        self.workers[row.worker] = worker
        self._watch(worker)
        return True

    def _spawn(self, number: int) -> Process:
        """Start a worker's process and note it in the state file."""
        host, port = self.address
        socket = self._host.layout.door_socket(number)
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [
            sys.executable,
            "-m",
            "fairway.proxy",
            "--listen",
            f"{_bracketed(host)}:{port}",
            "--socket",
            str(socket),
        ]
        argv += self._options
        if self._setup.access_log is not None:
            access_log = self._host.layout.log_file(ACCESS_LOG_APP, "access", number)
            access_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            argv += ["--access-log", str(access_log)]
        if self._count > 1:
            argv.append("--reuse-port")
        marker = f"{self._host.owner}/{LOG_APP}/door.{number}"
        env = environment.compose({"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}, marker=marker)
        output = self._host.layout.log_file(LOG_APP, "door", number)
        process = Process.start(Launch(Command(tuple(argv), env, Path("/")), output, marker))
        self._host.state.save_door(DoorRow(worker=number, listen=self._listen, record=process.record()))
        return process

    async def _start(self, number: int, backoff: Backoff | None = None) -> None:
        process = self._early.pop(number, None) or self._spawn(number)
        client = DoorClient(self._host.layout.door_socket(number))
        worker = Worker(number, process, client, backoff or Backoff(), time.monotonic())
        await self._answering(worker)
        async with self._pushing:
            if not await self._push(worker, self._table()):
                self._in_force = _NOTHING
            self.workers[number] = worker
        self._watch(worker)
        if self._certificates is not None:  # pairs may have been made since its process has read them
            await self._reload(worker)

    async def _answering(self, worker: Worker) -> None:
        pause, until = 0.01, time.monotonic() + _START_TIMEOUT
        while True:
            try:
                await worker.client.statistics()
                return
            except ControlError as error:
                reason = str(error)
            if worker.process.exit is not None or time.monotonic() > until:
                await worker.process.stop(0)
                from fairway.platform.loglines import last_lines

                tail = last_lines(self._host.layout.log_file(LOG_APP, "door", worker.number), 5)
                why = f"ended with {worker.process.exit}" if worker.process.exit is not None else reason
                raise DoorFailed(f"expected door worker {worker.number} to come up, it {why}: {' / '.join(tail)}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def _watch(self, worker: Worker) -> None:
        worker.supervisor = self._host.background.start(self._supervise(worker), name=f"supervise door {worker.number}")

    async def _supervise(self, worker: Worker) -> None:
        await worker.process.exited.recv_ok()
        while not self._stopping:
            logger = log.get("platform")
            logger.error("door worker ended", worker=worker.number, exit=str(worker.process.exit))
            self.workers.pop(worker.number, None)
            await worker.process.clean(0.5)
            await asyncio.sleep(worker.backoff.next(time.monotonic() - worker.started_at))
            try:
                await self._start(worker.number, worker.backoff)
            except (FairwayError, OSError) as error:
                logger.error("door worker does not start", worker=worker.number, error=str(error))
                worker.started_at = time.monotonic()
            else:
                return

    async def _end(self, worker: Worker, grace: float) -> None:
        if worker.supervisor is not None:
            worker.supervisor.cancel()
        if worker.process.exit is None and grace > 0:
            try:
                await worker.client.stop(grace)
                async with asyncio.timeout(grace + 0.5):
                    await worker.process.wait()
            except (ControlError, TimeoutError):
                log.get("platform").warning("door worker does not end by itself", worker=worker.number)
        await worker.process.stop(min(grace, _STOP_GRACE))
        self.workers.pop(worker.number, None)
        self._host.state.remove_door(worker.number)

    def __repr__(self) -> str:
        return f"<Doors {self._listen} [{len(self.workers)} up, {len(self._routes)} apps]>"


def _certificates(tls: TlsConfig, host: Host) -> Certificates:
    from fairway.platform.tls import Certificates

    return Certificates(tls, host.layout.certificates)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
