"""The example app: from a POST over an event and a job to matches, on SQLite and on PostgreSQL, twice over."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "resource-flows"
sys.path.insert(0, str(EXAMPLE))

from resource_flows.database import Database  # noqa: E402
from resource_flows.domain import Match, ResourceFlow, Site, compute_matches, distance_km  # noqa: E402
from resource_flows.service import FLOW_CREATED, TOPIC  # noqa: E402
from resource_flows.web import make_app  # noqa: E402
from resource_flows.worker import work  # noqa: E402

from fairway.concurrency import background, with_cancel  # noqa: E402
from fairway.events import Event, EventBus, StoreEventPublisher  # noqa: E402
from fairway.jobs import Queue  # noqa: E402

pytestmark = pytest.mark.integration

MILL = Site(id="mill", name="Mill", latitude=52.50, longitude=13.40)
BATHS = Site(id="baths", name="Baths", latitude=52.52, longitude=13.45)
FAR = Site(id="far", name="Far", latitude=48.1, longitude=11.6)


def flow(name: str, site: Site, direction: Any, quantity: float = 100.0, resource: str = "heat") -> ResourceFlow:
    return ResourceFlow(id=name, site=site, direction=direction, resource=resource, quantity=quantity)


def test_matching_is_by_resource_direction_and_distance() -> None:
    out = flow("o", MILL, "output", 80.0)
    others = [
        flow("i1", BATHS, "input"),
        flow("i2", FAR, "input"),
        flow("i3", BATHS, "output"),
        flow("i4", BATHS, "input", resource="steam"),
        flow("i5", MILL, "input"),
        flow("i6", BATHS, "input", 40.0),
    ]
    found = compute_matches(out, others)
    assert [match.input for match in found] == ["i1", "i6"]
    assert found[0].score == pytest.approx(0.8 * (1 - found[0].distance_km / 50), abs=1e-4)
    assert distance_km(MILL, MILL) == 0
    assert distance_km(MILL, FAR) == pytest.approx(504, abs=3)


class Postgres:
    """A server of the test's own on a free port, as the user `postgres` where the test is root."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) if os.name == "posix" else []
        binary = shutil.which("postgres") or (str(found[-1]) if found else None)
        if binary is None:
            pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql")
        self._bin = Path(binary).parent
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://fairway@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        data = self.folder / "data"
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder}
        initdb = [self._bin / "initdb", "-D", data, "-A", "trust", "-U", "fairway", "--no-sync"]
        subprocess.run(initdb, check=True, **quiet, **self._as)
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-k", str(self.folder), "-c", "fsync=off"]
        self._process = subprocess.Popen([self._bin / "postgres", "-D", data, *options], **quiet, **self._as)
        import psycopg

        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < until, "PostgreSQL did not answer within 30 s"
                continue
            return

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="fairway-postgres-") as folder:
        server = Postgres(Path(folder))
        server.start()
        yield server.url
        server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/flows.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    database = await Database.open(url)
    await database._driver.write([("DELETE FROM flow_match", ()), ("DELETE FROM flow", ()), ("DELETE FROM site", ())])
    yield database
    await database.close()


@asynccontextmanager
async def working(database: Database) -> AsyncIterator[tuple[EventBus, Queue]]:
    async with EventBus("memory://") as bus, Queue("memory://") as queue, with_cancel(background()) as ctx:
        running = asyncio.ensure_future(work(ctx, bus, queue, database))
        yield bus, queue
        ctx.cancel()
        await running


async def settled(bus: EventBus, queue: Queue) -> None:
    """Wait until every event and every job is done."""
    async with asyncio.timeout(20):
        while True:
            groups = await bus.store.groups()
            busy = [q for q in await queue.store.queues() if any(q.counts[s] for s in ("available", "running"))]
            if groups and not busy and not any(g.lag or g.waiting or g.leased for g in groups):
                return
            await asyncio.sleep(0)


def created(what: ResourceFlow, name: str) -> Event:
    return Event(FLOW_CREATED, msgspec.to_builtins(what), id=name, source="test", partition_key=what.site.id)


async def test_created_flows_are_synced_and_matched_also_when_every_event_comes_twice(database: Database) -> None:
    async with working(database) as (bus, queue):
        flows = [flow("o", MILL, "output", 80.0), flow("i", BATHS, "input"), flow("x", FAR, "input")]
        for round_ in range(2):
            for what in flows:
                await bus.publish(background(), created(what, f"{what.id}-{round_}"), topic=TOPIC)
        await settled(bus, queue)
        found = await database.matches("o")
        assert found == await database.matches("i")
        assert [(match.output, match.input) for match in found] == [("o", "i")]
        assert await database.matches("x") == []
        assert await database.flow("o") == flows[0]


async def test_a_changed_flow_replaces_its_matches(database: Database) -> None:
    async with working(database) as (bus, queue):
        for name, what in [("1", flow("o", MILL, "output")), ("2", flow("i", BATHS, "input"))]:
            await bus.publish(background(), created(what, name), topic=TOPIC)
        await settled(bus, queue)
        moved = msgspec.structs.replace(flow("i", BATHS, "input"), resource="steam")
        await bus.publish(background(), created(moved, "3"), topic=TOPIC)
        await settled(bus, queue)
        assert await database.matches("o") == []


async def test_bad_data_and_unknown_types_are_dead_letters_that_name_the_event(database: Database) -> None:
    async with working(database) as (bus, queue):
        await bus.publish(background(), Event(FLOW_CREATED, {"id": 5}, id="bad"), topic=TOPIC)
        await bus.publish(background(), Event("resource_flow_creatd", {}, id="typo"), topic=TOPIC)
        await settled(bus, queue)
        dead = [item.event.extensions["deadreason"] for item in await bus.store.read(0, 9, "$dead.resource-flows")]
        assert any("event bad of type 'resource_flow_created'" in reason for reason in dead)
        assert any("did you mean 'resource_flow_created'" in reason for reason in dead)


async def test_the_web_app_publishes_and_shows(database: Database) -> None:
    async with working(database) as (bus, queue):
        app = make_app(StoreEventPublisher(bus.store, topic=TOPIC), database)
        async with app.router.lifespan_context(app):
            for what in (flow("o", MILL, "output"), flow("i", BATHS, "input")):
                status, answer = await call(
                    app, "POST", "/flows", msgspec.json.encode(what), {"idempotency-key": what.id}
                )
                assert (status, answer["event"]) == (202, what.id)
            assert (await call(app, "POST", "/flows", b'{"id": 1}'))[0] == 422
            await settled(bus, queue)
            status, found = await call(app, "GET", "/flows/o/matches")
            assert status == 200
            assert msgspec.convert(found, list[Match]) == await database.matches("o") != []


async def call(app: Any, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("test", 80),
    }
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": 0},
        {"quantity": -1.0},
        {"id": ""},
        {"site": {"id": "s", "name": "S", "latitude": 91, "longitude": 0}},
    ],
    ids=["nothing", "negative", "no-id", "no-place"],
)
def test_a_flow_that_cannot_be_is_refused_before_it_reaches_a_division(wrong: dict[str, Any]) -> None:
    site = {"id": "s", "name": "S", "latitude": 0, "longitude": 0}
    flow = {"id": "f", "site": site, "direction": "input", "resource": "heat", "quantity": 1.0, **wrong}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(flow, ResourceFlow)
