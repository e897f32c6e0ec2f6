"""The HTTP API and its client keep the contract: the whole suite through both."""

import asyncio
import threading
from pathlib import Path

import pytest

from fairway.api.app import Services, create_app
from fairway.api.server import serve
from fairway.jobs.client import HttpStore
from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.service import JobService
from fairway.jobs.store import Store, StoreOptions
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.testing import FakeClock
from fairway.testing.stores import StoreConformance, StoreHarness


class _ServedStore(HttpStore):
    """A client that brings its server along, in a thread of its own, and moves the server's time."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        super().__init__("http://127.0.0.1:1", options, token="t0ken")
        self._served = SqliteStore(path, options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    async def open(self) -> None:
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            async with JobService(self._served) as service:
                app = create_app(Services(jobs=service, token="t0ken"))
                async with serve(app, host="127.0.0.1", port=0) as (host, port):
                    loop.call_soon_threadsafe(started.set_result, f"http://{host}:{port}")
                    await self._stop.wait()
                    service.drain()

        self._thread = threading.Thread(target=asyncio.run, args=(main(),))
        self._thread.start()
        HttpStore.__init__(self, await started, self.options, token="t0ken")
        await super().open()

    async def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._stop.set)
            await asyncio.to_thread(self._thread.join)
        await super().close()

    async def maintain(self) -> None:
        await self._served.maintain()

    async def ticked(self, name: str, tick: float) -> None:
        await self._served.ticked(name, tick)


class TestHttpStore(StoreConformance):
    @pytest.fixture
    def harness(self, fake_clock: FakeClock, tmp_path: Path) -> StoreHarness:
        def make(options: StoreOptions) -> Store:
            return _ServedStore(tmp_path / "jobs.db", options)

        return StoreHarness(make, clock=fake_clock)


async def test_a_daemon_that_is_not_there_is_told() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await HttpStore("http://127.0.0.1:9").open()
