"""Who gets past the guard."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fairway.api.app import Services, create_app
from fairway.api.guard import Guard, GuardPolicy

ADMIN = {"authorization": "Bearer admin-secret"}
APP = {"authorization": "Bearer app-secret"}


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def burst(_request: Request) -> Response:
    raise RuntimeError("a secret inside")


def guarded(**policy: Any) -> Guard:
    routes = [
        Route(path, echo, methods=["GET", "POST"])
        for path in ("/v1/apps", "/v1/queues/mail/jobs", "/v1/queuesX", "/v1/events/topic", "/healthz", "/v1/jobs")
    ]
    told = {"token": "admin-secret", "app_token": "app-secret", "max_body": 100, **policy}
    return Guard(Starlette(routes=routes), GuardPolicy(**told))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/apps", ADMIN, 200),
        ("/v1/apps", {"authorization": "bearer  admin-secret "}, 200),
        ("/v1/apps", {}, 401),
        ("/v1/apps", {"authorization": "Bearer "}, 401),
        ("/v1/apps", {"authorization": "Basic admin-secret"}, 401),
        ("/v1/apps", {"authorization": "Bearer admin-secre"}, 401),
        ("/v1/apps", {"authorization": "Bearer admin-secretx"}, 401),
        ("/v1/apps", {"authorization": "Bearer \u00e9"}, 401),
        ("/v1/apps", APP, 403),
        ("/v1/queues/mail/jobs", APP, 200),
        ("/v1/jobs", APP, 200),
        ("/v1/events/topic", APP, 200),
        ("/v1/queuesX", APP, 403),
        ("/healthz", {}, 200),
        ("/healthz", {"authorization": "Bearer wrong"}, 200),
    ],
)
async def test_tokens(call: Any, path: str, headers: dict[str, str], status: int) -> None:
    answer = await call(guarded(), "GET", path, headers=headers)
    assert answer.status == status
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="fairway"'
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert b"secret" not in answer.body


async def test_the_unix_socket_needs_no_token_and_no_host(call: Any) -> None:
    headers = {"host": "whatever.example", "origin": "https://whatever.example"}
    assert (await call(guarded(), "GET", "/v1/apps", headers=headers, local=True)).status == 200


async def test_without_a_token_configured_nothing_is_asked_for(call: Any) -> None:
    assert (await call(guarded(token=None), "GET", "/v1/apps")).status == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:7070", "127.0.0.1", "[::1]:7070", "192.168.1.5:7070", "localhost", "LOCALHOST:1", "fairway.localhost",
     "ops.example:7070", "ops.example."],
)  # fmt: skip
async def test_known_hosts(call: Any, host: str) -> None:
    app = guarded(hosts=frozenset({"ops.example"}))
    assert (await call(app, "GET", "/v1/apps", headers={**ADMIN, "host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7070", "localhost.evil.example", "xlocalhost", "", ":7070", "127.0.0.1.evil.example",
     "localhost:70x", "[::1", "[::1]x", "2130706433.evil.example"],
)  # fmt: skip
async def test_rebound_hosts_are_refused(call: Any, host: str) -> None:
    answer = await call(guarded(), "GET", "/v1/apps", headers={**ADMIN, "host": host})
    assert answer.status == 403
    assert answer.json["code"] == "auth.forbidden"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7070", 200),
        ("https://127.0.0.1:7070", 200),
        ("http://127.0.0.1:8080", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://127.0.0.1:7070", 403),
        ("http://127.0.0.1:7070.evil.example", 403),
        ("http://user@127.0.0.1:7070", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_foreign_pages_are_refused(call: Any, method: str, origin: str, status: int) -> None:
    answer = await call(guarded(), method, "/v1/apps", headers={**ADMIN, "origin": origin})
    assert answer.status == status


@pytest.mark.parametrize("origin", ["http://[::1", "http://[x]:7070"])
async def test_an_origin_that_is_none_is_refused(call: Any, origin: str) -> None:
    assert (await call(guarded(), "POST", "/v1/apps", headers={**ADMIN, "origin": origin})).status == 403


async def test_a_websocket_is_closed_not_answered() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/apps", "server": ("127.0.0.1", 1), "headers": [(b"host", b"evil")]}
    await guarded()(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_bodies_are_bounded_by_length(call: Any) -> None:
    headers = {**ADMIN, "content-length": "101"}
    answer = await call(guarded(), "POST", "/v1/apps", headers=headers, body=b"x" * 101)
    assert answer.status == 413
    assert answer.json["code"] == "request.too_large"


async def test_bodies_are_bounded_while_they_stream(call: Any) -> None:
    assert (await call(create_echo(100), "POST", "/", body=[b"x" * 60, b"x" * 40])).body == b"100"
    answer = await call(create_echo(100), "POST", "/", body=[b"x" * 60, b"x" * 41])
    assert answer.status == 413


def create_echo(limit: int) -> Any:
    return create_app(Services(), pages=[Route("/", echo, methods=["POST"])], policy=GuardPolicy(max_body=limit))


async def test_a_bug_is_logged_and_told_without_details(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(Services(), pages=[Route("/bug", burst)])
    answer = await call(app, "GET", "/bug")
    assert answer.status == 500
    assert answer.json["code"] == "api.internal"
    assert b"secret" not in answer.body
    assert "RuntimeError" in capsys.readouterr().err
