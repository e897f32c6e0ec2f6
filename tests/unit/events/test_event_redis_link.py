"""The way to Redis, against servers that answer what a test says."""

from __future__ import annotations

import asyncio

from fairway.events.stores.redis_link import Link
from fairway.events.stores.redis_wire import Address


async def test_a_connecting_that_is_cancelled_leaves_no_connection() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if b"CLUSTER" in data:  # which is never answered
                asked.set()
            else:
                writer.write(b"+PONG\r\n")
        writer.close()
        left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        link = Link(Address.parse(f"redis://127.0.0.1:{port}"))
        call = asyncio.ensure_future(link.command("PING"))
        async with asyncio.timeout(10):
            await asked.wait()
            call.cancel()
            await asyncio.wait({call})
            await link.close()
            await left.wait()
