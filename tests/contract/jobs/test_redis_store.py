"""The Redis store keeps the contract, on a clock that tests move and on the server's own."""

import pytest

from fairway.jobs.job import NewJob, raw
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.redis import RedisStore
from fairway.testing import FakeClock
from fairway.testing.redis_server import RedisServer
from fairway.testing.stores import StoreConformance, StoreHarness

pytestmark = pytest.mark.integration


class TestRedisStore(StoreConformance):
    @pytest.fixture
    async def harness(self, fake_clock: FakeClock, redis_server: RedisServer) -> StoreHarness:
        return StoreHarness(lambda options: RedisStore(redis_server.url, options), clock=fake_clock)

    async def test_cancelling_what_is_not_kept_answers_it_once_more(self, harness: StoreHarness) -> None:
        async with harness.make() as store:
            (i,) = (await store.enqueue([NewJob(kind="k", keep_s=0.0)])).ids
            assert (await store.cancel(i)).state == "cancelled"
            assert await store.get(i) is None

    async def test_a_claim_is_bounded_in_bytes_and_keeps_the_order(self, harness: StoreHarness) -> None:
        harness.options = StoreOptions(clock=harness.options.clock)
        async with harness.make() as store:
            big = NewJob(kind="big", args=raw("x" * 1_000_000))
            ids = [i for _ in range(3) for i in (await store.enqueue([big] * 8)).ids]
            first = await store.claim(["default"], 24, 30.0, "w")
            assert 16 <= len(first) < 24
            rest = await store.claim(["default"], 24, 30.0, "w")
            assert [x.id for x in first + rest] == ids


class TestRedisStoreOnTheServersClock(StoreConformance):
    @pytest.fixture
    async def harness(self, redis_server: RedisServer) -> StoreHarness:
        return StoreHarness(lambda options: RedisStore(redis_server.url, options))
