"""The door as a library: middleware sees heads, answers by itself, and streams bodies through channels."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from door_peers import Client, Received, ScriptedUpstream, UpstreamPeer, get

from fairway.concurrency import Chan
from fairway.proxy import Middleware, ProxyRequest, ProxyResponse, ReverseProxy
from fairway.proxy.errors import OptionError, ProxyError, RouteError

pytestmark = pytest.mark.integration


async def ask(proxy: ReverseProxy, data: bytes) -> Any:
    def talk() -> Any:
        client = Client(proxy.address[1])
        with client:
            client.send(data)
            return client.answer("HEAD" if data.startswith(b"HEAD") else "GET")

    return await asyncio.to_thread(talk)


def serving(upstream: ScriptedUpstream, *middleware: Middleware) -> ReverseProxy:
    return ReverseProxy({"app.test": f"127.0.0.1:{upstream.port}"}, middleware, listen="127.0.0.1:0")


class Upper(Middleware):
    async def response(self, request: ProxyRequest, response: ProxyResponse) -> None:
        response.headers.set("X-Seen-By", "upper")
        response.pipe(self.shout)

    async def shout(self, source: Chan[bytes], sink: Chan[bytes]) -> None:
        async for piece in source:
            await sink.send(piece.upper())


class Doubled(Middleware):
    async def request(self, request: ProxyRequest) -> ProxyResponse | None:
        request.headers.set("X-Added", request.client)
        request.headers.remove("x-gone")
        request.pipe(self.double)
        return None

    async def double(self, source: Chan[bytes], sink: Chan[bytes]) -> None:
        async for piece in source:
            await sink.send(piece)
            await sink.send(piece)


class Guard(Middleware):
    async def request(self, request: ProxyRequest) -> ProxyResponse | None:
        if request.headers.get("authorization") is None:
            return ProxyResponse(401, body=b"who are you?")
        return None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_answers_pass_through_channels(upstream: ScriptedUpstream, path: str, method: str) -> None:
    async with serving(upstream, Upper()) as proxy:
        answer = await ask(proxy, get(path, method=method))
        assert answer.value("x-seen-by") == b"upper"
        assert answer.body == (b"OK" if method == "GET" else b"")
        assert (await ask(proxy, get(path, version="1.0"))).body == b"OK"


async def test_requests_pass_through_channels(upstream: ScriptedUpstream, path: str) -> None:
    async with serving(upstream, Doubled()) as proxy:
        data = get(path, b"Content-Length: 3", b"X-Gone: 1", method="POST") + b"abc"
        assert (await ask(proxy, data)).body == b"ok"
        assert (await ask(proxy, get(path))).body == b"ok"
    first, second = upstream.seen(path)
    assert first.body == b"abcabc"
    assert first.value("Transfer-Encoding") == b"chunked"
    assert first.value("X-Added") == b"127.0.0.1"
    assert not first.values("X-Gone")
    assert second.body == b""


async def test_a_hook_may_answer_by_itself(upstream: ScriptedUpstream, path: str) -> None:
    async with serving(upstream, Guard(), Upper()) as proxy:
        answer = await ask(proxy, get(path))
        assert (answer.status, answer.body) == (401, b"who are you?")
        assert not upstream.seen(path)
        assert (await ask(proxy, get(path, b"Authorization: x"))).body == b"OK"


async def test_large_bodies_stream_with_backpressure_both_ways(upstream: ScriptedUpstream, path: str) -> None:
    size = 8 << 20

    def script(peer: UpstreamPeer, request: Received) -> bool:
        body = peer.read_body(request.head)[0]
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return True

    upstream.on(path, script)
    async with serving(upstream, Doubled(), Upper()) as proxy:
        answer = await ask(proxy, get(path, b"Content-Length: %d" % size, method="POST") + b"a" * size)
        assert answer.body == b"A" * (2 * size)


async def test_pieces_are_not_held_back(upstream: ScriptedUpstream, path: str) -> None:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n")
        return not peer.closed_by_door()

    upstream.on(path, script)
    async with serving(upstream, Upper()) as proxy:

        def talk() -> None:
            with Client(proxy.address[1]) as client:
                client.send(get(path))
                client.until(b"DATA: A")

        await asyncio.to_thread(talk)
        deadline = time.monotonic() + 5
        while proxy.statistics().requests_in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert proxy.statistics().requests_in_flight == 0


@pytest.mark.parametrize("where", ["request", "response", "stage"])
async def test_a_failing_middleware_is_500_and_hurts_nobody_else(
    upstream: ScriptedUpstream, path: str, where: str
) -> None:
    class Broken(Middleware):
        async def request(self, request: ProxyRequest) -> ProxyResponse | None:
            if where == "request" and request.target == path:
                raise ValueError("broken")
            return None

        async def response(self, request: ProxyRequest, response: ProxyResponse) -> None:
            if request.target == path:
                if where == "response":
                    raise ValueError("broken")
                response.pipe(self.stage)

        async def stage(self, source: Chan[bytes], sink: Chan[bytes]) -> None:
            raise ValueError("broken")

    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    async with serving(upstream, Broken()) as proxy:
        if where == "stage":
            with pytest.raises(AssertionError, match="closed before"):
                await ask(proxy, get(path))
        else:
            assert (await ask(proxy, get(path))).status == 500
        assert (await ask(proxy, get(path + "other"))).body == b"ok"
        assert proxy.statistics().requests_in_flight == 0
    assert faults == ["a middleware of the door raised"]


async def test_routes_are_replaced_in_one_step(upstream: ScriptedUpstream, path: str) -> None:
    async with serving(upstream) as proxy:
        assert (await ask(proxy, get(path))).body == b"ok"
        proxy.replace({"other.test": f"127.0.0.1:{upstream.port}"})
        assert (await ask(proxy, get(path))).status == 404
        with pytest.raises(RouteError):
            proxy.replace({"other.test/..": f"127.0.0.1:{upstream.port}"})
        assert (await ask(proxy, get(path, host="other.test"))).body == b"ok"


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "a\r\nX-B: c"), ("X A", "b"), ("Content-Length", "3"), ("Transfer-Encoding", "x"), ("", "")],
)
async def test_hooks_cannot_inject(name: str, value: str) -> None:
    response = ProxyResponse(200)
    with pytest.raises(ProxyError):
        response.headers.set(name, value)


def test_bad_options_are_named() -> None:
    with pytest.raises(OptionError, match="HOST:PORT"):
        ReverseProxy({}, listen="nowhere")
    with pytest.raises(OptionError, match="nosuch"):
        ReverseProxy({}, nosuch=1)
