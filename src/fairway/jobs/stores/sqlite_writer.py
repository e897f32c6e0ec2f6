"""The one thread that writes the SQLite store's file: group commit.

Operations queue while a commit is at the disk; then all of them go into the next transaction, and their callers hear
of it through one wake-up of their event loop. There is no timer and no polling: the thread sleeps until an operation
comes or something is due. Claims are served last, so that a job enqueued in a transaction can be leased in it; claims
that find nothing are parked here and tried again whenever something was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from fairway.jobs.errors import JobError, StoreUnavailable
from fairway.jobs.job import Lease, Released
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.sqlite_engine import Engine
from fairway.jobs.stores.sqlite_schema import WAL_PAGES, FileLock, extend_wal, open_writer, which_file

_log = logging.getLogger(__name__)

GROUP = 1_024
"""Operations that one transaction takes at most."""

_ASIDE_S = 0.001  # that who was told of a commit has the interpreter to himself, where no operation comes
_LONGEST_SLEEP_S = 60.0  # the wall clock may be set while the thread sleeps
_RETRY_S = 1.0  # after maintenance failed, as on a full disk


class Operation:
    """Something to do in the next transaction, and who waits for it."""

    __slots__ = ("error", "future", "loop", "result", "run")

    def __init__(self, run: Callable[[Engine], Any], loop: asyncio.AbstractEventLoop | None) -> None:
        self.run = run
        self.loop = loop
        self.future: asyncio.Future[Any] | None = None if loop is None else loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None


class Claim(Operation):
    """A claim: served last, parked until `deadline` (monotonic) when there is nothing."""

    __slots__ = ("abandoned", "deadline", "lease_s", "limit", "queues", "worker")

    def __init__(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, *, deadline: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        super().__init__(self._claim, loop)
        self.queues = queues
        self.limit = limit
        self.lease_s = lease_s
        self.worker = worker
        self.deadline = deadline
        self.abandoned = False

    def _claim(self, engine: Engine) -> list[Lease]:
        return engine.claim(self.queues, self.limit, self.lease_s, self.worker)


class _FileGone(Exception):
    """What was written went to a file that nobody can open."""


class Writer:
    """Owns the write connection and its thread.

    A file that is moved, replaced or removed ends it: what is not answered by then, and all that comes later, fails.

    Args:
        path: The database file; ``path.lock`` beside it keeps other processes out.
        options: Bounds and clock of the store.
    """

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.waiters: dict[int, list[asyncio.Future[None]]] = {}
        self.engine: Engine | None = None
        self._path = path.absolute()  # whatever the current folder becomes
        self._file: tuple[int, int] | None = None  # which one was opened
        self._options = options
        self._operations: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._parked: list[Claim] = []
        self._thread: threading.Thread | None = None
        self._connection: apsw.Connection | None = None  # the writer thread's
        self._closed = False
        self._ended: StoreUnavailable | None = None  # why the thread is gone although nobody closed the store
        self._stale = False  # the engine's memory has to be rebuilt
        self._retry_at = 0.0
        self._sized = False  # the log has its size
        self._told = False  # somebody was woken and not yet made way for
        self.commits = 0
        self.operations = 0

    # Any thread ---------------------------------------------------------------------------------------------------

    def start(self, ready: Callable[[BaseException | None], None]) -> None:
        """Start the thread; `ready` is called from it once the file is open, with the error if it is not."""
        self._thread = threading.Thread(target=self._main, args=(ready,), name="fairway-sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """Queue an operation; its future is resolved in its loop after the commit."""
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is not open")
        self._operations.put(operation)
        if self._ended is not None:
            self._refuse_left()

    def stop(self) -> None:
        """Finish what was submitted and end the thread; blocks until it has."""
        self._closed = True
        if self._thread is not None:
            self._operations.put(None)
            self._thread.join()
            self._thread = None

    # The writer thread --------------------------------------------------------------------------------------------

    def _main(self, ready: Callable[[BaseException | None], None]) -> None:
        lock = connection = None
        try:
            lock = FileLock(self._path.with_name(self._path.name + ".lock"))
            connection = open_writer(self._path)
            self._connection = connection
            self._file = which_file(self._path)
            engine = Engine(connection, self._options, self.waiters)
            engine.load()
        except (apsw.Error, OSError, JobError) as error:
            if connection is not None:
                connection.close()
            if lock is not None:
                lock.release()
            ready(error if isinstance(error, JobError) else StoreUnavailable(f"cannot open {self._path}: {error}"))
            return
        self.engine = engine
        ready(None)
        try:
            self._serve(engine)
        except _FileGone:
            _log.critical("the file of the job store %s was moved, replaced or removed", self._path)
            self._ended = self._gone()
            self._refuse_left()
        except Exception as error:  # a bug, but nobody may wait for a thread that is gone
            _log.critical("the writer of the job store %s has ended", self._path, exc_info=error)
            self._ended = StoreUnavailable(
                f"the job store {self._path} has stopped writing: {type(error).__name__}: {error}"
            )
            self._refuse_left()
        finally:
            self._park_none()
            self._connection = None
            connection.close()
            lock.release()

    def _serve(self, engine: Engine) -> None:
        while True:
            operations, more = self._gather(engine)
            self._cycle(engine, operations)
            if not more:
                return

    def _checkpoint(self, waits: bool = False) -> bool:
        """Copy the log into the file once it is long: now that all callers know, and rather while nobody waits.

        Returns:
            Whether the next transaction begins the log anew, which costs it a write to the disk more.
        """
        assert self._connection is not None
        written = self._connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
        if written < WAL_PAGES or (written < 2 * WAL_PAGES and (waits or not self._operations.empty())):
            return False
        # Whatever comes of it: a full disk is asked again after as many pages. And a count that is never set back has
        # its end at 2^31, days away where much is written.
        self._connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)
        try:
            frames, copied = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            _log.warning("the log of the job store %s cannot be folded into its file: %s", self._path, error)
            return False
        return frames == copied > 0

    def _gather(self, engine: Engine) -> tuple[list[Operation], bool]:
        """Return the operations of the next transaction, and whether there will be another."""
        operations: list[Operation] = []
        try:
            operation = self._next(engine)
        except queue.Empty:
            return operations, True
        while operation is not None:
            operations.append(operation)
            if len(operations) == GROUP or self._operations.empty():  # nobody else takes from it
                return operations, True
            operation = self._operations.get_nowait()
        return operations, False

    def _next(self, engine: Engine) -> Operation | None:
        """Wait for an operation, or for what is due. Raises `queue.Empty`.

        Whoever was told of a commit wakes up meanwhile and wants the interpreter. What is to be done here before the
        wait would hold him up, on a calm machine by a tenth of what the commit took; so it is done after a short one.
        """
        if self._told and self._sized:
            self._told = False
            try:
                operation = self._operations.get(timeout=_ASIDE_S)
            except queue.Empty:
                pass
            else:
                self._checkpoint(waits=True)
                return operation
        if not self._sized and self.commits:  # not at the start, which others wait for; then once, also if busy
            self._sized = True
            extend_wal(self._path)
        if self._checkpoint() and self._operations.empty():
            self._cycle(engine, [Operation(Engine.begin_log, None)])
        wait = self._sleep_for(engine)
        return self._operations.get(timeout=wait) if wait > 0 else self._operations.get_nowait()

    def _sleep_for(self, engine: Engine) -> float:
        wait = engine.next_event()
        if self._parked:
            wait = min(wait, engine.next_token())
        if wait <= 0 and self._retry_at:
            wait = self._retry_at - self._options.clock.monotonic()
        if self._parked:
            wait = min(wait, min(claim.deadline for claim in self._parked) - self._options.clock.monotonic())
        return 0.0 if wait <= 0 else min(_LONGEST_SLEEP_S, wait + 0.0005)

    def _cycle(self, engine: Engine, operations: list[Operation]) -> None:
        """Carry out operations in one transaction and tell their callers."""
        parked = [claim for claim in self._parked if not claim.abandoned]
        self._parked = []
        claims: list[Claim] = list(parked)
        done: list[Operation] = []
        try:
            if self._stale:
                engine.load()
                self._stale = False
            engine.tick()
            self._maintain(engine)
            for operation in operations:
                if isinstance(operation, Claim):
                    claims.append(operation)
                    continue
                done.append(operation)
                try:
                    operation.result = operation.run(engine)
                except JobError as error:  # raised before anything was changed
                    operation.error = error
            # First in the line of those who hear of it: a job's start matters more than its producer's answer.
            done = [*self._serve_claims(engine, claims), *done]
            engine.commit()
        except Exception as error:  # whatever it was, its callers hear of it
            self._undo(engine, operations, parked, error)
            return
        if which_file(self._path) != self._file:
            self._fail(done)
            raise _FileGone
        self.commits += 1
        self.operations += len(operations)
        self._deliver(done, engine.finished)
        engine.finished = []

    def _maintain(self, engine: Engine) -> None:
        moment = self._options.clock.monotonic()
        if engine.next_event() <= 0 and moment >= self._retry_at:
            self._retry_at = moment + _RETRY_S  # until the commit has worked
            engine.maintain()

    def _serve_claims(self, engine: Engine, claims: list[Claim]) -> list[Operation]:
        served: list[Operation] = []
        moment = self._options.clock.monotonic()
        # A worker that let a lease run out may be stopped or cut off, with its claim still waiting here: the job would
        # go to it again. It is answered with nothing; if it lives, it claims anew.
        silent, engine.silent = engine.silent, set()
        at = 0

        def wanted(name: str) -> int:
            return sum(claim.limit for claim in claims[at:] if name in claim.queues)

        engine.wanted = wanted
        for at, claim in enumerate(claims):  # noqa: B007 - `wanted` reads it
            claim.result = [] if claim.worker in silent else claim.run(engine)
            if claim.result or claim.deadline <= moment or claim.worker in silent:
                served.append(claim)
            else:
                self._parked.append(claim)
        engine.wanted = None  # it holds the claims
        return served

    def _undo(self, engine: Engine, operations: list[Operation], parked: list[Claim], error: Exception) -> None:
        """Roll back. A fault of the machine fails all operations; any other is looked for one operation at a time."""
        self._parked = parked
        self._stale = True
        try:
            engine.rollback()
        except apsw.Error as second:
            _log.warning("rollback failed: %s", second)
        machine_fault = isinstance(
            error, (apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.BusyError, apsw.ReadOnlyError, MemoryError)
        )
        if not machine_fault and len(operations) > 1:
            for at, operation in enumerate(operations):
                operation.error = None
                try:
                    self._cycle(engine, [operation])
                except _FileGone:
                    self._fail(operations[at + 1 :])
                    raise
            return
        if machine_fault:
            _log.error("the job store %s cannot write: %s", self._path, error)
        else:
            _log.error("an operation on the job store %s failed", self._path, exc_info=error)
        for operation in operations:
            operation.result = None  # what a claim was given was undone: its fences are given out again
            operation.error = StoreUnavailable(f"the job store cannot write: {type(error).__name__}: {error}")
            operation.error.__cause__ = error
        self._deliver(operations, [])
        if not operations:
            self._retry_at = self._options.clock.monotonic() + _RETRY_S

    def _deliver(self, done: list[Operation], finished: list[int]) -> None:
        if self._retry_at and not any(operation.error for operation in done):
            self._retry_at = 0.0
        loops = {operation.loop for operation in done if operation.loop is not None}
        waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for job_id in finished:
            for future in self.waiters.get(job_id, ()):
                waiters.setdefault(future.get_loop(), []).append(future)
        self._told = bool(loops or waiters)
        alone = len(loops) == 1
        for loop in loops.union(waiters) if waiters else loops:
            mine = done if alone and loop in loops else [x for x in done if x.loop is loop]
            try:
                loop.call_soon_threadsafe(self._resolve, mine, waiters.get(loop, ()))
            except RuntimeError:  # the loop was closed with calls under way: nobody is left to hear of them
                self._hand_back([x for x in mine if isinstance(x, Claim)])

    def _resolve(self, done: list[Operation], waiters: Sequence[asyncio.Future[None]]) -> None:
        """Runs in the callers' event loop."""
        for operation in done:
            future = operation.future
            if future is None:
                continue  # nobody waits for it
            if future.done():  # its task was cancelled meanwhile
                if isinstance(operation, Claim):
                    self._hand_back([operation])
            elif operation.error is not None:
                future.set_exception(operation.error)
            else:
                future.set_result(operation.result)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _hand_back(self, claims: list[Claim]) -> None:
        """Release what a claim leased after its caller had gone."""
        leases = [Released(x.id, x.fence) for claim in claims for x in claim.result or ()]
        if leases and not self._closed:
            self._operations.put(Operation(lambda engine: engine.settle(leases), None))

    def abandon(self, claim: Claim) -> None:
        """Forget a claim whose caller was cancelled; what it may have leased meanwhile is handed back."""
        claim.abandoned = True
        future = claim.future
        if future is not None and future.done() and not future.cancelled() and future.exception() is None:
            self._hand_back([claim])

    def _fail(self, operations: list[Operation]) -> None:
        for operation in operations:
            operation.error = self._gone()
        self._deliver(operations, [])

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"the file of the job store {self._path} was moved, replaced or removed while it was open",
            hint="put it back where it is wanted, and start again what uses it",
        )

    def _refuse_left(self) -> None:
        """Fail what is queued for a thread that is gone. Runs in it at its end, and in callers that come later."""
        left: list[Operation] = []
        with contextlib.suppress(queue.Empty):
            while True:
                operation = self._operations.get_nowait()
                if operation is not None:
                    operation.error = self._ended
                    left.append(operation)
        self._deliver(left, [])

    def _park_none(self) -> None:
        for claim in self._parked:
            claim.result = []
        self._deliver(list(self._parked), [])
        self._parked = []

    def statistics(self) -> dict[str, int]:
        """Return counters: transactions committed, operations in them, claims that wait."""
        return {"commits": self.commits, "operations": self.operations, "waiting_claims": len(self._parked)}

    def __repr__(self) -> str:
        state = "closed" if self._closed or self._thread is None else "open"
        return f"<Writer {self._path.name} {state} [{self.commits} commits, {len(self._parked)} waiting claims]>"
