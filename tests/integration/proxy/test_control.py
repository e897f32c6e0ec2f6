"""The control socket of a running door: push, drain, hold, statistics, stop."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_peers import OK, DoorProcess, Received, ScriptedUpstream, UpstreamPeer, delay, get

from fairway.proxy.control import DoorClient
from fairway.proxy.errors import ControlError, RouteError
from fairway.proxy.routes import Route, RouteTable, Target

pytestmark = pytest.mark.integration


@pytest.fixture
def controlled(tmp_path: Path) -> Iterator[tuple[DoorProcess, DoorClient]]:
    path = tmp_path / "run" / "door.sock"
    door = DoorProcess("--socket", str(path), "--upstream-timeout", "5")
    yield door, DoorClient(path)
    door.stop()
    assert "Traceback" not in door.errors(), door.errors()


def table(version: int, *targets: Target, **route: object) -> RouteTable:
    return RouteTable(version=version, routes=(Route(name="app", host="app.test", targets=targets, **route),))  # type: ignore[arg-type]


def target(server: ScriptedUpstream, name: str = "a", **more: object) -> Target:
    return Target(id=name, host="127.0.0.1", port=server.port, **more)  # type: ignore[arg-type]


async def test_routes_are_pushed_and_swapped(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    door, client = controlled
    assert await asyncio.to_thread(lambda: door.ask(get("/")).status) == 404
    assert await client.push(table(7, target(upstream))) == 7
    assert await asyncio.to_thread(lambda: door.ask(get("/")).body) == b"ok"
    socket_path = tmp_path / "run" / "door.sock"
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    kept = tmp_path / "run" / "door.sock.table.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert json.loads(kept.read_bytes())["version"] == 7


async def test_a_bad_table_is_refused_whole(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    door, client = controlled
    await client.push(table(1, target(upstream)))
    with pytest.raises(RouteError, match="host"):
        await client.push(RouteTable(version=2, routes=(Route(name="x", host="a; } server {"),)))
    # the worker itself refuses too, whoever speaks to its socket
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "run" / "door.sock"))
    for payload in (
        b'{"type":"push","table":{"version":2,"routes":[{"name":"x","host":"$host"}]}}',
        b'{"type":"push","table":{"routes":[{"name":"x","nosuch":1}]}}',
        b'{"type":"nosuch"}',
        b"not json",
        b"[" * 100_000,
    ):
        writer.write(len(payload).to_bytes(4, "big") + payload)
        length = int.from_bytes(await reader.readexactly(4), "big")
        assert json.loads(await reader.readexactly(length))["error"]
    writer.close()
    assert (await client.statistics()).version == 1
    assert await asyncio.to_thread(lambda: door.ask(get("/")).body) == b"ok"


async def test_a_restarted_worker_comes_up_with_its_last_table(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    door, client = controlled
    await client.push(table(3, target(upstream)))
    door.process.kill()
    door.process.wait()
    again = DoorProcess("--socket", str(tmp_path / "run" / "door.sock"))
    try:
        assert await asyncio.to_thread(lambda: again.ask(get("/")).body) == b"ok"
        assert (await client.statistics()).version == 3
    finally:
        await asyncio.to_thread(again.stop)


async def test_two_doors_on_one_socket_are_refused(controlled: tuple[DoorProcess, DoorClient], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected no other door"):
        await asyncio.to_thread(DoorProcess, "--socket", str(tmp_path / "run" / "door.sock"))


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="expected a door listening"):
        await DoorClient(tmp_path / "none.sock").statistics()


def slow(seconds: float) -> object:
    def script(peer: UpstreamPeer, request: Received) -> bool:
        delay(seconds)
        peer.send(OK)
        return True

    return script


async def test_item_27_swap_drains_the_old_target_without_a_failed_request(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled
    second = ScriptedUpstream()
    upstream.on(path, slow(0.6))  # type: ignore[arg-type]
    await client.push(table(1, target(upstream, "old")))
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.append(door.ask(get(path)).body))
    thread.start()
    await asyncio.to_thread(upstream.wait_for, path)
    await client.push(table(2, target(second, "new")))
    started = time.monotonic()
    assert (await client.statistics()).targets["old"].in_flight == 1
    assert await asyncio.to_thread(lambda: door.ask(get(path)).body) == b"ok"
    assert len(second.seen(path)) == 1
    assert await client.drain(["old"], 5.0) == 0
    assert 0.2 < time.monotonic() - started < 3
    await asyncio.to_thread(thread.join)
    assert answers == [b"ok"]
    assert "old" not in (await client.statistics()).targets
    second.close()


async def test_item_27_drain_reports_what_is_left(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled
    upstream.on(path, slow(1.0))  # type: ignore[arg-type]
    await client.push(table(1, target(upstream, "old")))
    thread = threading.Thread(target=lambda: door.ask(get(path)))
    thread.start()
    await asyncio.to_thread(upstream.wait_for, path)
    assert await client.drain(["old", "unknown"], 0.1) == 1
    assert await asyncio.to_thread(lambda: door.ask(get("/x")).status) == 503
    await client.push(table(2, target(upstream, "old")))
    assert await asyncio.to_thread(lambda: door.ask(get("/x")).body) == b"ok"
    await asyncio.to_thread(thread.join)


async def test_item_27_long_lived_streams_are_closed_by_their_own_timer(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled

    def stream(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        return not peer.closed_by_door(10)

    def tunnel(peer: UpstreamPeer, request: Received) -> bool:
        peer.send(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        return not peer.closed_by_door(10)

    upstream.on(path, stream)
    upstream.on(path + "ws", tunnel)
    await client.push(table(1, target(upstream, "old")))
    peers = [door.connect() for _ in range(6)]
    for number, peer in enumerate(peers):
        if number % 2:
            peer.send(get(path))
            await asyncio.to_thread(peer.until, b"data: 1\n\n")
        else:
            peer.send(get(path + "ws", b"Connection: Upgrade", b"Upgrade: websocket"))
            await asyncio.to_thread(peer.until, b"hello")
    assert (await client.statistics()).targets["old"].streams == 6
    ended: list[float] = []

    def wait_end(number: int) -> None:
        peers[number].to_end()
        ended.append(time.monotonic())

    threads = [threading.Thread(target=wait_end, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    assert await client.drain(["old"], 2.0) == 0
    assert time.monotonic() - started < 2.2
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    assert len(ended) == 6
    assert max(ended) - min(ended) > 0.05, "all closed at once: the clients would come back at once"
    for peer in peers:
        peer.sock.close()


async def test_item_26_unhealthy_or_draining_is_503(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream
) -> None:
    door, client = controlled
    for route in (
        table(1, target(upstream, healthy=False)),
        table(2, target(upstream, weight=0)),
        table(3),
        table(4, target(upstream), state="unavailable"),
    ):
        await client.push(route)
        answer = await asyncio.to_thread(lambda: door.ask(get("/")))
        assert answer.status == 503
        assert answer.value("retry-after")
        assert (answer.value("x-request-id") or b"?") in answer.body


async def test_held_requests_wait_for_release(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled
    await client.push(table(1, target(upstream), state="holding"))
    answers: list[tuple[int, bytes]] = []

    def ask() -> None:
        answer = door.ask(get(path, b"Content-Length: 3", method="POST") + b"abc")
        answers.append((answer.status, answer.body))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    while (await client.statistics()).routes["app"].held < 5:
        await asyncio.sleep(0.01)
    gone = door.connect()
    gone.send(get(path))
    while (await client.statistics()).routes["app"].held < 6:
        await asyncio.sleep(0.01)
    gone.sock.close()
    assert not upstream.seen(path)
    await client.push(table(2, target(upstream), state="holding"))
    await client.push(table(3, target(upstream)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert answers == [(200, b"ok")] * 5
    assert all(request.body == b"abc" for request in upstream.seen(path) if request.start.startswith(b"POST"))


async def test_held_requests_give_up_in_time(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream
) -> None:
    door, client = controlled
    await client.push(table(1, target(upstream), state="holding", hold_timeout=0.2))
    started = time.monotonic()
    assert await asyncio.to_thread(lambda: door.ask(get("/")).status) == 503
    assert time.monotonic() - started < 2


async def test_statistics_and_metrics(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled
    upstream.on(path, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    await client.push(table(1, target(upstream)))
    for _ in range(3):
        await asyncio.to_thread(lambda: door.ask(get("/")))
    await asyncio.to_thread(lambda: door.ask(get(path)))
    statistics = await client.statistics()
    assert statistics.pid == door.process.pid
    one = statistics.targets["a"]
    assert (one.requests, one.errors_5xx, one.in_flight) == (4, 1, 0)
    assert 0 < one.latency_sum_s < 5
    assert one.bytes_received == 6
    route = statistics.routes["app"]
    assert route.requests == {"2xx": 3, "5xx": 1}
    assert sum(route.latency_buckets) == 4
    text = await client.metrics()
    assert 'fairway_door_requests_total{route="app",status="2xx"} 3.0' in text
    assert 'fairway_door_latency_seconds_bucket{le="+Inf",route="app"} 4.0' in text
    assert 'fairway_door_target_errors_5xx_total{target="a"} 1.0' in text


async def test_weights_split_and_stickiness(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled
    second = ScriptedUpstream()
    from fairway.proxy.routes import Sticky

    targets = (target(upstream, "a", release="r1"), target(second, "b", release="r2"))
    await client.push(table(1, *targets, split={"r1": 90, "r2": 10}, sticky=Sticky(cookie="rel", max_age=60)))

    def ask(*fields: bytes) -> bytes | None:
        return door.ask(get(path, *fields)).value("set-cookie")

    cookies = [await asyncio.to_thread(ask) for _ in range(50)]
    assert (len(upstream.seen(path)), len(second.seen(path))) == (45, 5)
    assert set(cookies) == {
        b"rel=r1; Path=/; HttpOnly; SameSite=Lax; Max-Age=60",
        b"rel=r2; Path=/; HttpOnly; SameSite=Lax; Max-Age=60",
    }
    for _ in range(5):
        assert await asyncio.to_thread(ask, b"Cookie: x=y; rel=r2") is None
    assert len(second.seen(path)) == 10
    second.close()


async def test_stop_finishes_what_is_in_flight(
    controlled: tuple[DoorProcess, DoorClient], upstream: ScriptedUpstream, path: str
) -> None:
    door, client = controlled
    upstream.on(path, slow(0.5))  # type: ignore[arg-type]
    await client.push(table(1, target(upstream)))
    idle = door.connect()
    answers: list[object] = []

    def ask() -> None:
        answer = door.ask(get(path))
        answers.append((answer.body, answer.value("connection")))

    thread = threading.Thread(target=ask)
    thread.start()
    await asyncio.to_thread(upstream.wait_for, path)
    await client.stop(5.0)
    await asyncio.to_thread(thread.join)
    assert answers == [(b"ok", b"close")]
    assert await asyncio.to_thread(door.process.wait, 5) == 0
    assert idle.ended()
    idle.sock.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", door.port), timeout=1)
