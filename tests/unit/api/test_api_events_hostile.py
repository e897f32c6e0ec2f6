"""Events over HTTP from clients that mean no good, or go at the worst moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fairway.api.app import Services, create_app
from fairway.concurrency import background
from fairway.events import Event, EventBus
from fairway.events.stores.sqlite import SqliteEventStore

CTX = background()


def scope(method: str, target: str, **headers: str) -> dict[str, Any]:
    path, _, query = target.partition("?")
    fields = {"host": "localhost", "content-type": "application/json", **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def post(app: Any, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope("POST", target), receive, send)
    data = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(data) if data else {}


@pytest.fixture
async def bus(tmp_path):
    async with EventBus(SqliteEventStore(tmp_path / "e.db")) as bus:
        yield bus


@pytest.mark.parametrize(
    ("step", "body", "field"),
    [
        ("ack", b'{"offset": 1000000000000000000000000000000, "fence": 1}', "$.offset"),
        ("ack", b'{"offset": -1, "fence": 1}', "$.offset"),
        ("ack", b'{"offset": 1, "fence": 18446744073709551615}', "$.fence"),
        ("kill", b'{"offset": 18446744073709551615, "fence": 1}', "$.offset"),
        ("extend", b'{"offset": 1, "fence": -5, "lease_s": 1}', "$.fence"),
        ("extend", b'{"offset": 1, "fence": 1, "lease_s": 1e300}', "$.lease_s"),
        ("nack", b'{"offset": 1, "fence": 1, "max_deliveries": 0}', "$.max_deliveries"),
        ("nack", b'{"offset": 1, "fence": 1, "delay_s": -1}', "$.delay_s"),
        ("join", b'{"pattern": "a", "after": 18446744073709551615}', "$.after"),
        ("join", b'{"pattern": "$dead.g"}', "topic"),
        ("claim", b'{"limit": 18446744073709551615}', "$.limit"),
        ("claim", b'{"max_deliveries": 18446744073709551615}', "$.max_deliveries"),
    ],
)
async def test_numbers_beyond_reason_are_refused_by_name_and_the_bus_goes_on(bus, step, body, field) -> None:
    app = create_app(Services(events=bus))
    async with asyncio.timeout(5):
        status, problem = await post(app, f"/v1/events/groups/g:{step}", body)
        assert (status, problem["field"]) == (422, field)
        assert (await post(app, "/v1/events/a", b"{}"))[0] == 201


@pytest.mark.parametrize("policy", ["block", "disconnect"])
async def test_a_client_that_goes_before_its_stream_begins_leaves_no_subscription(bus, policy) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    async def send(message: dict[str, Any]) -> None:
        raise BrokenPipeError

    app = create_app(Services(events=bus))
    await app(scope("GET", f"/v1/events?topic=a&buffer=1&policy={policy}"), receive, send)
    assert bus.statistics()["subscriptions"] == 0
    async with asyncio.timeout(5):
        for number in range(5):
            await bus.publish(CTX, Event("a", number))


async def test_a_client_that_goes_while_it_waits_for_a_claim_leases_nothing(bus) -> None:
    gone = asyncio.Event()
    asked = [{"type": "http.request", "body": b'{"wait_s": 20}', "more_body": False}]

    async def receive() -> dict[str, Any]:
        if asked:
            return asked.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        assert gone.is_set()

    app = create_app(Services(events=bus))
    await bus.store.join("g", "a", 0)
    waiting = asyncio.ensure_future(app(scope("POST", "/v1/events/groups/g:claim"), receive, send))
    while not len(bus.store._wakeups):
        await asyncio.sleep(0)
    gone.set()
    await bus.publish(CTX, Event("a", 1))
    async with asyncio.timeout(5):
        await waiting
    assert (await bus.store.groups())[0].leased == 0
    [claimed] = await bus.store.claim("g", 1, 30.0, 5)
    assert claimed.fence == 1


@pytest.mark.parametrize("step", ["join", "claim", "ack", "nack", "extend", "kill"])
async def test_the_groups_of_the_platform_are_out_of_reach(bus, step) -> None:
    app = create_app(Services(events=bus))
    body = {"join": b'{"pattern": ">"}', "claim": b"{}"}.get(step, b'{"offset": 1, "fence": 1}')
    status, problem = await post(app, f"/v1/events/groups/fairway-webhook-billing:{step}", body)
    assert (status, problem["code"]) == (403, "auth.forbidden")
    assert await bus.store.groups() == []
