"""The memory store keeps the contract."""

from collections.abc import AsyncIterator

import pytest

from fairway.jobs.stores.memory import MemoryStore
from fairway.testing import FakeClock
from fairway.testing.stores import StoreConformance, StoreHarness


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    async def harness(self, fake_clock: FakeClock) -> AsyncIterator[StoreHarness]:
        yield StoreHarness(MemoryStore, clock=fake_clock)
