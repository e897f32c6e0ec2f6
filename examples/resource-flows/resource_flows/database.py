"""The read model in SQL: PostgreSQL where `DATABASE_URL` names one, else a SQLite file. Every write is an upsert."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from resource_flows.domain import Match, ResourceFlow, Site

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS site (id TEXT PRIMARY KEY, name TEXT NOT NULL, latitude DOUBLE PRECISION NOT NULL, "
    "longitude DOUBLE PRECISION NOT NULL)",
    "CREATE TABLE IF NOT EXISTS flow (id TEXT PRIMARY KEY, site TEXT NOT NULL REFERENCES site (id), "
    "direction TEXT NOT NULL, resource TEXT NOT NULL, quantity DOUBLE PRECISION NOT NULL)",
    "CREATE INDEX IF NOT EXISTS flow_resource ON flow (resource, direction)",
    "CREATE TABLE IF NOT EXISTS flow_match (output TEXT NOT NULL, input TEXT NOT NULL, "
    "distance_km DOUBLE PRECISION NOT NULL, score DOUBLE PRECISION NOT NULL, PRIMARY KEY (output, input))",
)
_SITE = (
    "INSERT INTO site (id, name, latitude, longitude) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "name = excluded.name, latitude = excluded.latitude, longitude = excluded.longitude"
)
_FLOW = (
    "INSERT INTO flow (id, site, direction, resource, quantity) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "site = excluded.site, direction = excluded.direction, resource = excluded.resource, quantity = excluded.quantity"
)
_MATCH = (
    "INSERT INTO flow_match (output, input, distance_km, score) VALUES (?, ?, ?, ?) ON CONFLICT (output, input) "
    "DO UPDATE SET distance_km = excluded.distance_km, score = excluded.score"
)
_FLOWS = (
    "SELECT f.id, f.direction, f.resource, f.quantity, s.id, s.name, s.latitude, s.longitude "
    "FROM flow f JOIN site s ON s.id = f.site WHERE "
)

Statement = tuple[str, Sequence[Any]]


class Driver(Protocol):
    """One database: statements with ``?`` for values."""

    async def write(self, statements: Sequence[Statement]) -> None:
        """Run statements in one transaction."""
        ...

    async def read(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SqliteDriver:
    """A file, through the standard library, in a thread."""

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._lock = asyncio.Lock()

    async def write(self, statements: Sequence[Statement]) -> None:
        """See `Driver.write`."""

        def work() -> None:
            with self._connection:
                for sql, values in statements:
                    self._connection.execute(sql, values)

        async with self._lock:
            await asyncio.to_thread(work)

    async def read(self, statement: Statement) -> list[tuple[Any, ...]]:
        """See `Driver.read`."""
        async with self._lock:
            return await asyncio.to_thread(lambda: self._connection.execute(*statement).fetchall())

    async def close(self) -> None:
        """See `Driver.close`."""
        self._connection.close()


class PostgresDriver:
    """PostgreSQL through psycopg; one connection, opened at the first call."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def _open(self) -> Any:
        import psycopg

        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return self._connection

    async def write(self, statements: Sequence[Statement]) -> None:
        """See `Driver.write`."""
        async with self._lock:
            connection = await self._open()
            async with connection.transaction():
                for sql, values in statements:
                    await connection.execute(sql.replace("?", "%s"), values)

    async def read(self, statement: Statement) -> list[tuple[Any, ...]]:
        """See `Driver.read`."""
        sql, values = statement
        async with self._lock:
            cursor = await (await self._open()).execute(sql.replace("?", "%s"), values)
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
            return rows

    async def close(self) -> None:
        """See `Driver.close`."""
        if self._connection is not None:
            await self._connection.close()


class Database:
    """The read model; every method may be repeated without changing more."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @classmethod
    async def open(cls, url: str | None = None) -> Database:
        """Open `url`, else ``DATABASE_URL``, else a SQLite file in the user's state folder, and create the tables."""
        url = url or os.environ.get("DATABASE_URL") or f"sqlite:///{_state()}/resource-flows.db"
        driver: Driver = SqliteDriver(url[len("sqlite:///") :]) if url.startswith("sqlite:///") else PostgresDriver(url)
        await driver.write([(sql, ()) for sql in _SCHEMA])
        return cls(driver)

    async def sync_site(self, site: Site) -> None:
        """Write a site."""
        await self._driver.write([(_SITE, (site.id, site.name, site.latitude, site.longitude))])

    async def sync_flow(self, flow: ResourceFlow) -> None:
        """Write a flow and its site."""
        site = flow.site
        values = (flow.id, site.id, flow.direction, flow.resource, flow.quantity)
        await self._driver.write([(_SITE, (site.id, site.name, site.latitude, site.longitude)), (_FLOW, values)])

    async def flow(self, flow_id: str) -> ResourceFlow | None:
        """Return one flow."""
        rows = await self._driver.read((_FLOWS + "f.id = ?", (flow_id,)))
        return _flow(rows[0]) if rows else None

    async def candidates(self, flow: ResourceFlow) -> list[ResourceFlow]:
        """Return the flows of the same resource in the other direction."""
        statement = _FLOWS + "f.resource = ? AND f.direction <> ? ORDER BY f.id"
        return [_flow(row) for row in await self._driver.read((statement, (flow.resource, flow.direction)))]

    async def replace_matches(self, flow_id: str, matches: Sequence[Match]) -> None:
        """Make these the matches of a flow."""
        statements: list[Statement] = [("DELETE FROM flow_match WHERE output = ? OR input = ?", (flow_id, flow_id))]
        statements += [(_MATCH, (match.output, match.input, match.distance_km, match.score)) for match in matches]
        await self._driver.write(statements)

    async def matches(self, flow_id: str) -> list[Match]:
        """Return the matches of a flow, best first."""
        statement = (
            "SELECT output, input, distance_km, score FROM flow_match WHERE output = ? OR input = ? "
            "ORDER BY score DESC, output, input"
        )
        rows = await self._driver.read((statement, (flow_id, flow_id)))
        return [Match(output=row[0], input=row[1], distance_km=row[2], score=row[3]) for row in rows]

    async def close(self) -> None:
        """Close the database."""
        await self._driver.close()


def _flow(row: tuple[Any, ...]) -> ResourceFlow:
    site = Site(id=row[4], name=row[5], latitude=row[6], longitude=row[7])
    return ResourceFlow(id=row[0], site=site, direction=row[1], resource=row[2], quantity=row[3])


def _state() -> str:
    return os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
