"""What a real NGINX does with the generated tree: HTTP, WebSocket, server-sent events, gRPC, quarantine, reload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from fairway.apps.spec import AppSpec, Endpoint
from fairway.nginx.site import Options, Server, plan
from fairway.nginx.version import NginxVersion
from fairway.platform.nginx_tree import NginxTree
from fairway.run.nginx import Nginx

pytestmark = pytest.mark.integration


def app(name: str, **fields: object) -> AppSpec:
    return AppSpec(name=name, file=Path(f"{name}.yaml"), **fields)  # type: ignore[arg-type]  # a test's shorthand


@asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """Answer with the request's head as JSON; ``/events`` streams until told; an upgrade echoes bytes."""

    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving[task] = writer
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            lines = head.split("\r\n")
            fields = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
            if fields.get("upgrade") == "websocket":
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                while data := await reader.read(4096):
                    writer.write(data.upper())
                break
            if lines[0].split()[1] == "/events":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                writer.write(b"data: first\n\n")
                await reader.read(1)  # stays open until the client has gone
                break
            body = json.dumps({"line": lines[0], "fields": fields}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for writer in serving.values():  # NGINX keeps its connections open
        writer.close()
    await asyncio.gather(*serving, return_exceptions=True)


async def get(port: int, host: str, path: str = "/", *extra: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = "".join(f"{line}\r\n" for line in (f"Host: {host}", "Connection: close", *extra))
    writer.write(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
    async with asyncio.timeout(10):
        answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


async def test_http_reaches_the_app_of_its_host_and_path(serve, ports) -> None:
    async with upstream() as one, upstream() as two:
        apps = [app("one"), app("two", backend=Endpoint(domain="one.localhost", path="/two"))]
        _, applied = await serve(apps, {"one": one, "two": two})
        assert applied.served == ("one", "two")
        assert applied.tested
        status, body = await get(ports["http"], "one.localhost", "/a%2Fb?x=1", "X-Forwarded-For: 6.6.6.6")
        seen = json.loads(body)
        assert (status, seen["line"]) == (200, "GET /a%2Fb?x=1 HTTP/1.1")
        assert seen["fields"]["x-forwarded-for"] == "127.0.0.1"
        assert seen["fields"]["x-forwarded-proto"] == "http"
        assert len(seen["fields"]["x-request-id"]) == 32
        assert "connection" not in seen["fields"] or seen["fields"]["connection"] == ""
        assert (await get(ports["http"], "one.localhost", "/two/x"))[0] == 200
        assert (await get(ports["http"], "nobody.localhost"))[0] == 404


async def test_a_web_socket_passes(serve, ports) -> None:
    async with upstream() as one:
        await serve([app("one")], {"one": one})
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["http"])
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: one.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with asyncio.timeout(10):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"HELLO"
        writer.close()


async def test_an_event_arrives_while_the_stream_is_open(serve, ports) -> None:
    async with upstream() as one:
        await serve([app("one")], {"one": one})
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["http"])
        writer.write(b"GET /events HTTP/1.1\r\nHost: one.localhost\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"data: first")
        writer.close()


async def _echo(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    for count in range(3):
        yield request + str(count).encode()


async def _talk(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.upper()


@asynccontextmanager
async def grpc_server() -> AsyncIterator[int]:
    server = grpc.aio.server()
    handlers = {
        "Count": grpc.unary_stream_rpc_method_handler(_echo),
        "Talk": grpc.stream_stream_rpc_method_handler(_talk),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def test_grpc_streams_pass_both_ways_and_a_dead_server_is_unavailable(serve, ports) -> None:
    async with grpc_server() as port:
        face = app("echo", grpc=Endpoint(domain="echo.localhost", port=port))
        await serve([face], {})
        options = [("grpc.default_authority", "echo.localhost")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}", options=options) as channel:
            count = channel.unary_stream("/test.Echo/Count")
            assert [answer async for answer in count(b"n", timeout=10)] == [b"n0", b"n1", b"n2"]
            talk = channel.stream_stream("/test.Echo/Talk")(timeout=10)
            for word in (b"one", b"two"):
                await talk.write(word)
                assert await talk.read() == word.upper()
            await talk.done_writing()
            assert await talk.code() is grpc.StatusCode.OK
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc']}", options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in channel.unary_stream("/test.Echo/Count")(b"n", timeout=10):
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_one_app_that_nginx_refuses_is_quarantined_and_the_rest_is_served(serve, ports) -> None:
    async with upstream() as one:
        tree, _ = await serve([app("one")], {"one": one})
        servers = {"one": (Server("127.0.0.1", one),), "bad": (Server("no-such-host.invalid", 80),)}
        options = Options(listen=ports["http"], listen_grpc=ports["grpc"], address="127.0.0.1")
        applied = await tree.apply(plan([app("one"), app("bad")], servers), options)
        assert applied.served == ("one",)
        assert [refused.app for refused in applied.left_out] == ["bad"]
        assert "no-such-host.invalid" in str(applied.left_out[0].error)
        assert await tree.reload()
        assert (await get(ports["http"], "one.localhost"))[0] == 200


async def test_a_reload_serves_a_new_app_and_an_unchanged_tree_is_left_alone(serve, ports) -> None:
    async with upstream() as one, upstream() as two:
        tree, first = await serve([app("one")], {"one": one})
        assert first.changed
        _, again = await serve([app("one")], {"one": one})
        assert not again.changed
        _, more = await serve([app("one"), app("two")], {"one": one, "two": two})
        assert more.changed
        assert await tree.reload()
        async with asyncio.timeout(10):
            while (await get(ports["http"], "two.localhost"))[0] != 200:
                await asyncio.sleep(0)
        assert (await get(ports["http"], "one.localhost"))[0] == 200


async def test_every_version_branch_that_this_nginx_understands_passes_its_test(tmp_path: Path, nginx: Nginx) -> None:
    own = NginxVersion.parse(await nginx.version())
    tree = NginxTree(tmp_path / "out", nginx, min(own, NginxVersion(1, 18)))
    applied = await tree.apply(plan([app("one")], {"one": (Server("127.0.0.1", 9),)}), Options())
    assert applied.served == ("one",)
    assert not await NginxTree(tmp_path / "none", None, own).reload()
