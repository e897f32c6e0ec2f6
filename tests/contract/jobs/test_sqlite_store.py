"""The SQLite store keeps the contract, on a clock that tests move and on the machine's own."""

from pathlib import Path

import pytest

from fairway.jobs.stores.sqlite import SqliteStore
from fairway.testing import FakeClock
from fairway.testing.stores import StoreConformance, StoreHarness


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def harness(self, fake_clock: FakeClock, tmp_path: Path) -> StoreHarness:
        return StoreHarness(lambda options: SqliteStore(tmp_path / "jobs.db", options), clock=fake_clock)


class TestSqliteStoreOnTheSystemClock(StoreConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> StoreHarness:
        return StoreHarness(lambda options: SqliteStore(tmp_path / "jobs.db", options))
