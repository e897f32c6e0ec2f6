"""The SQLite store's log: what size it has, when it is folded into its file and begun anew."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from fairway.jobs.job import NewJob
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores import sqlite_writer
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.jobs.stores.sqlite_engine import Engine
from fairway.jobs.stores.sqlite_schema import WAL_PAGES, WAL_SIZE, extend_wal, open_writer, which_file
from fairway.jobs.stores.sqlite_writer import Operation, Writer


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


class ByHand:
    """A writer without its thread: each of its steps is a call."""

    def __init__(self, path: Path) -> None:
        self.wal = path.with_name(path.name + "-wal")
        self.connection = open_writer(path)
        self.writer = Writer(path, StoreOptions())
        self.writer._connection, self.writer._file = self.connection, which_file(path)
        self.engine = Engine(self.connection, StoreOptions(), ())
        self.engine.load()
        self._last = Operation(lambda engine: None, None)

    def enqueue(self) -> None:
        operation = Operation(lambda engine: engine.enqueue([NewJob(kind="one")], None), None)
        self.writer._cycle(self.engine, [operation])
        assert operation.error is None

    def rest(self) -> None:
        """Do what is done while nobody waits, until an operation comes."""
        sleep_for = self.writer._sleep_for

        def comes(engine: Engine) -> float:
            self.writer._operations.put(self._last)
            return sleep_for(engine)

        self.writer._sleep_for = comes  # type: ignore[method-assign]  # of this writer alone
        try:
            assert self.writer._next(self.engine) is self._last
        finally:
            self.writer._sleep_for = sleep_for  # type: ignore[method-assign]

    def generation(self) -> int:
        """Return the number of the log in its header."""
        with self.wal.open("rb") as file:
            return int.from_bytes(file.read(16)[12:], "big")


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[ByHand]:
    hand = ByHand(tmp_path / "jobs.db")
    yield hand
    hand.connection.close()


def test_the_log_gets_its_size_once_something_was_stored(by_hand: ByHand) -> None:
    by_hand.rest()
    assert by_hand.wal.stat().st_size < WAL_SIZE, "a start does not wait for it"
    by_hand.enqueue()
    by_hand.rest()
    assert by_hand.wal.stat().st_size == WAL_SIZE
    for _ in range(20):
        by_hand.enqueue()
    assert by_hand.wal.stat().st_size == WAL_SIZE


async def test_what_is_in_a_log_of_that_size_survives_a_crash(by_hand: ByHand, tmp_path: Path) -> None:
    for _ in range(2):
        by_hand.enqueue()
        by_hand.rest()
    after = tmp_path / "after.db"
    shutil.copy(tmp_path / "jobs.db", after)
    shutil.copy(by_hand.wal, tmp_path / "after.db-wal")
    store = SqliteStore(after)
    await store.open()
    try:
        assert [lease.kind for lease in await store.claim(["default"], 5, 5.0, "w")] == ["one"] * 2
    finally:
        await store.close()


def test_a_log_that_cannot_get_its_size_keeps_the_one_it_has(by_hand: ByHand, tmp_path: Path) -> None:
    by_hand.enqueue()
    before = by_hand.wal.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (WAL_SIZE // 2, limits[1]))
    try:
        by_hand.rest()
        assert by_hand.wal.stat().st_size == before
        by_hand.enqueue()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    extend_wal(tmp_path / "no such folder" / "jobs.db")
    assert not (tmp_path / "no such folder").exists()


def test_the_log_begins_anew_before_somebody_waits_for_it(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "WAL_PAGES", 20)
    by_hand.enqueue()
    first, generations = by_hand.generation(), set()
    for _ in range(40):
        before = by_hand.generation()
        by_hand.enqueue()
        assert by_hand.generation() == before, "a job pays for it"
        by_hand.rest()
        generations.add(by_hand.generation())
    assert len(generations) >= 3
    assert min(generations) <= first + 1


def test_a_reader_keeps_the_log_from_beginning_anew(
    by_hand: ByHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "WAL_PAGES", 5)
    by_hand.enqueue()
    reader = apsw.Connection(str(tmp_path / "jobs.db"))
    try:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM jobs").get == 1
        before = by_hand.generation()
        for n in range(10):
            by_hand.enqueue()
            by_hand.rest()
            assert reader.execute("SELECT count(*) FROM jobs").get == 1, n
        assert by_hand.generation() == before
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM jobs").get == 11
    finally:
        reader.close()


def test_who_waits_does_not_wait_for_a_new_log(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "WAL_PAGES", 5)
    by_hand.enqueue()
    by_hand.rest()
    before, commits = by_hand.generation(), by_hand.writer.commits
    waiting = Operation(lambda engine: None, None)
    for _ in range(10):
        by_hand.enqueue()
        by_hand.writer._operations.put(waiting)
        by_hand.writer._told = True
        assert by_hand.writer._next(by_hand.engine) is waiting
    assert by_hand.writer.commits == commits + 10, "none of its own"
    assert by_hand.generation() > before, "it was folded all the same, at twice its length"
