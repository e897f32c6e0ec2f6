"""The memory store keeps the contract."""

import pytest

from fairway.jobs.stores.memory import MemoryStore
from fairway.testing import FakeClock
from fairway.testing.stores import StoreConformance, StoreHarness


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def harness(self, fake_clock: FakeClock) -> StoreHarness:
        return StoreHarness(MemoryStore, clock=fake_clock)
