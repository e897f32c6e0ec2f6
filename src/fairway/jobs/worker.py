"""`Worker`: claims jobs, runs their handlers, settles them; several at once, until it is told to drain.

```
   store ──claim──► fetcher ──Pile──► runner × concurrency ──Pile──► settler ──settle──► store
                                        held: id → fence ──► heartbeat thread ──renew──► store
```
A batch of jobs rings for one runner, which runs one after the other as long as handlers end without suspending; when
one suspends, as many runners are rung for as there are jobs left. A short job so costs no switch of tasks. A task that
a handler has left changed, by a context variable or a cancellation, is not given to the next: its runner takes a fresh
one.

The fetcher asks for what the runners can take, and for a tenth of a second's work more, measured, so that short jobs
come in batches and long ones are not hoarded. The settler sends what has gathered while its last call was under way.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from msgspec import Struct, field

from fairway.concurrency import Closed, Context, background, with_cancel
from fairway.jobs.client import HttpStore
from fairway.jobs.errors import InvalidJob, JobError, StoreUnavailable
from fairway.jobs.heartbeat import Heartbeat
from fairway.jobs.job import Lease, Outcome, Released, Stopped, Verdict
from fairway.jobs.pile import Pile
from fairway.jobs.running import CANCELLED, DRAINED, LOST, Attempt, Executor
from fairway.jobs.schedule import Scheduler
from fairway.jobs.store import Store
from fairway.jobs.tasks import Tasks
from fairway.telemetry import log

_PREFETCH_S = 0.1  # seconds of work fetched ahead
_CALM = 16  # jobs fetched ahead below which a job's start is worth more than a claim that is early
_CLAIM_LIMIT = 1_000
_WAIT_S = 30.0  # how long one claim waits for a job
_SETTLE_MANY = 1_000


class WorkerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a worker works.

    Attributes:
        queues: Queue → weight, >= 1: how much more often it is asked first.
        concurrency: Handlers at once, 1 to 10,000.
        prefetch: Jobs fetched ahead at most; less where jobs are long. 0 fetches none ahead.
        lease_s: Seconds until another worker may have a job of a worker that fell silent.
        heartbeat_s: Seconds between renewals; how soon a cancellation is heard of. At most a third of `lease_s`.
        grace_s: Seconds that running handlers have to finish in a drain; what is left is handed back.
        name: What the store calls this worker; default is host, process id and a random part.
    """

    queues: dict[str, int] = field(default_factory=lambda: {"default": 1})
    concurrency: int = 16
    prefetch: int = 512
    lease_s: float = 30.0
    heartbeat_s: float = 2.0
    grace_s: float = 10.0
    name: str = ""

    def check(self) -> None:
        """Raise `InvalidJob` for a value out of its bounds."""
        if not self.queues:
            raise InvalidJob("expected at least one queue, got none", field="queues")
        for queue, weight in self.queues.items():
            if weight < 1:
                raise InvalidJob(f"expected the weight of queue {queue!r} to be at least 1", field="queues")
        if not 1 <= self.concurrency <= 10_000:
            raise InvalidJob(f"expected concurrency between 1 and 10000, got {self.concurrency}", field="concurrency")
        if self.prefetch < 0:
            raise InvalidJob(f"expected prefetch of at least 0, got {self.prefetch}", field="prefetch")
        if not 0 < self.lease_s <= 86_400:
            raise InvalidJob(f"expected lease_s above 0 and at most 86400, got {self.lease_s}", field="lease_s")
        if not 0 < self.heartbeat_s <= 86_400:
            raise InvalidJob(f"expected heartbeat_s above 0, got {self.heartbeat_s}", field="heartbeat_s")
        if not 0 <= self.grace_s <= 86_400:
            raise InvalidJob(f"expected grace_s from 0 to 86400, got {self.grace_s}", field="grace_s")


class WorkerStatistics(Struct, frozen=True, kw_only=True):
    """A worker at one instant: jobs held, running, settled since its start, and settled with a stale fence."""

    held: int
    running: int
    settled: int
    lost: int


class Worker:
    """Runs the jobs of some queues; `run` until its context ends, or ``async with worker:`` in the background.

    Args:
        store: Open store, in this process or over HTTP.
        tasks: What can be run; a job of another kind fails, and is tried again by its backoff.
        config: How; None for the defaults.

    Raises:
        InvalidJob: The configuration is out of its bounds.
    """

    def __init__(self, store: Store, tasks: Tasks, config: WorkerConfig | None = None) -> None:
        self.config = config or WorkerConfig()
        self.config.check()
        self.name = self.config.name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._store = store
        self._tasks = tasks
        self._held: dict[int, int] = {}
        self._waiting: Pile[Lease] = Pile(self.config.concurrency)
        self._ended: Pile[Outcome] = Pile(1)
        self._attempts: dict[int, Attempt] = {}
        self._revoked: set[int] = set()  # cancelled while they waited for a runner
        self._gone: set[tuple[int, int]] = set()  # reported lost while they waited, or while they were being settled
        self._room: asyncio.Event | None = None
        self._draining = False
        self._settled = 0
        self._lost = 0
        self._log = log.get("worker", worker=self.name)

    # Life ---------------------------------------------------------------------------------------------------------

    async def run(self, ctx: Context | None = None) -> None:
        """Work until `ctx` ends, then drain: claim no more, hand back what has not begun, finish or hand back the rest.

        Cancelling the calling task drains too, with no grace.

        Raises:
            StoreUnavailable: Outcomes could not be told to the store within the drain; their leases will expire.
        """
        ctx = ctx if ctx is not None else background()
        loop = asyncio.get_running_loop()
        config = self.config
        executor = Executor(self._tasks, self._store, config.concurrency)
        self._waiting, self._ended = Pile(config.concurrency), Pile(1)
        self._room = asyncio.Event()
        heartbeat = Heartbeat(
            self._store,
            self._held,
            lease_s=config.lease_s,
            interval_s=min(config.heartbeat_s, config.lease_s / 3),
            report=lambda told: _call_soon(loop, self._stop_attempts, told),
        )
        heartbeat.start()
        fetcher = asyncio.create_task(self._fetch(heartbeat), name="fetcher")
        runners = [asyncio.create_task(self._keep_running(executor)) for _ in range(config.concurrency)]
        settler = asyncio.create_task(self._settle(), name="settler")
        schedules = asyncio.create_task(self._schedule(), name="scheduler")
        grace = config.grace_s
        try:
            await _first_end(ctx, fetcher, settler, schedules, *runners)
        except asyncio.CancelledError:
            grace = 0.0
            raise
        finally:
            self._draining = True
            await self._end_claims(fetcher)
            await _end(fetcher, schedules)
            await self._drain(runners, grace)
            self._ended.close()
            try:
                async with asyncio.timeout(max(5.0, grace)):
                    await settler
            except TimeoutError as error:
                raise StoreUnavailable(f"{len(self._held)} jobs could not be settled in the drain") from error
            finally:
                await asyncio.to_thread(heartbeat.stop)
                await executor.close()
        for ended in (fetcher, schedules, *runners):
            # A runner whose handler ignores its cancellation is not done; its job was handed back.
            if ended.done() and not ended.cancelled() and ended.exception() is not None:
                raise ended.exception() or AssertionError("an exception that vanished")

    async def _end_claims(self, fetcher: asyncio.Task[None]) -> None:
        """Have a store behind HTTP answer the waiting claim: cancelling it here could leave a lease unseen there."""
        if isinstance(self._store, HttpStore) and not fetcher.done():
            try:
                await self._store.end_claims(self.name)
            except (JobError, OSError) as error:
                self._log.warning("cannot end the waiting claim", error=str(error))
            else:
                await asyncio.wait((fetcher,), timeout=2.0)

    async def _drain(self, runners: list[asyncio.Task[None]], grace: float) -> None:
        self._ended.items.extend(Released(lease.id, lease.fence) for lease in self._waiting.items)
        self._ended.ring()
        self._waiting.items.clear()
        self._waiting.close()
        if self._attempts:
            self._log.info("draining", running=len(self._attempts), grace_s=grace)
        _, late = await asyncio.wait(runners, timeout=grace)
        if late:
            for attempt in list(self._attempts.values()):
                attempt.interrupt(DRAINED)
            # A handler that ignores cancellation, or a thread, does not keep the worker alive for ever.
            _, late = await asyncio.wait(late, timeout=2.0)
            for job_id, attempt in list(self._attempts.items()):
                self._ended.items.append(Released(job_id, attempt.lease.fence))
            self._ended.ring()
            for runner in late:
                runner.cancel()

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[Worker]:
        ctx = with_cancel(background())
        running = asyncio.create_task(self.run(ctx), name="worker")
        try:
            yield self
        finally:
            ctx.cancel()
            await running

    async def __aenter__(self) -> Worker:
        self._block = self._background()
        return await self._block.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        await self._block.__aexit__(None, None, None)

    # Fetch --------------------------------------------------------------------------------------------------------

    async def _fetch(self, heartbeat: Heartbeat) -> None:
        """Claim jobs while there is room for them."""
        config, held = self.config, self._held
        loop = asyncio.get_running_loop()
        assert self._room is not None
        pause, seen, since = 0.1, 0, time.monotonic()
        ahead = 0
        while not self._draining:
            now = time.monotonic()
            if now - since >= _PREFETCH_S:
                rate, seen, since = (self._settled - seen) / (now - since), self._settled, now
                ahead = min(config.prefetch, int(rate * _PREFETCH_S))
            room = config.concurrency + ahead - len(held)
            # Not for one free slot at a time where jobs are short: half of what is held ahead makes a batch.
            if room <= ahead // 2:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                leases = await self._store.claim(
                    self._order(), min(room, _CLAIM_LIMIT), config.lease_s, self.name, _WAIT_S
                )
            except (StoreUnavailable, OSError) as error:
                self._log.warning("cannot claim", error=str(error), again_in_s=round(pause, 1))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                pause = min(5.0, pause * 2)
                continue
            pause = 0.1
            if leases:  # also in a drain: what was leased has to be handed back
                for lease in leases:
                    held[lease.id] = lease.fence
                if heartbeat.idle:
                    heartbeat.wake()
                self._waiting.items.extend(leases)
                self._waiting.ring()
                loop.call_soon(self._ring_for_all)  # after that runner's turn
                if ahead < _CALM:
                    await asyncio.sleep(0)  # what was claimed begins before more is asked for

    def _order(self) -> list[str]:
        """Return the queues in a random order in which one of twice the weight is twice as often the first."""
        queues = self.config.queues
        if len(queues) == 1:
            return list(queues)
        # Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
        keys = {queue: random.random() ** (1.0 / weight) for queue, weight in queues.items()}  # noqa: S311
        return sorted(keys, key=keys.__getitem__, reverse=True)

    def _ring_for_all(self) -> None:
        """Wake a runner for every job that still waits: the handler of one that was taken before is suspended."""
        if self._waiting.items and not self._draining:
            self._waiting.ring(len(self._waiting))

    # Run ----------------------------------------------------------------------------------------------------------

    async def _keep_running(self, executor: Executor) -> None:
        """One of `concurrency` runners: tasks, one after the other, until one has found the end of the jobs."""
        me = asyncio.current_task()
        assert me is not None
        ended = False
        while not ended:
            task = asyncio.create_task(self._run_jobs(executor, me), context=contextvars.copy_context())
            try:
                ended = await task
            except asyncio.CancelledError:
                if me.cancelling():
                    raise  # else by its handler, after the job's end: nobody else has this task

    async def _run_jobs(self, executor: Executor, runner: asyncio.Task[None]) -> bool:
        """Run jobs until there will be no more, True, or until a handler has left this task changed, False."""
        me = asyncio.current_task()
        assert me is not None
        before = contextvars.copy_context()
        attempts, waiting, ended = self._attempts, self._waiting.items, self._ended
        while True:
            if not waiting:
                try:
                    await self._waiting.wait()
                except Closed:
                    return True
                continue
            lease = waiting.popleft()
            if self._gone and (lease.id, lease.fence) in self._gone:
                self._forget(lease)  # lost while it waited here
                continue
            if self._revoked and lease.id in self._revoked:
                ended.items.append(Stopped(lease.id, lease.fence))
                ended.ring()
                continue
            attempt = Attempt(lease, me, runner)
            attempts[lease.id] = attempt
            try:
                outcome = await executor.execute(attempt)
            finally:
                if attempts.get(lease.id) is attempt:
                    del attempts[lease.id]
            if outcome is None:
                self._forget(lease)
            else:
                ended.items.append(outcome)
                if ended.parked:
                    ended.ring()
            if attempt.orphan is not None:
                await executor.bury(attempt)
            if me.cancelling() or not _is_unchanged(before):
                return False

    def _forget(self, lease: Lease) -> None:
        if self._held.get(lease.id) == lease.fence:
            del self._held[lease.id]
        self._revoked.discard(lease.id)
        self._gone.discard((lease.id, lease.fence))
        self._lost += 1
        if self._room is not None:
            self._room.set()

    def _stop_attempts(self, told: list[tuple[int, int, Verdict]]) -> None:
        """Interrupt the handlers of jobs that were cancelled or lost; runs on the loop."""
        for job_id, fence, verdict in told:
            if self._held.get(job_id) != fence:
                continue
            attempt = self._attempts.get(job_id)
            if attempt is not None and attempt.lease.fence == fence:
                if verdict is Verdict.LOST:
                    self._log.warning("lease lost", job=job_id, fence=fence)
                attempt.interrupt(LOST if verdict is Verdict.LOST else CANCELLED)
            elif verdict is Verdict.CANCEL:
                self._revoked.add(job_id)
            else:
                self._gone.add((job_id, fence))

    # Settle -------------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Tell the store how attempts ended, as many at a time as have gathered."""
        held, revoked, items = self._held, self._revoked, self._ended.items
        while True:
            if not items:
                try:
                    await self._ended.wait()
                except Closed:
                    if not items:
                        return
                continue
            ended = [items.popleft() for _ in range(min(len(items), _SETTLE_MANY))]
            verdicts = await self._tell(ended)
            for outcome, verdict in zip(ended, verdicts, strict=True):
                if held.get(outcome.id) == outcome.fence:
                    del held[outcome.id]
                if verdict is Verdict.LOST:
                    self._lost += 1
                    self._log.warning("stale outcome", job=outcome.id, fence=outcome.fence)
            if revoked or self._gone:
                revoked.difference_update(outcome.id for outcome in ended)
                self._gone.difference_update((outcome.id, outcome.fence) for outcome in ended)
            self._settled += len(ended)
            if self._room is not None:
                self._room.set()

    async def _tell(self, ended: list[Outcome]) -> list[Verdict]:
        """Settle, again and again while the store cannot take it; the heartbeat keeps the leases meanwhile."""
        pause = 0.1
        while True:
            try:
                return await self._store.settle(ended)
            except (StoreUnavailable, OSError) as error:
                self._log.warning("cannot settle", error=str(error), outcomes=len(ended), again_in_s=round(pause, 1))
            except JobError as error:
                # Refused as a whole, which one bad outcome can cause: each by itself.
                if len(ended) > 1:
                    return [verdict for outcome in ended for verdict in await self._tell([outcome])]
                self._log.error("outcome refused", job=ended[0].id, error=str(error))
                return [Verdict.LOST]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            pause = min(5.0, pause * 2)

    async def _schedule(self) -> None:
        """Put the registry's schedules into the store and fire them; does nothing where there are none."""
        if self._tasks.schedules:
            await Scheduler(self._store).run(self._tasks.schedules)
        else:
            await asyncio.get_running_loop().create_future()

    def statistics(self) -> WorkerStatistics:
        """Return counters."""
        return WorkerStatistics(
            held=len(self._held), running=len(self._attempts), settled=self._settled, lost=self._lost
        )

    def __repr__(self) -> str:
        state = "draining" if self._draining else "working"
        return f"<Worker {self.name} {state} [{len(self._attempts)} running, {len(self._held)} held]>"


def _is_unchanged(before: contextvars.Context) -> bool:
    """Say whether the context variables of this task are still what they were."""
    now = contextvars.copy_context()
    return len(now) == len(before) and (not before or all(now.get(name) is value for name, value in before.items()))


async def _first_end(ctx: Context, *tasks: asyncio.Task[None]) -> None:
    """Wait until `ctx` ends, or one of `tasks` fails."""
    ended = asyncio.ensure_future(ctx.done().recv_ok())
    try:
        await asyncio.wait((ended, *tasks), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        with suppress(asyncio.CancelledError):
            await ended


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _call_soon(loop: asyncio.AbstractEventLoop, call: object, value: object) -> None:
    with suppress(RuntimeError):  # the loop has been closed: there is nobody left to tell
        loop.call_soon_threadsafe(call, value)  # type: ignore[arg-type]  # see the callers
