"""The Redis store keeps the contract, on a clock that tests move and on the server's own."""

import pytest

from fairway.jobs.stores.redis import RedisStore
from fairway.testing import FakeClock
from fairway.testing.redis_server import RedisServer
from fairway.testing.stores import StoreConformance, StoreHarness

pytestmark = pytest.mark.integration


class TestRedisStore(StoreConformance):
    @pytest.fixture
    async def harness(self, fake_clock: FakeClock, redis_server: RedisServer) -> StoreHarness:
        return StoreHarness(lambda options: RedisStore(redis_server.url, options), clock=fake_clock)


class TestRedisStoreOnTheServersClock(StoreConformance):
    @pytest.fixture
    async def harness(self, redis_server: RedisServer) -> StoreHarness:
        return StoreHarness(lambda options: RedisStore(redis_server.url, options))
