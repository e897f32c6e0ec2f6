"""A Redis or Valkey cluster of a test's own on loopback: three primaries, each with as many replicas as asked for."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from fairway.testing.redis_server import RedisServer

_READY_S = 30.0


class RedisCluster:
    """Several `RedisServer` processes that share 16,384 slots.

    Args:
        folder: Where the nodes keep their files.
        replicas: Replicas of each of the three primaries.
        options: More options of every node.
    """

    def __init__(self, folder: Path, replicas: int = 0, *options: str) -> None:
        self.replicas = replicas
        self.nodes: list[RedisServer] = []
        for number in range(3 * (1 + replicas)):
            place = folder / f"node-{number}"
            place.mkdir(parents=True)
            words = ("--cluster-enabled", "yes", "--cluster-node-timeout", "3000", *options)
            self.nodes.append(RedisServer(place, "everysec", *words))

    @staticmethod
    def tool() -> str | None:
        """Return the path of the command that makes clusters, or None."""
        return shutil.which("valkey-cli") or shutil.which("redis-cli")

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            places = [f"127.0.0.1:{node.port}" for node in self.nodes]
            words = [*("--cluster", "create", *places), *("--cluster-replicas", str(self.replicas), "--cluster-yes")]
            made = subprocess.run(  # noqa: S603  # the argv is made here
                [self.tool() or "redis-cli", *words], capture_output=True, text=True, timeout=60, check=False
            )
            assert made.returncode == 0, made.stdout + made.stderr
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()

    @property
    def up(self) -> list[RedisServer]:
        """Nodes that were not killed."""
        return [node for node in self.nodes if node.process is not None]

    @property
    def primaries(self) -> list[RedisServer]:
        """Live nodes that are no replicas."""
        return [node for node in self.up if b"role:master" in node.command("INFO replication")]

    def wait_ready(self) -> None:
        """Wait until every live node calls the cluster whole. Raises `AssertionError` after 30 s."""
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            if all(b"cluster_state:ok" in node.command("CLUSTER INFO") for node in self.up) and self._followed():
                return
            time.sleep(0.02)
        raise AssertionError("the cluster did not become whole: " + self.up[0].command("CLUSTER NODES").decode())

    def _followed(self) -> bool:
        """Whether every node agrees who is a replica, and replicas are connected to their primaries."""
        for node in self.up:
            told = node.command("CLUSTER NODES").decode()
            if sum(" slave " in line or ",slave " in line for line in told.splitlines()) < 3 * self.replicas:
                return False
            replication = node.command("INFO replication")
            if b"role:slave" in replication and b"master_link_status:up" not in replication:
                return False
        return True

    def owner(self, key: str) -> RedisServer:
        """Return the primary that has the slot of `key`."""
        for node in self.primaries:
            if not node.command(f"GET {key}").startswith(b"-MOVED"):
                return node
        raise AssertionError(f"no primary has the slot of {key}")

    def flush(self) -> None:
        """Empty every primary."""
        for node in self.primaries:
            node.command("FLUSHALL")

    def __repr__(self) -> str:
        return f"<RedisCluster [{len(self.up)}/{len(self.nodes)} up]>"
