"""Routes of an app."""

from __future__ import annotations

from pathlib import Path

from fairway.apps.spec import AppSpec, Endpoint
from fairway.platform.routing import Upstream, routes
from fairway.proxy.routes import RouteTable, validate_table

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
