"""One thread that owns one SQLite connection and commits many callers' work at once.

Operations queue up while the previous commit waits for the disk; then all of them go into one transaction, and their
callers wake together after it. No timer: alone, an operation commits at once. An operation that raises an
`EventError` has written nothing and fails alone; an error of SQLite's rolls the whole transaction back and fails all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw

from fairway.errors import FairwayError
from fairway.events.errors import BusClosed, EventStoreUnavailable

T = TypeVar("T")
_GROUP = 256  # operations in one transaction
_OLDEST = (3, 51, 3)  # carries the fix of the WAL reset


class _Operation:
    __slots__ = ("error", "future", "result", "work", "writes")

    def __init__(self, work: Callable[[], Any], writes: bool, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.writes = writes
        self.future = future
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

    async def run(self, work: Callable[[], T], *, writes: bool = True) -> T:
        """Run `work` on the thread; with `writes` it returns after the commit.

        Cancelling gives up waiting; the work may still be committed.

        Raises:
            BusClosed: The writer has been closed.
            EventStoreUnavailable: SQLite refused (disk full, locked, corrupt); nothing of it was kept.
        """
        if self._closed:
            raise BusClosed("the event store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Operation(work, writes, future))
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
        try:
            self._transact(group)
        except apsw.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self._rollback()
            refused = EventStoreUnavailable(f"{self._path.name}: {error}")
            refused.__cause__ = error
            for operation in group:
                operation.error = refused
        by_loop: dict[asyncio.AbstractEventLoop, list[_Operation]] = {}
        for operation in group:
            by_loop.setdefault(operation.future.get_loop(), []).append(operation)
        for loop, operations in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, operations)

    def _transact(self, group: list[_Operation]) -> None:
        for operation in group:
            if operation.writes and not self.connection.in_transaction:
                self.connection.execute("BEGIN IMMEDIATE")
            try:
                operation.result = operation.work()
            except FairwayError as error:
                operation.error = error
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")


def _resolve(operations: list[_Operation]) -> None:
    for operation in operations:
        if operation.future.done():
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            operation.future.set_result(operation.result)
