"""A real NGINX on free ports, in front of small upstreams that the tests start themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import psutil
import pytest

from fairway.apps.spec import AppSpec
from fairway.nginx.site import Options, Server, plan
from fairway.nginx.version import NginxVersion
from fairway.platform.nginx_tree import Applied, NginxTree
from fairway.run.nginx import Nginx

Serve = Callable[[Iterable[AppSpec], dict[str, int]], Awaitable[tuple[NginxTree, Applied]]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def ports() -> dict[str, int]:
    return {"http": free_port(), "grpc": free_port(), "tls": free_port()}


@pytest.fixture
def nginx() -> Nginx:
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("no nginx on this machine: apt-get install nginx")
    return Nginx()


@pytest.fixture
async def serve(tmp_path: Path, ports: dict[str, int], nginx: Nginx) -> AsyncIterator[Serve]:
    """Generate for apps whose upstreams listen on the given ports, and start an NGINX on it."""
    tmp_path.chmod(0o755)
    out = tmp_path / "nginx"
    started: list[NginxTree] = []

    async def start(apps: Iterable[AppSpec], upstreams: dict[str, int]) -> tuple[NginxTree, Applied]:
        tree = NginxTree(out, nginx, NginxVersion.parse(await nginx.version()))
        servers = {name: (Server("127.0.0.1", port),) for name, port in upstreams.items()}
        options = Options(
            listen=ports["http"],
            listen_grpc=ports["grpc"],
            listen_tls=ports["tls"],
            address="127.0.0.1",
            worker_processes="1",
        )
        applied = await tree.apply(plan(apps, servers), options)
        if not started:
            outcome = await nginx.start(applied.conf, out)
            assert outcome.status == 0, outcome.output
            started.append(tree)
        return tree, applied

    yield start
    if started:
        await _stop(int((out / "nginx.pid").read_text()))


async def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    async with asyncio.timeout(10):
        while _exists(pid):
            await asyncio.sleep(0)


def _exists(pid: int) -> bool:
    # It put itself into the background, so it is init's to reap: a zombie has ended.
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
