"""Jobs in one SQLite file: durable, fenced, without any other program.

One process owns the file (an advisory lock keeps others out; they use the owner's HTTP API). Writes go through one
thread (`sqlite_writer`), which commits many operations at a time with ``synchronous=FULL``: an enqueue is answered
after its commit, so that kill -9 loses no acknowledged job, and a power cut loses none on an honest disk. Reads have a
connection and a thread of their own and see what was committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import apsw
import msgspec

from fairway.jobs import machine
from fairway.jobs.errors import JobError, JobNotFound, StoreUnavailable
from fairway.jobs.job import (
    Batch,
    Enqueued,
    Job,
    JobFilter,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueConfig,
    QueueStatus,
    Schedule,
    ScheduleStatus,
    Verdict,
)
from fairway.jobs.store import Features, Store, StoreOptions
from fairway.jobs.stores import sqlite_rows as rows
from fairway.jobs.stores.sqlite_engine import Engine
from fairway.jobs.stores.sqlite_schema import BLOCKED, STATE_CODES, STATE_NAMES, open_reader
from fairway.jobs.stores.sqlite_writer import Claim, Operation, Writer

T = TypeVar("T")


class SqliteStore(Store):
    """See the module's text. May be called from several event loops of its process.

    Args:
        path: The database file; its folder has to exist.
        options: Bounds, or None for the defaults.
    """

    features = Features(durability="fsync", shared=False, cross_queue=True, survives_restart=True)

    def __init__(self, path: Path, options: StoreOptions | None = None) -> None:
        self.path = path
        self.options = options or StoreOptions()
        self._writer: Writer | None = None
        self._reader: apsw.Connection | None = None
        self._read_thread: ThreadPoolExecutor | None = None

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> SqliteStore:
        """Return the store of ``sqlite:///relative`` or ``sqlite:////absolute``.

        Raises:
            JobError: The URL names no file.
        """
        name = unquote(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else ""
        if not name:
            raise JobError(f"expected sqlite:///path/to/file.db, got {url!r}", code="jobs.store_url")
        return cls(Path(name), options)

    async def open(self) -> None:
        """See `Store.open`."""
        if self._writer is not None:
            return
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[BaseException | None] = loop.create_future()
        writer = Writer(self.path, self.options)
        writer.start(lambda error: _call_soon(loop, opened.set_result, error))
        error = await opened
        if error is not None:
            raise error
        self._reader = open_reader(self.path)
        self._read_thread = ThreadPoolExecutor(1, thread_name_prefix="fairway-sqlite-reader")
        self._writer = writer

    async def close(self) -> None:
        """See `Store.close`."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        assert self._read_thread is not None
        assert self._reader is not None
        # The reader first: only a connection that may write, closed last, folds the WAL into the file and removes it.
        await asyncio.to_thread(self._read_thread.shutdown)
        self._reader.close()
        self._reader = self._read_thread = None
        await asyncio.to_thread(writer.stop)
        await asyncio.sleep(0)  # what the writer's last wake-up resolved
        for futures in list(writer.waiters.values()):
            for future in futures:
                if not future.done():
                    future.set_result(None)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable(f"the store {self.path} is not open")
        return self._writer

    async def _write(self, run: Callable[[Engine], T]) -> T:
        operation = Operation(run, asyncio.get_running_loop())
        self._open_writer().submit(operation)
        assert operation.future is not None
        result: T = await operation.future
        return result

    async def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run a query on the reader's thread."""
        self._open_writer()
        assert self._reader is not None

        def query(connection: apsw.Connection) -> list[Any]:
            try:
                return connection.execute(sql, tuple(values)).fetchall()
            except apsw.Error as error:
                raise StoreUnavailable(f"the job store {self.path} cannot read: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._read_thread, query, self._reader)

    # Producers ----------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:
        """See `Store.enqueue`."""
        return await self.enqueue_soon(jobs, batch)

    def enqueue_soon(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> asyncio.Future[Enqueued]:
        """See `Store.enqueue_soon`: one future, which the writer resolves."""
        machine.check_jobs(jobs, batch, self.options.max_payload)
        operation = Operation(lambda engine: engine.enqueue(jobs, batch), asyncio.get_running_loop())
        self._open_writer().submit(operation)
        assert operation.future is not None
        return operation.future

    async def cancel(self, job_id: int) -> Job:
        """See `Store.cancel`."""
        return await self._write(lambda engine: engine.cancel(job_id))

    async def retry(self, job_id: int) -> Job:
        """See `Store.retry`."""
        return await self._write(lambda engine: engine.retry(job_id))

    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:
        """See `Store.replay`."""
        return await self._write(lambda engine: engine.replay(queue, kind, limit))

    # Workers ------------------------------------------------------------------------------------------------------

    async def claim(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        """See `Store.claim`."""
        machine.check_claim(queues, limit, lease_s, wait_s)
        writer = self._open_writer()
        deadline = self.options.clock.monotonic() + wait_s
        claim = Claim(queues, limit, lease_s, worker, deadline=deadline, loop=asyncio.get_running_loop())
        writer.submit(claim)
        assert claim.future is not None
        try:
            leases: list[Lease] = await claim.future
        except asyncio.CancelledError:
            writer.abandon(claim)
            raise
        return leases

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        """See `Store.renew`."""
        engine = self._open_writer().engine
        assert engine is not None
        until = self.options.clock.monotonic() + lease_s
        verdicts = []
        for job_id, fence in leases:
            run = engine.running.get(job_id)
            if run is None or run.fence != fence:
                verdicts.append(Verdict.LOST)
            else:
                run.lease_until = max(run.lease_until, until)
                verdicts.append(Verdict.CANCEL if run.cancel else Verdict.OK)
        return verdicts

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """See `Store.settle`."""
        machine.check_outcomes(outcomes)
        return await self._write(lambda engine: engine.settle(outcomes))

    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:
        """See `Store.progress`."""
        machine.check_progress(value, note)
        engine = self._open_writer().engine
        assert engine is not None
        run = engine.running.get(job_id)
        if run is None or run.fence != fence:
            return Verdict.LOST
        run.progress, run.note = value, note  # in memory only: it is gone with the process, as the contract allows
        return Verdict.CANCEL if run.cancel else Verdict.OK

    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:
        """See `Store.once`."""
        machine.check_key(key)
        return await self._write(lambda engine: engine.once(job_id, fence, key))

    # Readers ------------------------------------------------------------------------------------------------------

    def _view(self, row: Sequence[Any]) -> Job:
        engine = self._open_writer().engine
        assert engine is not None
        return engine.overlay(rows.view(row, self.options.clock.time()))

    async def get(self, job_id: int) -> Job | None:
        """See `Store.get`."""
        found = await self._read(rows.VIEW + "WHERE jobs.id = ?", (job_id,))
        return self._view(found[0]) if found else None

    async def wait(self, job_id: int, timeout_s: float) -> Job:
        """See `Store.wait`."""
        writer = self._open_writer()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Known to the writer before the state is read: an ending between the two is not missed.
        writer.waiters.setdefault(job_id, []).append(future)
        try:
            job = await self._must_get(job_id)
            if job.final or timeout_s <= 0:
                return job
            await asyncio.wait((future,), timeout=timeout_s)
            return await self._must_get(job_id)
        finally:
            waiting = writer.waiters[job_id]
            waiting.remove(future)
            if not waiting:
                del writer.waiters[job_id]

    async def _must_get(self, job_id: int) -> Job:
        job = await self.get(job_id)
        if job is None:
            raise JobNotFound(f"no job has id {job_id}")
        return job

    async def find(self, where: JobFilter) -> list[Job]:
        """See `Store.find`."""
        machine.check_filter(where)
        conditions: list[str] = []
        values: list[Any] = []
        if where.queue is not None:
            conditions.append("jobs.queue = (SELECT id FROM queues WHERE name = ?)")
            values.append(where.queue)
        if where.state == "available":
            conditions.append(f"state IN ({STATE_CODES['available']}, {BLOCKED})")
        elif where.state is not None:
            conditions.append(f"state = {STATE_CODES[where.state]}")
        if where.kind is not None:
            conditions.append("kind = ?")
            values.append(where.kind)
        if where.before is not None:
            conditions.append("jobs.id < ?")
            values.append(where.before)
        filters = "WHERE " + " AND ".join(conditions) if conditions else ""
        found = await self._read(f"{rows.VIEW} {filters} ORDER BY jobs.id DESC LIMIT ?", (*values, where.limit))
        return [self._view(row) for row in found]

    async def batch(self, batch_id: int) -> Batch | None:
        """See `Store.batch`."""
        found = await self._read("SELECT id, total, pending, failed, called FROM batches WHERE id = ?", (batch_id,))
        if not found:
            return None
        number, total, pending, failed, called = found[0]
        return Batch(id=number, total=total, pending=pending, failed=failed, callback=called)

    async def queues(self) -> list[QueueStatus]:
        """See `Store.queues`."""
        return await self._write(_queue_statuses)

    # Operators and schedules --------------------------------------------------------------------------------------

    async def configure(self, queue: str, config: QueueConfig) -> None:
        """See `Store.configure`."""
        machine.check_queue(queue)
        machine.check_config(config)
        await self._write(lambda engine: engine.configure(queue, config))

    async def pause(self, queue: str, paused: bool = True) -> None:
        """See `Store.pause`."""
        await self._write(lambda engine: engine.pause(queue, paused))

    async def maintain(self) -> None:
        """See `Store.maintain`."""
        await self._write(lambda engine: engine.maintain())

    async def put_schedule(self, schedule: Schedule) -> None:
        """See `Store.put_schedule`."""
        machine.check_schedule(schedule, self.options.max_payload)
        await self._write(lambda engine: engine.put_schedule(schedule))

    async def remove_schedule(self, name: str) -> None:
        """See `Store.remove_schedule`."""
        await self._write(lambda engine: engine.remove_schedule(name))

    async def schedules(self) -> list[ScheduleStatus]:
        """See `Store.schedules`."""
        found = await self._read("SELECT schedule, created_at, last_tick FROM schedules ORDER BY name")
        return [
            ScheduleStatus(
                schedule=msgspec.json.decode(schedule, type=Schedule), created_at=created_at, last_tick=last_tick
            )
            for schedule, created_at, last_tick in found
        ]

    async def ticked(self, name: str, tick: float) -> None:
        """See `Store.ticked`."""
        await self._write(lambda engine: engine.ticked(name, tick))

    def statistics(self) -> dict[str, int]:
        """Return counters: transactions, operations in them, waiting claims, running jobs."""
        writer = self._open_writer()
        running = 0 if writer.engine is None else len(writer.engine.running)
        return {**writer.statistics(), "running": running}

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path} {'closed' if self._writer is None else repr(self._writer)}>"


def _queue_statuses(engine: Engine) -> list[QueueStatus]:
    statuses = []
    for name, queue in sorted(engine.queues.items()):
        counts = dict.fromkeys(STATE_CODES, 0)
        for code, count in enumerate(queue.counts):
            counts[STATE_NAMES[code]] += count
        statuses.append(QueueStatus(name=name, paused=queue.paused, counts=counts, config=queue.config))
    return statuses


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[T], object], value: T) -> None:
    loop.call_soon_threadsafe(call, value)
