"""A Redis or Valkey of a test's own: on a free port, over a folder, to be killed and started again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

_START_S = 10.0


class RedisServer:
    """One server process. `valkey-server` where there is one, else `redis-server`.

    Args:
        folder: Where it keeps its append-only file, and what it says in ``redis.log``.
        fsync: ``appendfsync``: ``always``, ``everysec`` or ``no``.
        options: More options, such as ``("--cluster-enabled", "yes")``.
    """

    def __init__(self, folder: Path, fsync: str = "everysec", *options: str) -> None:
        self.folder = folder
        self.port = _free_port()
        self._argv = [
            *(self.binary() or "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--logfile", str(folder / "redis.log")),
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def binary() -> str | None:
        """Return the path of a server on this machine, or None."""
        return shutil.which("valkey-server") or shutil.which("redis-server")

    @property
    def url(self) -> str:
        """Address for `open_store`."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers, having read what it kept. Raises `AssertionError` after 10 s."""
        self.process = subprocess.Popen(  # noqa: S603 - the argv is made here
            self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.command("PING").startswith(b"+PONG"):
                    return
            except OSError:
                time.sleep(0.005)
        log = self.folder / "redis.log"
        raise AssertionError(f"redis did not answer: {log.read_text() if log.exists() else 'it left no log'}")

    def kill(self) -> None:
        """End it as a power cut would end the process: SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def command(self, *words: str) -> bytes:
        """Send one command without spaces in its words; return the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65_536)

    def __repr__(self) -> str:
        return f"<RedisServer :{self.port} [{'up' if self.process is not None else 'down'}]>"


def _free_port() -> int:
    """Return a free port that leaves room for a cluster's second one, 10,000 above."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port <= 55_535:
            return port
