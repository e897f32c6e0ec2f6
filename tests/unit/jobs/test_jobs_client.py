"""The HTTP client of workers and producers: silence, closed connections, cancellation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.http import Address, HttpClient

pytestmark = pytest.mark.timeout(20)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[HttpClient]:
    """Yield a client of a server that hands every connection to `handler`."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    client = HttpClient(Address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None))
    try:
        yield client
    finally:
        client.close()
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


async def request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_a_server_that_says_nothing_is_given_up_and_its_late_answer_meets_nobody() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request(reader))
        if b"/quiet" in seen[-1]:
            await reader.read()  # until the client hangs up
            seen.append(b"hung up")
        writer.write(OK)

    async with serving(handler) as client:
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
            await client.call("POST", "/quiet", b"{}", timeout_s=0.05)
        assert await client.call("GET", "/loud") == (200, b"{}")
        assert b"hung up" in seen
        assert len(seen) == 3, "what timed out was not sent again"


async def test_a_kept_connection_that_was_closed_is_replaced_if_the_call_may_be_repeated() -> None:
    calls = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await request(reader)
        calls += 1
        writer.write(OK)
        await request(reader)  # the next call on this connection is read and never answered
        writer.transport.abort()

    async with serving(handler) as client:
        assert (await client.call("GET", "/a"))[0] == 200
        assert (await client.call("GET", "/b"))[0] == 200
        assert calls == 2
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await client.call("POST", "/c", b"{}", repeatable=False)
        assert calls == 2


async def test_a_cancelled_call_drops_its_connection() -> None:
    reached = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await request(reader)
        if b"/slow" in head:
            reached.set()
            await reader.read()
        writer.write(OK)

    async with serving(handler) as client:
        call = asyncio.create_task(client.call("GET", "/slow"))
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert "[0 busy, 0 idle]" in repr(client)
        assert await client.call("GET", "/next") == (200, b"{}")
        assert "[0 busy, 1 idle]" in repr(client)


async def test_nobody_there_is_said_at_once() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    client = HttpClient(Address(f"http://127.0.0.1:{port}", None))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await client.call("GET", "/")
