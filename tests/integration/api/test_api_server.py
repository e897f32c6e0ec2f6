"""The API over real sockets: two listeners, streams that resume, clients that go away, an orderly end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairway.api.app import Services, create_app
from fairway.api.server import serve
from fairway.concurrency import background, with_cancel
from fairway.health.checker import HealthChecker
from fairway.health.probe import ProbeResult, ProbeTarget
from fairway.health.state import Check
from fairway.logs.service import LogService
from fairway.platform.errors import PortTaken

pytestmark = pytest.mark.integration


class File(NamedTuple):
    path: Path
    app: str
    process: str
    number: int


class Api:
    """A running API over one log folder and one health check that fails when told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unix = folder / "api.sock"
        self.well = True
        self.logs = LogService(self.files, busy=0.005, idle=0.02)
        self.health = HealthChecker(prober=self.probe, epoch="1")
        self.health.watch(Check("a/web.1", "a", ProbeTarget("h", 1), interval=0.05, rise=1, fall=1))
        self.port = 0

    def files(self) -> list[File]:
        return [File(path, "a", "web", int(path.stem[4:])) for path in sorted(self.folder.glob("web.*.log"))]

    def write(self, text: str, number: int = 1) -> None:
        with open(self.folder / f"web.{number}.log", "a", encoding="utf-8") as file:
            file.write(text)

    async def probe(self, _target: ProbeTarget) -> ProbeResult:
        return ProbeResult(ok=self.well, seconds=0.001)

    async def open(self, path: str, *, last_id: str | None = None, headers: str = "") -> Stream:
        reader, writer = await asyncio.open_unix_connection(str(self.unix))
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id is not None else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{resume}{headers}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return Stream(head.decode(), reader, writer)


class Stream:
    """A response that is read event by event."""

    def __init__(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self._reader = reader
        self._writer = writer
        self.last_id: str | None = None

    async def event(self) -> tuple[str, Any]:
        """Return the next event; chunk sizes of the transfer coding are skipped."""
        name, data = "message", None
        async with asyncio.timeout(10.0):
            while True:
                line = (await self._reader.readuntil(b"\n")).decode().rstrip("\r\n")
                if line.startswith("data: "):
                    data = json.loads(line[6:])
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("id: "):
                    self.last_id = line[4:]
                elif not line and data is not None:
                    return name, data

    async def lines(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            name, data = await self.event()
            if name == "message":
                found.append(data["text"])
        return found

    async def until(self, name: str) -> None:
        while (await self.event())[0] != name:
            pass

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    api = Api(tmp_path)
    async with _running(api):
        yield api


@asynccontextmanager
async def _running(api: Api) -> AsyncIterator[None]:
    ctx = with_cancel(background())
    tasks = [asyncio.create_task(api.logs.run(ctx)), asyncio.create_task(api.health.run(ctx))]
    app = create_app(Services(logs=api.logs, health=api.health, token="t"))
    try:
        async with serve(app, host="127.0.0.1", port=0, unix=api.unix) as (_, api.port):
            yield
    finally:
        ctx.cancel()
        await asyncio.gather(*tasks)


async def test_logs_resume_exactly_behind_the_last_id(api: Api) -> None:
    api.write("1\n2\n")
    stream = await api.open("/v1/logs?follow&tail=1")
    assert "text/event-stream" in stream.head
    assert await stream.lines(1) == ["2"]
    await stream.until("live")
    api.write("3\n")
    assert await stream.lines(1) == ["3"]
    stream.close()
    api.write("4\n5\n")
    api.write("new instance\n", number=2)
    again = await api.open("/v1/logs?follow&tail=1", last_id=stream.last_id)
    assert sorted(await again.lines(3)) == ["4", "5", "new instance"]
    again.close()


async def test_a_client_that_goes_away_leaves_nothing_behind(api: Api) -> None:
    api.write("1\n")
    streams = [await api.open("/v1/logs?follow") for _ in range(5)]
    for stream in streams:
        await stream.until("live")
    assert api.logs.statistics().subscribers == 5
    for stream in streams:
        stream.close()
    async with asyncio.timeout(10.0):
        while api.logs.statistics().subscribers:
            await asyncio.sleep(0.01)


async def test_health_streams_a_snapshot_and_every_change(api: Api) -> None:
    stream = await api.open("/v1/health?follow")
    name, report = await stream.event()
    assert (name, report["targets"][0]["key"]) == ("snapshot", "a/web.1")
    async with asyncio.timeout(10.0):
        while api.health.statuses()[0].state != "healthy":
            await asyncio.sleep(0.01)
    api.well = False
    while True:
        name, change = await stream.event()
        assert name == "change"
        if change["status"]["state"] == "unhealthy":
            break
    assert stream.last_id == change["id"]
    stream.close()


async def test_a_bad_query_is_a_problem_not_a_stream(api: Api) -> None:
    stream = await api.open("/v1/logs?follow&since=soon")
    assert stream.head.startswith("HTTP/1.1 422")
    stream.close()


async def test_the_unix_socket_is_private_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "api.sock"))
    stale.close()
    api = Api(tmp_path)
    async with _running(api):
        assert api.unix.stat().st_mode & 0o777 == 0o600
        stream = await api.open("/healthz")
        assert stream.head.startswith("HTTP/1.1 200")
        stream.close()
    assert not api.unix.exists()


async def test_over_tcp_a_token_is_asked_for(api: Api) -> None:
    for headers, status in (("", 401), ("Authorization: Bearer t\r\n", 200)):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n".encode())
        answer = await reader.read()
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        writer.close()


async def test_a_taken_port_is_a_sentence_and_leaves_no_socket(api: Api, tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=f"127.0.0.1:{api.port}"):
        async with serve(create_app(Services()), host="127.0.0.1", port=api.port, unix=tmp_path / "other.sock"):
            pytest.fail("it listens on a taken port")
    assert not (tmp_path / "other.sock").exists()


async def test_the_end_cuts_streams_and_comes_in_time(tmp_path: Path) -> None:
    api = Api(tmp_path)
    loop = asyncio.get_running_loop()
    async with _running(api):
        stream = await api.open("/v1/logs?follow")
        await stream.until("live")
        ending = loop.time()
    assert loop.time() - ending < 5.0
    stream.close()
