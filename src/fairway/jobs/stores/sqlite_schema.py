"""The SQLite store's file: its tables and indexes, the version it needs, how it is opened.

Every index that a claim or the promoter walks is partial, so that a million waiting and a million finished jobs cost
the claim nothing. `ready` and `due` are apart: a claim that filtered on `run_at` would have to sort.

Leases are not in the file. One process owns it, keeps them in memory by the monotonic clock, and grants jobs that it
finds running a fresh one (`StoreOptions.restart_grace_s`): heartbeats cost no write, and no jump of the wall clock
expires a lease.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

import apsw

from fairway.jobs.errors import JobError, StoreUnavailable

_log = logging.getLogger(__name__)

MINIMUM_SQLITE = 3_051_003
"""3.51.3 mends the WAL-reset bug that can corrupt a database. Source: https://sqlite.org/releaselog/3_51_3.html"""

# States as stored; BLOCKED is an available job whose concurrency key has no slot.
SCHEDULED, AVAILABLE, RUNNING, RETRYABLE, COMPLETED, CANCELLED, DISCARDED, BLOCKED = range(8)
STATE_NAMES = ("scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded", "available")
STATE_CODES = {
    "scheduled": SCHEDULED,
    "available": AVAILABLE,
    "running": RUNNING,
    "retryable": RETRYABLE,
    "completed": COMPLETED,
    "cancelled": CANCELLED,
    "discarded": DISCARDED,
}

WAL_PAGES = 1_000  # a checkpoint when the log holds so many; the writer starts it, after it has told its callers
WAL_SIZE = 32 + (WAL_PAGES + 64) * (4_096 + 24)  # and for a commit or more that goes beyond it

_VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    id           INTEGER PRIMARY KEY,
    queue        INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    state        INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    args         TEXT NOT NULL,           -- JSON
    created_at   REAL NOT NULL,
    run_at       REAL NOT NULL,
    timeout_s    REAL,
    ckey         TEXT,                    -- concurrency key
    extra        TEXT,                    -- JSON of what few jobs set, see Extra
    attempt      INTEGER NOT NULL DEFAULT 0,
    fence        INTEGER NOT NULL DEFAULT 0,
    cancel       INTEGER NOT NULL DEFAULT 0,
    started_at   REAL,
    finished_at  REAL,
    keep_until   REAL,
    worker       TEXT,
    result       TEXT,                    -- JSON
    error        TEXT
) STRICT;
CREATE INDEX jobs_ready ON jobs (queue, priority, id) WHERE state = 1;
CREATE INDEX jobs_due ON jobs (run_at) WHERE state IN (0, 3);
CREATE INDEX jobs_running ON jobs (id) WHERE state = 2;
CREATE INDEX jobs_dead ON jobs (queue, id) WHERE state = 6;
CREATE INDEX jobs_keep ON jobs (keep_until) WHERE keep_until IS NOT NULL;
CREATE INDEX jobs_ckey ON jobs (queue, ckey, state, priority, id) WHERE ckey IS NOT NULL;
CREATE TABLE unique_keys (
    queue INTEGER NOT NULL, key TEXT NOT NULL, job INTEGER NOT NULL,
    until REAL,                           -- NULL: until the job is final
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX unique_keys_until ON unique_keys (until) WHERE until IS NOT NULL;
CREATE TABLE ledger (
    queue INTEGER NOT NULL, key TEXT NOT NULL, job INTEGER NOT NULL, fence INTEGER NOT NULL,
    until REAL,                           -- NULL: reserved by (job, fence) while that runs
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_job ON ledger (job) WHERE until IS NULL;
CREATE INDEX ledger_until ON ledger (until) WHERE until IS NOT NULL;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, total INTEGER NOT NULL, pending INTEGER NOT NULL, failed INTEGER NOT NULL,
    callback TEXT, called INTEGER, keep_until REAL
) STRICT;
CREATE INDEX batches_keep ON batches (keep_until) WHERE keep_until IS NOT NULL;
CREATE TABLE queues (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL DEFAULT 0, config TEXT NOT NULL
) STRICT;
CREATE TABLE schedules (name TEXT PRIMARY KEY, schedule TEXT NOT NULL, created_at REAL NOT NULL, last_tick REAL) STRICT;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


class FileLock:
    """Holds `path` for this process alone, until `release` or its death."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise StoreUnavailable(
                f"another process has opened {path.with_suffix('')}",
                code="jobs.store_owned",
                hint="one process owns the file; others use its HTTP API",
            ) from error

    def release(self) -> None:
        """Let others have it."""
        os.close(self._fd)


def check_version() -> None:
    """Raise `JobError` unless apsw carries a SQLite without the WAL-reset bug."""
    if apsw.SQLITE_VERSION_NUMBER < MINIMUM_SQLITE:
        raise JobError(
            f"expected SQLite 3.51.3 or newer in apsw, got {apsw.sqlite_lib_version()}",
            code="jobs.sqlite_version",
            hint="pip install --upgrade apsw",
        )


def open_writer(path: Path, cache_kib: int = 8_192) -> apsw.Connection:
    """Open the one connection that writes, creating the file (0600) and its tables."""
    check_version()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path), statementcachesize=200)
    connection.set_busy_timeout(5_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("cache_size", -cache_kib)
    connection.pragma("wal_autocheckpoint", 0)
    connection.pragma("journal_size_limit", 64 << 20)
    version = connection.pragma("user_version")
    if version == 0:
        with connection:
            connection.execute(_SCHEMA)
            connection.pragma("user_version", _VERSION)
    elif version != _VERSION:
        raise JobError(f"expected {path} to have schema version {_VERSION}, got {version}", code="jobs.sqlite_schema")
    return connection


def which_file(path: Path) -> tuple[int, int] | None:
    """Return which file lies at a path: its device and number there, or None."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def extend_wal(path: Path) -> None:
    """Give the log its size: to write over blocks that exist saves each commit the file system's own journal.

    Nothing depends on it but speed: where the disk has no room for it, the log grows with what is written.

    Zeros after the last frame are no frames to SQLite, whose recovery ends at the first with another salt. It writes
    frames by their offset, truncates the file only beyond `journal_size_limit`, and has its locks on the database and
    on ``-shm``: to close another descriptor of this file takes none from it. To be called on the writer's thread.
    Sources: https://sqlite.org/fileformat2.html#wal_file_format, https://sqlite.org/walformat.html#wal_locks
    """
    try:
        with path.with_name(path.name + "-wal").open("r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if size < WAL_SIZE:
                    if file.write(bytes(WAL_SIZE - size)) < WAL_SIZE - size:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
            except OSError:
                file.truncate(size)  # what room there is is for jobs
                raise
    except OSError as error:
        _log.info("the log of the job store %s was not given its size: %s", path, error)


def open_reader(path: Path) -> apsw.Connection:
    """Open a connection that only reads."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(5_000)
    return connection
