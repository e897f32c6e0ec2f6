"""Bodies, parameters, problems and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.api.app import Services, create_app
from fairway.api.openapi import document
from fairway.api.operation import Query, decode, operation, query_flag, query_int, query_values, read, reply
from fairway.api.problem import RequestError, problem_of, status_of
from fairway.api.sse import ServerSentEvent
from fairway.errors import FairwayError


class Place(msgspec.Struct, kw_only=True):
    zone: str


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    replicas: int
    place: Place | None = None
    labels: dict[str, str] = {}


@operation("Scale", tag="test", body=Body, response=Body, query=[Query("wait", float, "Seconds.")], errors=(404,))
async def scale(request: Request) -> Response:
    """Scale it."""
    return reply(await read(request, Body))


@operation("Ask", tag="test")
async def ask(request: Request) -> Response:
    return reply(
        {
            "flag": query_flag(request, "flag"),
            "n": query_int(request, "n", 5, low=1, high=10),
            "app": query_values(request, "app"),
        }
    )


def app() -> Any:
    return create_app(
        Services(),
        pages=[
            Route("/scale/{name}", scale, methods=["POST"]),
            Route("/ask", ask),
            Route("/undescribed", _undescribed),
        ],
    )


async def _undescribed(_request: Request) -> Response:
    return reply(None)


JSON = {"content-type": "application/json; charset=utf-8"}


async def test_a_body_comes_in_typed(call: Any) -> None:
    answer = await call(app(), "POST", "/scale/a", headers=JSON, body=b'{"replicas": 3}')
    assert (answer.status, answer.json) == (200, {"replicas": 3, "place": None, "labels": {}})


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "field"),
    [
        (b"", JSON, 400, "request.json", None),
        (b"  ", JSON, 400, "request.json", None),
        (b"{", JSON, 400, "request.json", None),
        (b"\xff", JSON, 400, "request.json", None),
        (b"[" * 100_000, JSON, 422, "request.invalid", "$"),
        (b'{"replicas": "3"}', JSON, 422, "request.invalid", "$.replicas"),
        (b'{"replicas": 1, "labels": {"a": 1}}', JSON, 422, "request.invalid", "$.labels[...]"),
        (b'{"replica": 1}', JSON, 422, "request.invalid", "$.replica"),
        (b'{"replicas": 1, "a`b": 1}', JSON, 422, "request.invalid", "$"),
        (b"{}", JSON, 422, "request.invalid", "$.replicas"),
        (b'{"replicas": 1, "place": {}}', JSON, 422, "request.invalid", "$.place.zone"),
        (b'{"replicas": 1}', {}, 415, "request.unsupported", None),
        (b'{"replicas": 1}', {"content-type": "text/plain"}, 415, "request.unsupported", None),
    ],
)
async def test_a_bad_body_is_a_problem(
    call: Any, body: bytes, headers: dict[str, str], status: int, code: str, field: str | None
) -> None:
    answer = await call(app(), "POST", "/scale/a", headers=headers, body=body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status)
    assert answer.json.get("field") == field


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=60))
def test_no_body_makes_decoding_raise_anything_else(data: bytes) -> None:
    try:
        decode(data, Body)
    except RequestError as error:
        refused = error
    else:
        return
    assert status_of(refused.code) in {400, 422}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"flag": False, "n": 5, "app": []}),
        ("flag&n=10&app=a,b&app=c", {"flag": True, "n": 10, "app": ["a", "b", "c"]}),
        ("flag=false&app=", {"flag": False, "n": 5, "app": []}),
    ],
)
async def test_parameters(call: Any, query: str, expected: dict[str, Any]) -> None:
    assert (await call(app(), "GET", "/ask", query=query)).json == expected


@pytest.mark.parametrize("query", ["flag=maybe", "n=0", "n=11", "n=x", "n=%C2%B2", "n=-1", "n=", "n=" + "9" * 5000])
async def test_bad_parameters(call: Any, query: str) -> None:
    answer = await call(app(), "GET", "/ask", query=query)
    assert (answer.status, answer.json["field"]) == (422, query.split("=")[0])


async def test_unknown_paths_and_methods_are_problems_too(call: Any) -> None:
    missing = await call(app(), "GET", "/nope")
    assert (missing.status, missing.json["code"]) == (404, "request.not_found")
    wrong = await call(app(), "DELETE", "/ask")
    assert (wrong.status, wrong.json["code"]) == (405, "request.method")
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("app.unknown", 404),
        ("registry.unknown_field", 422),
        ("registry", 422),
        ("nobody.knows", 500),
        ("request.too_large", 413),
    ],
)
def test_codes_become_statuses_by_their_longest_known_prefix(code: str, status: int) -> None:
    assert status_of(code) == status
    problem = problem_of(FairwayError("x", code=code, hint="y"))
    assert (problem.status, problem.code, problem.hint, problem.type) == (status, code, "y", f"/problems/{code}")


def test_the_document_says_what_the_handlers_take() -> None:
    told = document([Route("/scale/{name:path}", scale, methods=["POST"]), Route("/undescribed", _undescribed)])
    assert list(told["paths"]) == ["/scale/{name}"]
    post = told["paths"]["/scale/{name}"]["post"]
    assert [parameter["name"] for parameter in post["parameters"]] == ["name", "wait"]
    assert post["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Body"}
    assert set(post["responses"]) == {"200", "400", "401", "403", "404", "413", "415", "422", "500"}
    assert told["components"]["schemas"]["Body"]["additionalProperties"] is False


async def test_readiness_says_what_it_waits_for(call: Any) -> None:
    class Starting:
        def pending(self) -> list[str]:
            return ["go-api"]

        def apps(self) -> list[Any]:
            return []

    answer = await call(create_app(Services(platform=Starting())), "GET", "/readyz")
    assert (answer.status, answer.json) == (503, {"ready": False, "waiting_for": ["go-api"]})
    assert (await call(app(), "GET", "/readyz")).json == {"ready": True, "waiting_for": []}


def test_an_event_cannot_break_out_of_its_lines() -> None:
    event = ServerSentEvent(data={"a": "x\n\ndata: evil"}, event="e\r\nid: 1", id="1\n\ndata: 2")
    assert event.encode() == b'id: 1  data: 2\nevent: e  id: 1\ndata: {"a":"x\\n\\ndata: evil"}\n\n'
