"""What must survive a SIGKILL of the daemon: one SQLite file, written before and after every act on the outside.

Order of writing, which is what makes the daemon crash-only: an instance's row exists *before* its process is started
(its marker finds an orphan whose pid was never noted), a swap of releases is committed *before* the door is told, and a
row goes only after its process is gone. Whatever a crash leaves in between, the next daemon can tell what it sees.

What is written is in the file, and outlives this process, at once. On the disk at once, so that it outlives a power cut
too, is what no process would: what is wanted of an app, and which release it serves. Rows of instances and of the door
get there with that, or with `settle`: a machine that starts again runs none of them. So do the numbers of instances,
which come before any of what these write.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

from fairway.platform.errors import StateDirError
from fairway.run.spawn import ProcessRecord

Standing = Literal["staged", "serving", "retiring"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE app (
    name TEXT PRIMARY KEY,
    wanted TEXT NOT NULL DEFAULT 'running',
    scale INTEGER,
    scale_base INTEGER,
    release TEXT,
    pinned TEXT
) STRICT;
CREATE TABLE counter (
    app TEXT NOT NULL, process TEXT NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (app, process)
) STRICT;
CREATE TABLE instance (
    app TEXT NOT NULL,
    process TEXT NOT NULL,
    number INTEGER NOT NULL,
    release TEXT NOT NULL,
    launch TEXT NOT NULL,
    standing TEXT NOT NULL,
    port INTEGER,
    restarts INTEGER NOT NULL DEFAULT 0,
    started_at REAL,
    record TEXT,
    PRIMARY KEY (app, process, number)
) STRICT;
CREATE TABLE door (worker INTEGER PRIMARY KEY, listen TEXT NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TABLE deployed (
    id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, release TEXT NOT NULL, at REAL NOT NULL
) STRICT;
"""


class AppRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of an app beyond its registry file.

    Attributes:
        name: Name of the app.
        wanted: ``running`` or ``stopped``.
        scale: Instances of ``web`` asked for by `scale`, or None for what the registry says.
        scale_base: What the registry said then; another value there overrules `scale`.
        release: Id of the release that serves, or None.
        pinned: Id of the release that a rollback asked for; the sources are not built until the next deploy.
    """

    name: str
    wanted: str = "running"
    scale: int | None = None
    scale_base: int | None = None
    release: str | None = None
    pinned: str | None = None


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One instance: `launch` is a digest of what it was started with, `standing` its part in a deploy.

    ``staged`` is not routed to yet, ``serving`` is, ``retiring`` has been replaced and is on its way out.
    """

    app: str
    process: str
    number: int
    release: str
    launch: str
    standing: Standing
    port: int | None = None
    restarts: int = 0
    started_at: float | None = None
    record: ProcessRecord | None = None


class DoorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One door worker that runs: its number, the address it listens on and how to find it again."""

    worker: int
    listen: str
    record: ProcessRecord


class StateStore:
    """The state file. Calls take well under a millisecond and are made from the event loop's thread.

    Args:
        path: The SQLite file, made 0600 where missing.

    Raises:
        StateDirError: It cannot be opened, or is of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.touch(mode=0o600)
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(2000)
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-256"):
                # One each, read to its end: apsw stops at the first row, and what comes after would not be carried out.
                self._one(f"PRAGMA {pragma}", ())
            self._migrate()
        except (apsw.Error, OSError) as error:
            raise StateDirError(f"expected a state file at {path} that can be written, got: {error}") from error

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._db.close()

    def settle(self) -> None:
        """Have all that was written so far on the disk; takes as long as the disk does, milliseconds.

        A disk that is full or broken is in the log and no error: what has to be there has got there before.
        """
        try:
            self._one("PRAGMA wal_checkpoint(PASSIVE)", ())
        except apsw.Error as error:
            from fairway.telemetry import log

            log.get("platform").warning("state file is not settled", path=str(self.path), error=str(error))

    # -- apps ------------------------------------------------------------------------------------------------

    def app(self, name: str) -> AppRow:
        """Return an app's row; one that was never written has the defaults."""
        names = AppRow.__struct_fields__
        for row in self._db.execute(f"SELECT {', '.join(names)} FROM app WHERE name = ?", (name,)):  # noqa: S608  # our own
            return AppRow(**dict(zip(names, row, strict=True)))
        return AppRow(name=name)

    def app_names(self) -> list[str]:
        """Return every app that was ever written and not forgotten."""
        return [row[0] for row in self._db.execute("SELECT name FROM app ORDER BY name")]

    def save_app(self, row: AppRow) -> None:
        """Write an app's row."""
        with self._lasting():
            self._db.execute(
                """INSERT OR REPLACE INTO app (name, wanted, scale, scale_base, release, pinned)
                   VALUES (?, ?, ?, ?, ?, ?)""",
                msgspec.structs.astuple(row),
            )

    def forget_app(self, name: str) -> None:
        """Remove everything about an app but its instance numbers, which are never used twice."""
        with self._lasting():
            for table in ("app", "instance", "deployed"):
                column = "name" if table == "app" else "app"
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))  # noqa: S608  # names of our own

    # -- instances -------------------------------------------------------------------------------------------

    def next_number(self, app: str, process: str) -> int:
        """Return a number that no instance of this app and process ever had, from 1."""
        sql = """INSERT INTO counter (app, process, last) VALUES (?, ?, 1)
                 ON CONFLICT (app, process) DO UPDATE SET last = last + 1 RETURNING last"""
        return int(self._one(sql, (app, process)))

    def instances(self, app: str | None = None) -> list[InstanceRow]:
        """Return the rows of one app or of all, ascending."""
        where, values = ("WHERE app = ?", (app,)) if app is not None else ("", ())
        sql = f"""SELECT app, process, number, release, launch, standing, port, restarts, started_at, record
                  FROM instance {where} ORDER BY app, process, number"""  # noqa: S608  # one of two constants
        names = InstanceRow.__struct_fields__
        found: list[InstanceRow] = []
        for row in self._db.execute(sql, values):
            fields: dict[str, Any] = dict(zip(names, row, strict=True))
            if fields["record"] is not None:
                fields["record"] = msgspec.json.decode(fields["record"], type=ProcessRecord)
            found.append(InstanceRow(**fields))
        return found

    def save_instance(self, row: InstanceRow) -> None:
        """Write an instance's row."""
        record = None if row.record is None else msgspec.json.encode(row.record).decode()
        self._db.execute(
            """INSERT OR REPLACE INTO instance
               (app, process, number, release, launch, standing, port, restarts, started_at, record)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (row.app, row.process, row.number, row.release, row.launch, row.standing, row.port, row.restarts,
             row.started_at, record),
        )  # fmt: skip

    def remove_instance(self, app: str, process: str, number: int) -> None:
        """Remove an instance's row; its process is gone."""
        self._db.execute("DELETE FROM instance WHERE app = ? AND process = ? AND number = ?", (app, process, number))

    def commit_swap(self, app: str, release: str, serving: list[tuple[str, int]]) -> None:
        """Make `release` the one that serves, in one transaction.

        Args:
            app: Name of the app.
            release: Id of the release.
            serving: Process and number of the instances that serve from now on; every other one is retiring.
        """
        newest = self._one("SELECT release FROM deployed WHERE app = ? ORDER BY id DESC LIMIT 1", (app,))
        with self._lasting() if newest != release else self._db:
            self._db.execute(
                """INSERT INTO app (name, release) VALUES (?, ?)
                   ON CONFLICT (name) DO UPDATE SET release = excluded.release""",
                (app, release),
            )
            self._db.execute("UPDATE instance SET standing = 'retiring' WHERE app = ?", (app,))
            for process, number in serving:
                self._db.execute(
                    "UPDATE instance SET standing = 'serving' WHERE app = ? AND process = ? AND number = ?",
                    (app, process, number),
                )
            if newest != release:
                self._db.execute(
                    "INSERT INTO deployed (app, release, at) VALUES (?, ?, ?)", (app, release, time.time())
                )

    def deployed(self, app: str) -> list[str]:
        """Return ids of the releases in the order in which they came to serve, newest first, each once."""
        rows = self._db.execute("SELECT release FROM deployed WHERE app = ? ORDER BY id DESC", (app,))
        return list(dict.fromkeys(row[0] for row in rows))

    # -- doors -----------------------------------------------------------------------------------------------

    def doors(self) -> list[DoorRow]:
        """Return the door workers, ascending."""
        rows = self._db.execute("SELECT worker, listen, record FROM door ORDER BY worker")
        return [
            DoorRow(worker=worker, listen=listen, record=msgspec.json.decode(record, type=ProcessRecord))
            for worker, listen, record in rows
        ]

    def save_door(self, row: DoorRow) -> None:
        """Write a door worker's row."""
        self._db.execute(
            "INSERT OR REPLACE INTO door (worker, listen, record) VALUES (?, ?, ?)",
            (row.worker, row.listen, msgspec.json.encode(row.record).decode()),
        )

    def remove_door(self, worker: int) -> None:
        """Remove a door worker's row."""
        self._db.execute("DELETE FROM door WHERE worker = ?", (worker,))

    # -- inside ----------------------------------------------------------------------------------------------

    def _one(self, sql: str, values: tuple[Any, ...]) -> Any:
        rows = self._db.execute(sql, values).fetchall()
        return rows[0][0] if rows else None

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        """Begin a transaction that is on the disk when it is done: it outlives a power cut, which no process does."""
        self._one("PRAGMA synchronous=FULL", ())
        try:
            with self._db:
                yield
        finally:
            self._one("PRAGMA synchronous=NORMAL", ())

    def _migrate(self) -> None:
        version = int(self._one("PRAGMA user_version", ()))
        if version > _SCHEMA_VERSION:
            raise StateDirError(
                f"expected state of version {_SCHEMA_VERSION} or older in {self.path}, got version {version}",
                hint="Use the newer Fairway that wrote it, or another state folder.",
            )
        if version == 0:
            with self._db:
                self._db.execute(_SCHEMA + f"PRAGMA user_version = {_SCHEMA_VERSION};")

    def __repr__(self) -> str:
        return f"<StateStore {self.path}>"
