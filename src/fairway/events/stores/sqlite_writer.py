"""One thread that owns one SQLite connection and commits many callers' work at once.

Operations queue up while the previous commit waits for the disk; then all of them go into one transaction, and their
callers wake together after it. No timer: alone, an operation commits at once. An operation that raises an
`EventError` has written nothing and fails alone. Any other error of one operation (a number that SQLite cannot hold, a
bug) rolls the transaction back, fails that operation, and carries the others out again; an error that none of them
caused (disk full, locked, corrupt) fails all. Nothing ends the thread.
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
_LOG = logging.getLogger("fairway.events")
_GROUP = 256  # operations in one transaction
_OLDEST = (3, 51, 3)  # carries the fix of the WAL reset
# Errors that no single operation caused.
_SHARED = (
    *(apsw.FullError, apsw.IOError, apsw.BusyError, apsw.LockedError, apsw.CorruptError, apsw.NotADBError),
    *(apsw.NoMemError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.ProtocolError),
)


class _Operation:
    __slots__ = ("done", "error", "future", "result", "work", "writes")

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
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs functions on the connection's thread, from one event loop.

    Args:
        path: Database file, created 0600; its folder has to exist.
        schema: Statements that create what is missing.
        rollback: Called on the thread after a rollback, to drop what was kept in memory.
    """

    def __init__(self, path: Path, schema: str, rollback: Callable[[], None]) -> None:
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < _OLDEST:
            raise EventStoreUnavailable(
                f"expected SQLite {'.'.join(map(str, _OLDEST))} or newer, got {apsw.sqlite_lib_version()}",
                hint="pip install --upgrade apsw",
            )
        self._path = path
        self._rollback = rollback
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._closed = False
        try:
            path.touch(mode=0o600, exist_ok=True)
            self.connection = apsw.Connection(str(path))
            self.connection.set_busy_timeout(5000)
            self.connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY")
            self.connection.execute(schema)
        except (OSError, apsw.Error) as error:
            raise EventStoreUnavailable(f"cannot open {path}: {error}", hint="see that it can be written") from error
        self._thread = threading.Thread(target=self._run, name=f"events-{path.name}", daemon=True)
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
            if group:
                self._carry_out(group)
        self.connection.close()

    def _carry_out(self, group: list[_Operation]) -> None:
        waiting = list(group)
        while waiting:
            try:
                self._transact(waiting)
                break
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

    def _transact(self, group: list[_Operation]) -> None:
        for operation in group:
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
            self.connection.execute("COMMIT")

    def _undo(self) -> None:
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except apsw.Error as error:  # SQLite has rolled back by itself
            _LOG.warning("%s: %s", self._path.name, error)
        self._rollback()

    def _refused(self, error: Exception) -> EventStoreUnavailable:
        refused = EventStoreUnavailable(f"{self._path.name}: {type(error).__name__}: {error}")
        refused.__cause__ = error
        return refused


class _Faulty(Exception):
    """One operation of a transaction failed by its own fault."""

    def __init__(self, operation: _Operation, error: EventStoreUnavailable) -> None:
        super().__init__(str(error))
        self.operation = operation
        self.error = error


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
