"""A Redis of the tests' own."""

from collections.abc import Iterator

import pytest

from fairway.testing.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a running server."""
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """Return a running server that holds nothing."""
    redis_process.command("FLUSHALL")
    return redis_process
