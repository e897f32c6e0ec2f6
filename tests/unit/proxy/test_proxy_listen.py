"""Where a worker listens on a machine that lacks a family of addresses."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from fairway.proxy.options import DoorOptions
from fairway.proxy.worker import Worker


class WithoutIPv6(socket.socket):
    """A socket of a kernel that knows no IPv6."""

    def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *rest, **named)


SIX = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 0, 0, 0))
FOUR = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))


async def bound(monkeypatch: pytest.MonkeyPatch, *found: tuple[Any, ...]) -> list[str]:
    async def addresses(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return list(found)

    loop = asyncio.get_running_loop()
    worker = Worker(DoorOptions(await_routes=True), loop)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "getaddrinfo", addresses)
        patched.setattr(socket, "socket", WithoutIPv6)
        sockets = await worker._bound("localhost", 0)
    hosts = [sock.getsockname()[0] for sock in sockets]
    for sock in sockets:
        sock.close()
    return hosts


async def test_an_address_of_a_family_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await bound(monkeypatch, SIX, FOUR) == ["127.0.0.1"]


async def test_where_no_family_is_there_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"expected to bind localhost:0, got: Address family not supported"):
        await bound(monkeypatch, SIX)
