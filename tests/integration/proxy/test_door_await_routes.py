"""A door that waits for its first table: whoever connects before waits in the socket, and is served then."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairway.proxy.control import DoorClient, Statistics
from fairway.proxy.errors import ControlError
from fairway.proxy.routes import Route, RouteTable

pytestmark = pytest.mark.integration


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def statistics(client: DoorClient) -> Statistics:
    end = time.monotonic() + 20
    while True:
        try:
            return await client.statistics()
        except ControlError:
            assert time.monotonic() < end, "no answer on the control socket"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_connection_waits_for_the_first_table(tmp_path: Path, host: str) -> None:
    port, path = free_port(), tmp_path / "door.sock"
    argv = [
        sys.executable,
        "-m",
        "fairway.proxy",
        "--listen",
        f"{host}:{port}",
        "--socket",
        str(path),
        "--await-routes",
    ]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as door:
        try:
            client = DoorClient(path)
            await statistics(client)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n")
            await writer.drain()
            assert (await client.statistics()).connections == 0
            route = Route(name="shop", host="shop.localhost", state="unavailable", notice="shop is stopped.")
            assert await client.push(RouteTable(version=1, routes=(route,))) == 1
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"shop is stopped." in answer
            writer.close()
            assert await client.push(RouteTable(version=2)) == 2
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
            writer.close()
        finally:
            door.send_signal(signal.SIGTERM)
        assert door.wait(20) == 0


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        argv = [sys.executable, "-m", "fairway.proxy", "--listen", address, "--await-routes"]
        argv += ["--socket", str(tmp_path / "door.sock")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"expected to bind {address}" in done.stderr


def test_one_that_never_got_a_table_ends_in_order(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "fairway.proxy", "--listen", "127.0.0.1:0", "--await-routes"]
    argv += ["--socket", str(tmp_path / "door.sock")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as door:
        assert door.stderr is not None
        assert "listening on 127.0.0.1:" in door.stderr.readline()
        door.send_signal(signal.SIGTERM)
        assert door.wait(20) == 0


async def test_one_that_cannot_keep_its_table_serves_it_all_the_same(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "door.sock"
    argv = [sys.executable, "-m", "fairway.proxy", "--listen", f"127.0.0.1:{port}", "--await-routes"]
    argv += ["--socket", str(path), "--state", str(tmp_path / "none" / "table.json")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as door:
        try:
            client = DoorClient(path)
            await statistics(client)
            route = Route(name="shop", host="shop.localhost", state="unavailable", notice="shop is stopped.")
            assert await client.push(RouteTable(version=1, routes=(route,))) == 1
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n")
                assert b"shop is stopped." in await reader.read()
            writer.close()
        finally:
            door.send_signal(signal.SIGTERM)
        assert door.stderr is not None
        assert f"expected to keep the routes in {tmp_path}/none/table.json" in door.stderr.read()
        assert door.wait(20) == 0
