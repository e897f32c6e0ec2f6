"""Routes of an app."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.apps.spec import AppSpec, DoorSpec, Endpoint
from fairway.platform.routing import Public, Upstream, notice, routes
from fairway.proxy.auth import hash_password
from fairway.proxy.errors import RouteError
from fairway.proxy.routes import (
    BasicAuth,
    HeaderMatch,
    Limits,
    RateLimit,
    Redirect,
    RouteTable,
    Sticky,
    validate_table,
)

UP = [Upstream("a/web.1@20001", 20001, "r1"), Upstream("a/web.2@20002", 20002, "r2", healthy=False)]


def app(**changes) -> AppSpec:
    return AppSpec(name="a", file=Path("/a.yaml"), **changes)


def test_one_route_by_the_apps_own_name():
    (route,) = routes(app(), UP)
    assert (route.host, route.path, route.state) == ("a.localhost", "/", "serving")
    assert [(t.id, t.port, t.healthy, t.release) for t in route.targets] == [
        ("a/web.1@20001", 20001, True, ""),
        ("a/web.2@20002", 20002, False, ""),
    ]
    validate_table(RouteTable(routes=(route,)))


def test_nothing_to_send_to_is_said_not_guessed():
    assert routes(app(), [])[0].state == "unavailable"
    assert routes(app(), [], state="holding")[0].state == "holding"


def test_a_split_labels_the_targets():
    (route,) = routes(app(), UP, split={"r1": 90, "r2": 10})
    assert [t.release for t in route.targets] == ["r1", "r2"]
    validate_table(RouteTable(routes=(route,)))


def test_a_frontend_on_a_domain_of_its_own_and_a_published_port():
    found = routes(app(frontend=Endpoint(domain="www.test", port=3000)), UP)
    assert [(r.name, r.host, [t.port for t in r.targets]) for r in found] == [
        ("a", "a.localhost", [20001, 20002]),
        ("a/frontend", "www.test", [3000]),
    ]
    validate_table(RouteTable(routes=found))


def test_a_frontend_that_is_the_backend_is_one_route():
    assert len(routes(app(frontend=Endpoint(domain="a.localhost")), UP)) == 1


def test_every_wish_of_the_registry_becomes_one_of_the_door():
    users = {"ann": hash_password("secret", n=2)}
    door = DoorSpec(
        body_limit=10,
        header_limit=1000,
        body_timeout=1.0,
        upstream_timeout=2.0,
        rate=2.5,
        max_requests=3,
        balance="consistent_hash",
        sticky="met",
        strip=True,
        methods=("GET",),
        headers={"x-beta": "1", "x-any": None},
        basic_auth=users,
        allow=("10.0.0.0/8",),
    )
    (route,) = routes(app(door=door, backend=Endpoint(path="/api")), UP)
    assert route.limits == Limits(
        body_bytes=10,
        header_bytes=1000,
        body_timeout=1.0,
        upstream_timeout=2.0,
        rate=RateLimit(rate=2.5, burst=3),
        concurrency=3,
    )
    assert (route.balance, route.sticky, route.strip) == ("consistent_hash", Sticky(cookie="met"), True)
    assert [t.release for t in route.targets] == ["r1", "r2"]
    assert route.methods == ("GET",)
    assert route.headers == (HeaderMatch(name="x-beta", value="1"), HeaderMatch(name="x-any"))
    assert (route.auth, route.allow, route.redirect) == (BasicAuth(users=users), ("10.0.0.0/8",), None)
    validate_table(RouteTable(routes=(route,)))


def test_every_field_of_the_section_reaches_the_door():
    plain = routes(app(), UP)
    wishes = {
        "body_limit": 10, "header_limit": 1000, "body_timeout": 1.0, "upstream_timeout": 2.0, "rate": 0.5,
        "max_requests": 3, "balance": "least_connections", "sticky": "met", "strip": True, "methods": ("GET",),
        "headers": {"a": "b"}, "redirect": ("https",), "basic_auth": {"ann": "x"}, "allow": ("::1",),
        "aliases": ("www.test",),
    }  # fmt: skip
    told = Public(8080, 8443)
    for name, wish in wishes.items():
        assert routes(app(door=DoorSpec(**{name: wish})), UP, public=told) != plain, name
    rate = DoorSpec(rate=0.5)
    for name, wish in {"burst": 7, "rate_by": "route"}.items():
        assert routes(app(door=DoorSpec(rate=0.5, **{name: wish})), UP) != routes(app(door=rate), UP)
    aliases = DoorSpec(aliases=("www.test",), redirect=("aliases",))
    assert routes(app(door=aliases), UP)[1].redirect is not None
    assert {*wishes, "burst", "rate_by"} == set(DoorSpec.__struct_fields__)


def test_aliases_serve_or_redirect():
    served = routes(app(door=DoorSpec(aliases=("www.test", "b.test"), allow=("10.0.0.0/8",))), UP)
    assert [(r.name, r.host, r.redirect, len(r.targets), r.allow) for r in served[1:]] == [
        ("a/alias.0", "www.test", None, 2, ("10.0.0.0/8",)),
        ("a/alias.1", "b.test", None, 2, ("10.0.0.0/8",)),
    ]
    validate_table(RouteTable(routes=served))
    door = DoorSpec(aliases=("www.test",), redirect=("aliases",))
    for public, location in (
        (Public(), "http://a.localhost"),
        (Public(8080), "http://a.localhost:8080"),
        (Public(80, 443), "https://a.localhost"),
        (Public(8080, 8443), "https://a.localhost:8443"),
    ):
        found = routes(app(door=door), UP, public=public)
        assert [r.redirect for r in found] == [None, Redirect(location=location, keep_path=True)]
        validate_table(RouteTable(routes=found))


def test_plain_requests_go_to_https_where_there_is_one():
    wish = app(door=DoorSpec(redirect=("https",)), frontend=Endpoint(domain="www.test"))
    assert [r.redirect for r in routes(wish, UP)] == [None, None]
    found = routes(wish, UP, public=Public(8080, 8443))
    assert [r.redirect for r in found] == [
        Redirect(location="https://a.localhost:8443", keep_path=True, when="insecure"),
        Redirect(location="https://www.test:8443", keep_path=True, when="insecure"),
    ]
    validate_table(RouteTable(routes=found))


@pytest.mark.parametrize("state", ["building", "blocked", "starting", "failed", "stopped", "degraded"])
def test_a_notice_names_the_app_and_what_to_type(state: str) -> None:
    said = notice("shop", state)
    assert said.startswith(("shop ", "No instance of shop "))
    assert "`fairway " in said
    (route,) = routes(app(), [], notice=said)
    assert (route.state, route.notice) == ("unavailable", said)
    validate_table(RouteTable(routes=(route,)))


def test_a_notice_that_could_not_stand_in_a_header_is_refused() -> None:
    (route,) = routes(app(), [], notice="two\r\nlines")
    with pytest.raises(RouteError, match="notice"):
        validate_table(RouteTable(routes=(route,)))
