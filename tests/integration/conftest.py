"""Redis servers of the tests' own: one a module, or as many as a test kills, fills up and flushes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway.testing.redis_server import RedisServer


def _required() -> None:
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a server; its options are `RedisServer`'s."""
    _required()
    servers: list[RedisServer] = []

    def make(fsync: str = "everysec", *options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, fsync, *options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a server that the tests of a module share."""
    _required()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
