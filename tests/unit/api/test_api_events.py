"""Events over HTTP: CloudEvents in each mode, server-sent events that resume, groups, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fairway.api.app import Services, create_app
from fairway.concurrency import background
from fairway.events import Event, EventBus

CTX = background()


class Client:
    """Speaks ASGI to the application; a stream is read message by message."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def _scope(self, method: str, target: str, headers: dict[str, str]) -> dict[str, Any]:
        path, _, query = target.partition("?")
        fields = {"host": "localhost", **headers}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }

    async def call(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        sent: list[dict[str, Any]] = []
        given = {name.replace("_", "-"): value for name, value in headers.items()}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(self._scope(method, target, given), receive, send)
        data = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(data) if data else None

    async def post(self, target: str, document: Any, kind: str = "application/json", **headers: str) -> tuple[int, Any]:
        return await self.call("POST", target, json.dumps(document).encode(), content_type=kind, **headers)

    @asynccontextmanager
    async def stream(self, target: str, **headers: str) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            for block in message.get("body", b"").decode().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
                if "data" in fields:
                    events.put_nowait({**fields, "data": json.loads(fields["data"])})

        running = asyncio.ensure_future(self._app(self._scope("GET", target, given), receive, send))
        yield events
        gone.set()
        await running


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus() as bus:
        yield bus


@pytest.fixture
def client(bus: EventBus) -> Client:
    return Client(create_app(Services(events=bus)))


async def test_publish_takes_one_a_batch_and_the_binary_mode(client: Client, bus: EventBus) -> None:
    status, one = await client.post("/v1/events/orders.eu", {"data": {"n": 1}})
    assert (status, one["offsets"], one["durability"]) == (201, [1], "memory")
    batch = [{"type": "a", "id": "1", "source": "s"}, {"type": "b", "id": "2", "source": "s"}]
    status, many = await client.post("/v1/events/orders.eu", batch, "application/cloudevents-batch+json")
    assert (status, many["ids"], many["offsets"]) == (201, ["1", "2"], [2, 3])
    status, _ = await client.post("/v1/events/x", {"n": 2}, ce_type="c", ce_id="3", ce_source="s", ce_ext="v")
    assert status == 201
    stored = await bus.store.read(0, 10)
    assert [(item.topic, item.event.type) for item in stored] == [
        ("orders.eu", "orders.eu"),
        ("orders.eu", "a"),
        ("orders.eu", "b"),
        ("x", "c"),
    ]
    assert stored[3].event.data == {"n": 2}
    assert stored[3].event.extensions == {"ext": "v"}
    status, again = await client.post("/v1/events/orders.eu", batch[0])
    assert (status, again["offsets"]) == (201, [2])


@pytest.mark.parametrize(
    ("kind", "body", "data", "field"),
    [
        ("application/xml; charset=utf-8", b"<a/>", "<a/>", "data"),
        ("text/plain", "ü".encode(), "ü", "data"),
        ("text/plain; charset=latin-1", b"\xfc", "/A==", "data_base64"),
        ("image/png", b"\x89PNG", "iVBORw==", "data_base64"),
        ("application/vnd.api+json", b'{"a": 1}', {"a": 1}, "data"),
        ("application/json", b"null", None, "data"),
    ],
)
async def test_data_of_any_media_type_goes_through_with_it(
    client: Client, kind: str, body: bytes, data: Any, field: str
) -> None:
    headers = {"ce_type": "t", "ce_source": "s", "ce_subject": '"%E2%82%AC \\"5"'}
    status, answer = await client.call("POST", "/v1/events/x", body, content_type=kind, **headers)
    assert status == 201, answer
    async with client.stream("/v1/events?topic=x&follow=false&after=0") as events:
        event = (await events.get())["data"]["event"]
    assert (event["datacontenttype"], event.get(field), event["subject"]) == (kind, data, '€ "5')
    again = {**event, "id": "again"}
    assert (await client.post("/v1/events/x", again, "application/cloudevents+json", ce_type="ignored"))[0] == 201
    _, log = await client.call("GET", "/v1/events/log?after=1")
    assert log[0]["event"] == again


async def test_an_event_in_binary_mode_may_have_no_data_but_none_of_an_unknown_kind(client: Client) -> None:
    assert (await client.call("POST", "/v1/events/x", ce_type="t"))[0] == 201
    status, problem = await client.call("POST", "/v1/events/x", b"?", ce_type="t")
    assert (status, problem["code"]) == (415, "request.unsupported")
    status, problem = await client.call("POST", "/v1/events/x", b"?", ce_type="t", content_type="png")
    assert (status, problem["field"]) == (422, "datacontenttype")


@pytest.mark.parametrize(
    ("target", "body", "kind", "status", "field"),
    [
        ("/v1/events/a", b"{", "application/json", 400, ""),
        ("/v1/events/a", b"{}", "text/plain", 415, ""),
        ("/v1/events/a", b"[]", "application/json", 422, "$"),
        ("/v1/events/a", b"[1]", "application/json", 422, "$[0]"),
        ("/v1/events/a", b"5", "application/json", 422, "$[0]"),
        ("/v1/events/a", b'{"type": ""}', "application/json", 422, "type"),
        ("/v1/events/a", b'{"time": "x"}', "application/json", 422, "time"),
        ("/v1/events/a%20b", b"{}", "application/json", 422, "topic"),
        ("/v1/events/$dead.g", b"{}", "application/json", 422, "topic"),
        ("/v1/events/a", b"[" * 100_000, "application/json", 400, ""),
        ("/v1/events/a", b'{"data":' + b"[" * 490 + b"]" * 490 + b"}", "application/json", 422, "data"),
        (
            "/v1/events",
            b'[{"topic":"a","event":{"type":"t","data":' + b"[" * 490 + b"]" * 490 + b"}}]",
            "application/json",
            422,
            "data",
        ),
    ],
)
async def test_bad_input_is_a_problem_that_names_the_field_and_stores_nothing(
    client: Client, bus: EventBus, target: str, body: bytes, kind: str, status: int, field: str
) -> None:
    got, problem = await client.call("POST", target.replace("%20", " "), body, content_type=kind)
    assert (got, problem.get("field", "")) == (status, field)
    assert problem["detail"]
    assert await bus.store.last() == 0


@pytest.mark.parametrize(
    ("target", "before", "after"),
    [("/v1/events/a", b"", b""), ("/v1/events/a", b"[", b"]"), ("/v1/events", b'[{"topic":"a","event":', b"}]")],
)
async def test_the_deepest_event_that_may_be_is_taken_in_whatever_it_comes(
    client: Client, target: str, before: bytes, after: bytes
) -> None:
    event = b'{"id":"1","type":"t","data":' + b"[" * 489 + b"]" * 489 + b"}"
    status, answer = await client.call("POST", target, before + event + after, content_type="application/json")
    assert status == 201, answer


async def test_a_batch_with_one_bad_event_stores_nothing(client: Client, bus: EventBus) -> None:
    status, _ = await client.post("/v1/events/a", [{"id": "1"}, {"id": ""}])
    assert status == 422
    assert await bus.store.last() == 0


async def test_a_stream_gives_live_events_with_ids_and_resumes_after_the_last(client: Client, bus: EventBus) -> None:
    async with client.stream("/v1/events?topic=t.*") as events:
        while not bus.statistics()["subscriptions"]:
            await asyncio.sleep(0)
        for number in range(3):
            await bus.publish(CTX, Event("made", number), topic="t.x")
        got = [await events.get() for _ in range(3)]
    assert [event["data"]["event"]["data"] for event in got] == [0, 1, 2]
    assert (got[0]["event"], got[0]["id"], got[0]["data"]["topic"]) == ("made", "1", "t.x")
    while bus.statistics()["subscriptions"]:
        await asyncio.sleep(0)
    async with client.stream("/v1/events?topic=t.*", last_event_id="1") as events:
        assert [(await events.get())["id"] for _ in range(2)] == ["2", "3"]
    async with client.stream("/v1/events?after=0") as events:
        assert (await events.get())["id"] == "1"
    async with client.stream("/v1/events?since=-3600") as events:
        assert (await events.get())["id"] == "1"


async def test_without_follow_a_stream_ends_at_the_newest_event(client: Client, bus: EventBus) -> None:
    for number in range(600):
        await bus.publish(CTX, Event("made", number), topic="t" if number % 2 else "u")
    async with client.stream("/v1/events?topic=t&follow=false") as events:
        assert [(await events.get())["data"]["event"]["data"] for _ in range(300)] == list(range(1, 600, 2))
    async with client.stream("/v1/events?topic=t&follow=false&after=598") as events:
        assert (await events.get())["id"] == "600"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("topic=a b", "topic"),
        ("topic=a&topic=b", "topic"),
        ("topic=a,b", "topic"),
        ("after=x", "after"),
        ("after=-1", "after"),
        ("since=nan", "since"),
        ("policy=x", "policy"),
        ("buffer=0", "buffer"),
    ],
)
async def test_a_bad_subscription_is_a_problem(client: Client, query: str, field: str) -> None:
    status, problem = await client.call("GET", f"/v1/events?{query}")
    assert (status, problem["field"]) == (422, field)


async def test_groups_are_listed_their_dead_letters_replayed_and_they_can_be_deleted(
    client: Client, bus: EventBus
) -> None:
    await bus.store.join("g", "t", 0)
    await bus.publish(CTX, Event("made", 1), topic="t")
    await bus.store.claim("g", 1, 30.0, 1)
    await bus.store.kill("g", 1, 1, "why")
    status, groups = await client.call("GET", "/v1/events/groups")
    assert (status, groups[0]["name"], groups[0]["dead"]) == (200, "g", 1)
    assert await client.call("POST", "/v1/events/groups/g:replay") == (200, {"replayed": 1})
    again = (await bus.store.read(2, 1))[0]
    assert (again.topic, again.event.type, again.event.data, again.event.extensions) == ("t", "made", 1, {})
    assert await client.call("DELETE", "/v1/events/groups/g") == (204, None)
    status, problem = await client.call("DELETE", "/v1/events/groups/g")
    assert (status, problem["code"]) == (404, "events.unknown_group")
    assert await client.call("POST", "/v1/events/groups/g:replay") == (200, {"replayed": 0})  # its letters are there


async def test_replaying_a_group_that_never_was_is_a_problem(client: Client, bus: EventBus) -> None:
    status, problem = await client.call("POST", "/v1/events/groups/none:replay")
    assert (status, problem["code"], problem["field"]) == (404, "events.unknown_group", "group")
    await bus.store.join("none", "t", 0)
    assert await client.call("POST", "/v1/events/groups/none:replay") == (200, {"replayed": 0})
