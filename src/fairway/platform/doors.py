"""The door's processes: started, told their routes, restarted, and found again after a crash of the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from fairway.errors import FairwayError
from fairway.platform.doorplan import DoorPlan
from fairway.platform.errors import PlatformError
from fairway.platform.owner import DOOR_APP
from fairway.platform.restart import Backoff
from fairway.platform.routing import Public
from fairway.platform.state import DoorRow
from fairway.proxy.control import DoorClient, Statistics
from fairway.proxy.errors import ControlError, ProxyError, RouteError
from fairway.proxy.routes import Route, RouteTable, validate_table
from fairway.run.process import Process
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context
    from fairway.platform.host import Host
    from fairway.run.spawn import Spawned

_START_TIMEOUT = 20.0
_STOP_GRACE = 2.0
_ADOPT_PATIENCE = 2.0
_NOTHING = -1  # no revision of the routes


class DoorFailed(PlatformError):
    """A door worker did not come up."""

    code = "door.failed"


class Worker(msgspec.Struct):
    """One door process and the client that talks to it."""

    number: int
    process: Process
    client: DoorClient
    backoff: Backoff
    started_at: float
    supervisor: asyncio.Task[None] | None = None
    catching_up: bool = False  # whether a task pushes the routes until they are taken


class Doors:
    """The door workers on one address, and the routes that they are to have.

    Args:
        host: The machine.
        plan: Which workers are to run.
        begun: Workers that run already and that nobody watches yet, by number (`DoorPlan.begin`).
    """

    def __init__(self, host: Host, plan: DoorPlan, begun: dict[int, Spawned] | None = None) -> None:
        tls = plan.setup.tls
        self._plan = plan
        self._certificates = plan.certificates
        self.public = Public(plan.address[1], tls.port if tls is not None else None)
        self.workers: dict[int, Worker] = {}
        self._host = host
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
        self._known = asyncio.Event()
        self._early = begun or {}

    # -- processes -------------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Adopt the workers that run, start those that are missing; returns how many were adopted.

        Raises:
            DoorFailed: A worker did not come up; those that were started beside it have ended.
        """
        if self._certificates is not None:
            await asyncio.to_thread(self._certificates.prepare)
        adopted = 0
        for row in self._host.state.doors():
            if row.worker not in self._early and await self._adopt(row):
                adopted += 1
        missing = [n for n in range(self._plan.count) if n not in self.workers]
        starting = [asyncio.ensure_future(self._start(n)) for n in missing]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for one in starting:
                one.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await asyncio.gather(*(self._end(self.workers[n], 0.0) for n in missing if n in self.workers))
            raise
        return adopted

    def begin(self) -> None:
        """Begin `start` in the background; `opened` waits for it."""
        self._opening = asyncio.ensure_future(self.start())

    async def opened(self) -> None:
        """Wait until `start` is done; begins it where nobody has. Raises what `start` raises.

        To be called when the routes of every app are noted: workers let nobody in before they have them.
        """
        self._known.set()
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
        self._known.set()
        if self._opening is not None:
            await asyncio.wait({self._opening})
            if not self._opening.cancelled() and (error := self._opening.exception()) is not None:
                log.get("platform").warning("the door did not come up", error=str(error))

    # -- inside ----------------------------------------------------------------------------------------------

    def _table(self) -> RouteTable:
        # Ahead of whatever an earlier daemon has pushed, and of this one's own.
        self._version = max(self._version + 1, int(time.time() * 1000))
        return RouteTable(version=self._version, routes=tuple(r for _, rs in sorted(self._routes.items()) for r in rs))

    async def _push(self, worker: Worker, table: RouteTable) -> bool:
        try:
            await worker.client.push(table)
        except ControlError as error:
            # It is gone or about to be, and its successor gets the table before it counts as started; or it is late,
            # and then it has to get the table although nobody publishes: a new worker lets nobody in without one.
            log.get("platform").warning("door worker takes no routes", worker=worker.number, error=str(error))
            if not worker.catching_up:
                worker.catching_up = True
                name = f"push routes to door {worker.number}"
                self._host.background.start(self._catch_up(worker), name=name)
            return False
        return True

    async def _catch_up(self, worker: Worker) -> None:
        """Push the routes until `worker` takes them, has ended, or the door stops; pauses double up to a minute."""
        pauses = Backoff(failures=1)
        taken = False
        while not (taken or self._stopping or worker.process.exit is not None):
            await asyncio.sleep(pauses.next(0.0))
            async with self._pushing:
                taken = worker.process.exit is None and await self._push(worker, self._table())
        worker.catching_up = False

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
        if not answers or row.listen != self._plan.listen or row.worker >= self._plan.count:
            await self._end(worker, _STOP_GRACE if answers else 0.0)
            return False
        self.workers[row.worker] = worker
        self._watch(worker)
        return True

    async def _start(self, number: int, backoff: Backoff | None = None) -> None:
        begun = self._early.pop(number, None)
        process = Process.watch(begun if begun is not None else self._plan.spawn(number))
        client = DoorClient(self._host.layout.door_socket(number))
        worker = Worker(number, process, client, backoff or Backoff(), time.monotonic())
        try:
            await self._until_taken(worker, client.statistics)
            await self._known.wait()
            await self._until_taken(worker, partial(self._first_routes, worker))
        except BaseException:
            self.workers.pop(number, None)
            await process.stop(0)
            self._host.state.remove_door(number)
            raise
        self._watch(worker)
        if self._certificates is not None:  # pairs may have been made since its process has read them
            await self._reload(worker)

    async def _first_routes(self, worker: Worker) -> None:
        async with self._pushing:
            await worker.client.push(self._table())
            self.workers[worker.number] = worker  # what is published from here on is its too

    async def _until_taken(self, worker: Worker, call: Callable[[], Awaitable[object]]) -> None:
        """Make a call to a worker that comes up until it answers. Raises `DoorFailed` where it does not."""
        clock = asyncio.get_running_loop().time
        pause, until = 0.01, clock() + _START_TIMEOUT
        while True:
            try:
                await call()
                return
            except ControlError as error:
                reason = str(error)
            if worker.process.exit is not None or clock() > until:
                from fairway.platform.loglines import last_lines

                tail = last_lines(self._host.layout.log_file(DOOR_APP, "door", worker.number), 5)
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
        return f"<Doors {self._plan.listen} [{len(self.workers)} up, {len(self._routes)} apps]>"
