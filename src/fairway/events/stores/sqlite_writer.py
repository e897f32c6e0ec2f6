"""One thread that owns one SQLite connection and commits many callers' work at once.

Operations queue up while the previous commit waits for the disk; then all of them go into one transaction, and their
callers wake together after it. No timer: alone, an operation commits at once. What `run_together` was given becomes a
single call in each transaction, so that its SQL costs once what it would cost each: with every step of a statement the
thread gives the interpreter's lock away and has to wait for it. An operation that raises an `EventError` has written
nothing and fails alone. Any other error of one operation (a number that SQLite cannot hold, a bug) rolls the
transaction back, fails that operation, and carries the others out again; an error that none of them caused (disk full,
locked, corrupt) fails all. Nothing ends the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw

from fairway.errors import FairwayError
from fairway.events.errors import BusClosed, EventStoreUnavailable

T = TypeVar("T")
A = TypeVar("A")
_LOG = logging.getLogger("fairway.events")
_GROUP = 256  # operations in one transaction
_OLDEST = (3, 51, 3)  # carries the fix of the WAL reset
# Errors that no single operation caused.
_SHARED = (
    *(apsw.FullError, apsw.IOError, apsw.BusyError, apsw.LockedError, apsw.CorruptError, apsw.NotADBError),
    *(apsw.NoMemError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.ProtocolError),
)


class _Operation:
    __slots__ = ("argument", "done", "error", "future", "result", "together", "work", "writes")

    def __init__(
        self,
        work: Callable[[], Any],
        writes: bool,
        future: asyncio.Future[Any],
        done: Callable[[Any], None] | None,
    ) -> None:
        self.work = work
        self.writes = writes
        self.future = future
        self.done = done
        self.together: Callable[[list[Any]], list[Any]] | None = None
        self.argument: Any = None
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs functions on the connection's thread, from one event loop.

    Args:
        path: Database file, created 0600; its folder has to exist.
        schema: Statements that create what is missing.
    """

    def __init__(self, path: Path, schema: str) -> None:
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < _OLDEST:
            raise EventStoreUnavailable(
                f"expected SQLite {'.'.join(map(str, _OLDEST))} or newer, got {apsw.sqlite_lib_version()}",
                hint="pip install --upgrade apsw",
            )
        self._path = path.absolute()  # whatever the current folder becomes
        self._ended: Callable[[bool], None] = _nothing
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._closed = False
        try:
            path.touch(mode=0o600, exist_ok=True)
            self.connection = apsw.Connection(str(path))
            self.connection.set_busy_timeout(5000)
            for name, value in (("journal_mode", "WAL"), ("synchronous", "FULL"), ("temp_store", "MEMORY")):
                self.connection.pragma(name, value)  # one each: apsw stops at the first that answers
            self.connection.execute(schema)
            self._file = _file(self._path)
        except (OSError, apsw.Error) as error:
            raise EventStoreUnavailable(f"cannot open {path}: {error}", hint="see that it can be written") from error
        self._thread = threading.Thread(target=self._run, name=f"events-{path.name}", daemon=True)

    def start(self, prepare: Callable[[], None], ended: Callable[[bool], None]) -> None:
        """Run `prepare` in a transaction, then start the thread.

        Args:
            prepare: Brings the file up to date.
            ended: Called on the thread after each transaction with whether it was committed, before its callers hear.

        Raises:
            EventStoreUnavailable: SQLite refuses.
        """
        self._ended = ended
        try:
            with self.connection:
                prepare()
        except apsw.Error as error:
            self.connection.close()
            raise EventStoreUnavailable(f"cannot open {self._path}: {error}") from error
        self._thread.start()

    async def run(self, work: Callable[[], T], *, writes: bool = True, done: Callable[[T], None] | None = None) -> T:
        """Run `work` on the thread; with `writes` it returns after the commit.

        Cancelling gives up waiting; the work may still be committed.

        Args:
            work: What to run; it may run twice, where a neighbour in its transaction failed.
            writes: Whether it needs a transaction.
            done: Called with the result on the loop, also where the caller was cancelled meanwhile.

        Raises:
            BusClosed: The writer has been closed.
            EventStoreUnavailable: SQLite refused (disk full, locked, corrupt); nothing of it was kept.
        """
        if self._closed:
            raise BusClosed("the event store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Operation(work, writes, future, done))
        return await future

    async def run_together(
        self, work: Callable[[list[A]], list[T]], argument: A, *, done: Callable[[T], None] | None = None
    ) -> T:
        """Run `work` with the arguments of all that ask for it at the same time; return its result for this one.

        `work` goes before all else in its transaction. An error of it that is no shared one fails none but the argument
        that causes it: `work` is then run with each alone. Raises as `run` does.
        """
        if self._closed:
            raise BusClosed("the event store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        operation = _Operation(lambda: work([argument])[0], True, future, done)
        operation.together, operation.argument = work, argument
        self._queue.put(operation)
        return await future

    async def close(self) -> None:
        """Finish what is queued, close the connection, end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        open_ = True
        while open_:
            group: list[_Operation] = []
            operation = self._queue.get()
            while True:
                if operation is None:
                    open_ = False
                    break
                group.append(operation)
                if len(group) >= _GROUP or self._queue.empty():
                    break
                operation = self._queue.get()
            # Those that only read see what is committed, and need not wait for the disk.
            for part in ([one for one in group if not one.writes], [one for one in group if one.writes]):
                if part:
                    self._carry_out(part)
        self.connection.close()

    def _carry_out(self, group: list[_Operation]) -> None:
        waiting = list(group)
        together = True
        while waiting:
            try:
                self._transact(waiting, together)
                break
            except _Together:
                self._undo()
                together = False
            except _Faulty as fault:
                self._undo()
                fault.operation.error = fault.error
                waiting.remove(fault.operation)
            except Exception as error:
                self._undo()
                for operation in waiting:
                    operation.error = self._refused(error)
                break
        by_loop: dict[asyncio.AbstractEventLoop, list[_Operation]] = {}
        for operation in group:
            by_loop.setdefault(operation.future.get_loop(), []).append(operation)
        for loop, operations in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, operations)
            except RuntimeError:
                _LOG.info("%s: the loop of %d callers has ended", self._path.name, len(operations))

    def _transact(self, group: list[_Operation], together: bool) -> None:
        alone = self._join(group) if together else group
        for operation in alone:
            operation.error = None
            if operation.writes and not self.connection.in_transaction:
                self.connection.execute("BEGIN IMMEDIATE")
            try:
                operation.result = operation.work()
            except FairwayError as error:
                operation.error = error
            except _SHARED:
                raise
            except Exception as error:
                raise _Faulty(operation, self._refused(error)) from error
        if self.connection.in_transaction:
            if _file(self._path) != self._file:  # what is written to a file that nobody can open is lost
                raise FileNotFoundError(f"the file was moved, replaced or removed; start again to use {self._path}")
            self.connection.execute("COMMIT")
            self._ended(True)

    def _join(self, group: list[_Operation]) -> list[_Operation]:
        """Carry out what goes together; return the rest."""
        kinds: dict[Callable[[list[Any]], list[Any]], list[_Operation]] = {}
        for operation in group:
            if operation.together is not None:
                kinds.setdefault(operation.together, []).append(operation)
        if not kinds:
            return group
        self.connection.execute("BEGIN IMMEDIATE")
        for work, operations in kinds.items():
            try:
                results = work([operation.argument for operation in operations])
            except _SHARED:
                raise
            except Exception as error:
                raise _Together from error
            for operation, result in zip(operations, results, strict=True):
                operation.error, operation.result = None, result
        return [operation for operation in group if operation.together is None]

    def _undo(self) -> None:
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except apsw.Error as error:  # SQLite has rolled back by itself
            _LOG.warning("%s: %s", self._path.name, error)
        self._ended(False)

    def _refused(self, error: Exception) -> EventStoreUnavailable:
        refused = EventStoreUnavailable(f"{self._path.name}: {type(error).__name__}: {error}")
        refused.__cause__ = error
        return refused


class _Together(Exception):
    """What was to go together failed for one of them."""


class _Faulty(Exception):
    """One operation of a transaction failed by its own fault."""

    def __init__(self, operation: _Operation, error: EventStoreUnavailable) -> None:
        super().__init__(str(error))
        self.operation = operation
        self.error = error


def _file(path: Path) -> tuple[int, int] | None:
    """Return which file lies at a path."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _nothing(_: bool) -> None:
    """Until somebody wants to know how transactions end."""


def _resolve(operations: list[_Operation]) -> None:
    for operation in operations:
        if operation.error is None and operation.done is not None:
            operation.done(operation.result)
        if operation.future.done():
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)
