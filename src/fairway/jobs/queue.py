"""`Queue`: jobs in a few lines, with or without the platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec
from msgspec import Raw

from fairway.jobs.errors import JobFailed, ResultGone, ResultInvalid
from fairway.jobs.job import Job, NewBatch, NewJob
from fairway.jobs.opening import open_store
from fairway.jobs.store import Store, StoreOptions
from fairway.jobs.tasks import Task, Tasks
from fairway.jobs.worker import Worker, WorkerConfig

P = ParamSpec("P")
R = TypeVar("R")


class JobHandle(Generic[R]):
    """A job that was enqueued.

    Attributes:
        id: The job.
        duplicate: It existed already: a unique key was held.
    """

    __slots__ = ("_returns", "_store", "duplicate", "id")

    def __init__(self, store: Store, job_id: int, returns: Any = Any, duplicate: bool = False) -> None:
        self.id = job_id
        self.duplicate = duplicate
        self._store = store
        self._returns = returns

    async def job(self) -> Job:
        """Return the job as it is now. Raises `JobNotFound`."""
        return await self._store.wait(self.id, 0.0)

    async def result(self, timeout_s: float = 60.0) -> R:
        """Wait for the job's end and return what its handler returned, as the type it is annotated with.

        Raises:
            JobFailed: It ended discarded or cancelled; the message is its error.
            TimeoutError: It had not ended after `timeout_s` seconds.
            JobNotFound: It does not exist any more.
            ResultGone: It completed, and the time to live of its result is over.
            ResultInvalid: The result is not of that type.
        """
        job = await self._store.wait(self.id, timeout_s)
        if not job.final:
            raise TimeoutError(f"job {self.id} was still {job.state} after {timeout_s:g} s")
        if job.state != "completed":
            raise JobFailed(job.error or f"job {self.id} was {job.state}", hint=f"job {self.id} is {job.state}")
        if not isinstance(job.result, Raw):
            raise ResultGone(f"job {self.id} has completed, and its result is no longer kept")
        try:
            value: R = msgspec.json.decode(job.result, type=self._returns)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ResultInvalid(f"job {self.id} of kind {job.kind!r} has a result of another type: {error}") from error
        return value

    async def cancel(self) -> Job:
        """Cancel it; see `Store.cancel`."""
        return await self._store.cancel(self.id)

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"


class Queue:
    """Enqueues jobs into a store and runs workers over it.

    ```python
    tasks = Tasks()

    @tasks.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with Queue("sqlite:///jobs.db") as queue, queue.worker(tasks):
        print(await (await queue.enqueue(add, 1, 2)).result())
    ```

    Args:
        store: A store, or its URL; ``http://…`` is a Fairway daemon.
        options: Bounds of a store given by URL.
    """

    def __init__(self, store: Store | str, options: StoreOptions | None = None) -> None:
        self.store = open_store(store, options) if isinstance(store, str) else store

    async def __aenter__(self) -> Queue:
        await self.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def enqueue(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Enqueue a call of a task; answered once the store has it. Options: ``task.using(delay_s=60)``.

        Raises:
            InvalidJob: The arguments do not fit; nothing was stored.
            StoreUnavailable: The store cannot take it; nothing was stored.
        """
        answer = await self.store.enqueue((task.job(*args, **kwargs),))
        return JobHandle(self.store, answer.ids[0], task.returns, bool(answer.duplicates))

    async def enqueue_many(self, jobs: Sequence[NewJob], callback: NewJob | None = None) -> list[JobHandle[Any]]:
        """Enqueue jobs, all or none; with `callback`, as a batch that enqueues it after its last job.

        Raises:
            InvalidJob: One of them is not valid; nothing was stored.
            StoreUnavailable: The store cannot take them; nothing was stored.
        """
        batch = None if callback is None else NewBatch(callback=callback)
        answer = await self.store.enqueue(jobs, batch)
        duplicates = set(answer.duplicates)
        return [JobHandle(self.store, job_id, duplicate=job_id in duplicates) for job_id in answer.ids]

    async def call(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Enqueue and wait for the result."""
        return await (await self.enqueue(task, *args, **kwargs)).result()

    def handle(self, job_id: int) -> JobHandle[Any]:
        """Return the handle of a job by its id."""
        return JobHandle(self.store, job_id)

    def worker(self, tasks: Tasks, config: WorkerConfig | None = None) -> Worker:
        """Return a worker over this store: ``async with queue.worker(tasks): …``, or ``await ….run(ctx)``."""
        return Worker(self.store, tasks, config)

    def __repr__(self) -> str:
        return f"<Queue {self.store!r}>"
