"""`JobService`: a store as a service: what the HTTP and gRPC faces speak to.

It opens the store, fires its schedules, checks what it has been told of queues and kinds, and knows which waiting
claim belongs to which worker, so that a worker that drains can end its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence

from fairway.jobs.errors import InvalidJob, QueueNotFound
from fairway.jobs.job import Enqueued, Lease, NewBatch, NewJob, QueueStatus, Schedule
from fairway.jobs.schedule import Scheduler
from fairway.jobs.store import Store
from fairway.jobs.tasks import Tasks


class JobService:
    """A job store that is served.

    Args:
        store: The store; opened and closed with the service.
        tasks: Where given, only these kinds are accepted, and arguments are checked against their signatures.
        queues: Where given, only these queues are accepted.
    """

    def __init__(self, store: Store, *, tasks: Tasks | None = None, queues: Iterable[str] | None = None) -> None:
        self.store = store
        self.tasks = tasks
        self.known_queues = None if queues is None else frozenset(queues)
        self._scheduler: Scheduler | None = None
        self._schedules: asyncio.Task[None] | None = None
        self._waiting: dict[str, set[asyncio.Task[object]]] = {}
        self._ended: set[asyncio.Task[object]] = set()  # those of `_waiting` that `end_claims` has cancelled
        self._draining = False

    async def open(self) -> None:
        """Open the store and fire its schedules from now on. Raises `StoreUnavailable`."""
        await self.store.open()
        self._scheduler = Scheduler(self.store, self.store.options.clock)
        self._schedules = asyncio.create_task(self._scheduler.run(), name="job-schedules")

    async def close(self) -> None:
        """End waiting claims and close the store. Idempotent."""
        task, self._schedules = self._schedules, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self.drain()
        await self.store.close()

    def drain(self) -> None:
        """Answer all waiting claims with nothing, and let none wait any more: the server is about to stop."""
        self._draining = True
        for worker in list(self._waiting):
            self.end_claims(worker)

    async def __aenter__(self) -> JobService:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Awaitable[Enqueued]:
        """`Store.enqueue`, after a look at kinds and queues.

        Raises:
            UnknownTask, InvalidJob: A kind or queue that this service does not have, or arguments that do not fit.
        """
        self._check_all(jobs, batch)
        return self.store.enqueue(jobs, batch)

    def enqueue_soon(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> asyncio.Future[Enqueued]:
        """`Store.enqueue_soon`, after the same look."""
        self._check_all(jobs, batch)
        return self.store.enqueue_soon(jobs, batch)

    def _check_all(self, jobs: Sequence[NewJob], batch: NewBatch | None) -> None:
        if self.tasks is None and self.known_queues is None:
            return
        for n, job in enumerate(jobs):
            self._check(job, f"jobs[{n}].")
        if batch is not None and batch.callback is not None:
            self._check(batch.callback, "batch.callback.")

    def _check(self, job: NewJob, at: str) -> None:
        if self.known_queues is not None and job.queue not in self.known_queues:
            known = ", ".join(sorted(self.known_queues))
            raise InvalidJob(
                f"no queue is named {job.queue!r}; known: {known}", field=f"{at}queue", code="jobs.unknown_queue"
            )
        if self.tasks is not None:
            try:
                self.tasks.get(job.kind).decode(job.args)
            except InvalidJob as error:
                error.field = f"{at}{error.field}"
                raise
        for n, link in enumerate(job.then):
            self._check(link, f"{at}then[{n}].")

    async def claim(self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float) -> list[Lease]:
        """`Store.claim`, which `end_claims` of the same worker ends with an empty list."""
        if wait_s <= 0 or self._draining:
            return await self.store.claim(queues, limit, lease_s, worker)
        # In the caller's task: a task of its own would be two more turns of the loop before a job starts.
        task = asyncio.current_task()
        assert task is not None
        waiting = self._waiting.setdefault(worker, set())
        waiting.add(task)
        try:
            return await self.store.claim(queues, limit, lease_s, worker, wait_s)
        except asyncio.CancelledError:
            if task not in self._ended or task.uncancel():
                raise
            return []
        finally:
            self._ended.discard(task)
            waiting.discard(task)
            if not waiting and self._waiting.get(worker) is waiting:
                del self._waiting[worker]

    def end_claims(self, worker: str) -> int:
        """Answer every waiting claim of `worker` with nothing; return how many there were."""
        tasks = self._waiting.get(worker, set()) - self._ended
        for task in tasks:
            self._ended.add(task)
            task.cancel()
        return len(tasks)

    async def queue(self, name: str) -> QueueStatus:
        """Return one queue. Raises `QueueNotFound`."""
        for status in await self.store.queues():
            if status.name == name:
                return status
        raise QueueNotFound(f"no queue is named {name!r}")

    async def put_schedule(self, schedule: Schedule) -> None:
        """Store a schedule and look at once whether it is due. Raises `InvalidJob`."""
        self._check(schedule.job, "job.")
        await self.store.put_schedule(schedule)
        if self._scheduler is not None:
            self._scheduler.wake()

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<JobService {self.store!r} [{waiting} waiting claims]>"
