"""Redis servers of the tests' own, to be killed, filled up and flushed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairway.testing.redis_server import RedisServer


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a server; its options are `RedisServer`'s."""
    if RedisServer.binary() is None:
        pytest.skip("no redis-server or valkey-server on this machine: apt-get install redis-server")
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
