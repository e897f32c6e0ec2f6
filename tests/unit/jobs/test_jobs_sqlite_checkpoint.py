"""When the SQLite store's log is folded into its file."""

from pathlib import Path
from typing import Any

import apsw

from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.sqlite_schema import WAL_PAGES
from fairway.jobs.stores.sqlite_writer import Writer


class CountingConnection:
    """Counts pages in so few bits that the count wraps within a test, as SQLite's does at 2^31."""

    def __init__(self) -> None:
        self.pages = self.checkpoints = 0

    def write(self, pages: int) -> None:
        self.pages = (self.pages + pages) % (8 * WAL_PAGES)

    def status(self, op: int, reset: bool = False) -> tuple[int, int]:
        assert op == apsw.SQLITE_DBSTATUS_CACHE_WRITE
        pages = self.pages
        if reset:
            self.pages = 0
        return pages, 0

    def wal_checkpoint(self, mode: int) -> tuple[int, int]:
        assert mode == apsw.SQLITE_CHECKPOINT_PASSIVE
        self.checkpoints += 1
        return 0, 0


def test_checkpoints_go_on_when_the_count_of_pages_would_wrap(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "jobs.db", StoreOptions())
    connection: Any = CountingConnection()
    writer._connection = connection
    for _ in range(20):
        connection.write(WAL_PAGES - 1)
        writer._checkpoint()
        connection.write(1)
        writer._checkpoint()
    assert connection.checkpoints == 20


def test_sqlite_counts_from_zero_after_a_reset(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "one.db"))
    try:
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t (x)")
        assert connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0] > 0
        assert connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0] == 0
    finally:
        connection.close()
