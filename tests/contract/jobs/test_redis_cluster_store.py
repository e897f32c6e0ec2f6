"""The Redis store keeps the contract on a cluster of several nodes, asked at one that does not have the jobs."""

from collections.abc import Iterator

import pytest

from fairway.jobs.stores.redis import RedisStore
from fairway.testing.redis_cluster import RedisCluster
from fairway.testing.redis_server import RedisServer
from fairway.testing.stores import StoreConformance, StoreHarness

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    if RedisServer.binary() is None or RedisCluster.tool() is None:
        pytest.skip("no redis-server and redis-cli on this machine: apt-get install redis-server redis-tools")
    with RedisCluster(tmp_path_factory.mktemp("cluster"), 1) as cluster:
        yield cluster


class TestRedisStoreOnACluster(StoreConformance):
    @pytest.fixture
    async def harness(self, cluster: RedisCluster) -> StoreHarness:
        cluster.flush()
        owner = cluster.owner("{fairway:jobs}:names")
        seed = next(node.url for node in cluster.primaries if node is not owner)
        return StoreHarness(lambda options: RedisStore(seed, options))
