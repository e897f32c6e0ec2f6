"""Validation, compilation and choice of routes: no socket involved."""

from __future__ import annotations

import collections

import pytest

from fairway.proxy.errors import OptionError, RouteError
from fairway.proxy.gate import RateGate
from fairway.proxy.options import DoorOptions, in_networks, parse_address, parse_networks
from fairway.proxy.request import RequestHead, host_name
from fairway.proxy.routes import (
    BasicAuth,
    HeaderMatch,
    Limits,
    RateLimit,
    Redirect,
    Route,
    RouteTable,
    Sticky,
    Target,
    decode_table,
    encode_table,
    validate_table,
)
from fairway.proxy.serve import parse_route, table_of
from fairway.proxy.table import CompiledTable, resolve_path


def target(name: str = "a", **more: object) -> Target:
    return Target(id=name, host="127.0.0.1", port=9000, **more)  # type: ignore[arg-type]


def head(target: str = "/", host: str = "app.test", *fields: str, method: str = "GET") -> RequestHead:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    data = "\r\n".join(lines).encode() + b"\r\n\r\n"
    made = RequestHead(False)
    made.parse(data, data.index(b"\r\n"))
    return made


def found(routes: list[Route], request: RequestHead) -> str | None:
    table = RouteTable(routes=tuple(routes))
    validate_table(table)
    route = CompiledTable(table).find(request)
    return route.name if route is not None else None


GOOD = Route(
    name="app.web",
    host="*.app.test",
    path="/api",
    strip=True,
    methods=("GET", "PURGE"),
    headers=(HeaderMatch(name="X-Beta", value="yes"),),
    targets=(target("a", release="r1"), target("b", release="r2")),
    split={"r1": 90, "r2": 10},
    sticky=Sticky(),
    limits=Limits(body_bytes=0, header_bytes=1000, rate=RateLimit(rate=1.5, burst=2), concurrency=1),
    allow=("10.0.0.0/8", "::1"),
    redirect=Redirect(location="https://app.test/x", status=301),
)


def test_a_table_survives_its_json() -> None:
    table = RouteTable(version=3, routes=(GOOD,))
    assert decode_table(encode_table(table)) == table


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"host": "a; } server {"}, "host"),
        ({"host": "a\nb"}, "host"),
        ({"host": "$host"}, "host"),
        ({"host": "APP.test"}, "host"),
        ({"host": "app.test:80"}, "host"),
        ({"host": "*.*.test"}, "host"),
        ({"host": "::1"}, "host"),
        ({"host": "[0::1]"}, "host"),
        ({"host": "[app.test]"}, "host"),
        ({"host": "-a.test"}, "host"),
        ({"host": ""}, "host"),
        ({"name": "a b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": ""}, "name"),
        ({"path": "api"}, "path"),
        ({"path": "/a b"}, "path"),
        ({"path": "/a;b"}, "path"),
        ({"path": "/a{"}, "path"),
        ({"path": "/a$b"}, "path"),
        ({"path": "/../a"}, "path"),
        ({"path": "/a//b"}, "path"),
        ({"path": "/a\n"}, "path"),
        ({"path": "/a?b"}, "path"),
        ({"methods": ("get",)}, "methods"),
        ({"headers": (HeaderMatch(name="a b"),)}, "headers"),
        ({"headers": (HeaderMatch(name="a", value="b\r\n"),)}, "headers"),
        ({"targets": (target("a"), target("a"))}, "unique target ids"),
        ({"targets": (Target(id="a", host="a/b", port=1),), "split": {}}, "host"),
        ({"targets": (Target(id="a", host="a", port=0),), "split": {}}, "port"),
        ({"targets": (target(weight=-1),), "split": {}}, "weight"),
        ({"targets": (target(release="a b"),), "split": {}}, "release"),
        ({"split": {"r3": 1}}, "split"),
        ({"split": {"r1": 0, "r2": 0}}, "split"),
        ({"split": {"r1": -1}}, "split"),
        ({"limits": Limits(body_bytes=-1)}, "body_bytes"),
        ({"limits": Limits(concurrency=0)}, "concurrency"),
        ({"limits": Limits(upstream_timeout=0)}, "upstream_timeout"),
        ({"limits": Limits(rate=RateLimit(rate=0))}, "rate"),
        ({"allow": ("10.0.0.0/99",)}, "allow"),
        ({"redirect": Redirect(location="javascript:x")}, "location"),
        ({"redirect": Redirect(location="https://a/\r\nX: y")}, "location"),
        ({"redirect": Redirect(location="/a", status=200)}, "status"),
        ({"sticky": Sticky(cookie="a b")}, "cookie"),
        ({"auth": BasicAuth(users={"a:b": "x"})}, "users"),
        ({"auth": BasicAuth(users={"a": "plain"})}, "scrypt"),
        ({"auth": BasicAuth(users={}, realm='a"b')}, "realm"),
        ({"hold_timeout": 0}, "hold_timeout"),
    ],
)
def test_bad_routes_are_refused_with_the_reason(change: dict[str, object], word: str) -> None:
    fields = {name: getattr(GOOD, name) for name in GOOD.__struct_fields__}
    with pytest.raises(RouteError, match=word) as caught:
        validate_table(RouteTable(routes=(Route(**{**fields, **change}),)))
    assert caught.value.code == "proxy.route_invalid"


def test_password_hashes_are_not_repeated_in_errors() -> None:
    with pytest.raises(RouteError) as caught:
        validate_table(RouteTable(routes=(Route(name="x", auth=BasicAuth(users={"a": "hunter2"})),)))
    assert "hunter2" not in str(caught.value)


def test_tables_refuse_doubles() -> None:
    for routes in (
        (Route(name="a"), Route(name="a", host="b.test")),
        (Route(name="a"), Route(name="b")),
        (
            Route(name="a", targets=(target("t"),)),
            Route(name="b", host="b.test", targets=(Target(id="t", host="127.0.0.1", port=1),)),
        ),
    ):
        with pytest.raises(RouteError):
            validate_table(RouteTable(routes=routes))


@pytest.mark.parametrize("data", [b"", b"{}x", b"[]", b'{"routes":[{"nosuch":1}]}', b"[" * 50_000, b"\xff"])
def test_hostile_json_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(RouteError):
        decode_table(data)


def test_hosts_match_exactly_then_by_wildcard_then_by_default() -> None:
    routes = [
        Route(name="exact", host="a.app.test"),
        Route(name="near", host="*.b.app.test"),
        Route(name="far", host="*.app.test"),
        Route(name="default"),
    ]
    for host, name in {
        "a.app.test": "exact",
        "A.APP.TEST:8080": "exact",
        "x.b.app.test": "near",
        "y.x.b.app.test": "near",
        "b.app.test": "far",
        "app.test": "default",
        "other": "default",
        "127.0.0.1": "default",
        "[::1]:80": "default",
    }.items():
        assert found(routes, head(host=host)) == name, host
    assert found(routes[:3], head(host="other.test")) is None


def test_the_longest_prefix_wins_at_segment_ends() -> None:
    routes = [Route(name="root"), Route(name="api", path="/api"), Route(name="v1", path="/api/v1/")]
    for path, name in {
        "/": "root",
        "/apix": "root",
        "/api": "api",
        "/api/": "api",
        "/api?x": "api",
        "/api/v1": "v1",
        "/api/v1/x": "v1",
        "/api/v10": "api",
        "/API": "root",
    }.items():
        assert found(routes, head(path)) == name, path


def test_conditions_come_before_none() -> None:
    routes = [
        Route(name="any"),
        Route(name="write", methods=("POST", "PUT")),
        Route(name="beta", headers=(HeaderMatch(name="X-Beta", value="yes"),)),
    ]
    assert found(routes, head()) == "any"
    assert found(routes, head(method="PUT")) == "write"
    assert found(routes, head("/", "app.test", "x-BETA: yes")) == "beta"
    assert found(routes, head("/", "app.test", "x-beta: no")) == "any"


@pytest.mark.parametrize(
    "path",
    ["/public/../admin", "/public/%2e%2e/admin", "/public%2f..%2fadmin", "/public/..%5cadmin", "//admin", "/./admin"],
)
def test_paths_that_move_when_resolved_reach_no_route_that_they_skip(path: str) -> None:
    routes = [Route(name="root"), Route(name="public", path="/public"), Route(name="admin", path="/admin")]
    assert found(routes, head(path)) is None
    assert found(routes, head("/public/a%20b/./c")) == "public"


def test_resolved_paths() -> None:
    assert resolve_path(b"/a/./b//c/../d") == b"/a/b/d"
    assert resolve_path(b"/%61") == b"/a"
    assert resolve_path(b"/../a") is None


def picks(route: Route, count: int, **more: object) -> collections.Counter[str]:
    table = RouteTable(routes=(route,))
    validate_table(table)
    state = CompiledTable(table).routes[route.name]
    chosen = [state.pick(0.0, f"k{i}".encode() if more else b"k", None) for i in range(count)]
    return collections.Counter(each.id for each in chosen if each is not None)


def test_weights_are_kept_exactly_and_smoothly() -> None:
    route = Route(name="r", targets=(target("a", weight=3), target("b", weight=1)))
    assert picks(route, 400) == {"a": 300, "b": 100}
    assert picks(Route(name="r", targets=(target("a"), target("b"))), 10) == {"a": 5, "b": 5}


def test_split_is_by_release_whatever_the_number_of_targets() -> None:
    targets = (*(target(f"a{i}", release="old") for i in range(4)), target("b", release="new"))
    counts = picks(Route(name="r", targets=targets, split={"old": 95, "new": 5}), 1000)
    assert counts["b"] == 50
    assert all(abs(counts[f"a{i}"] - 237.5) < 2 for i in range(4))
    gone = (target("a", release="old"), target("b", release="new", healthy=False))
    assert picks(Route(name="r", targets=gone, split={"old": 5, "new": 95}), 10) == {"a": 10}


def test_consistent_hash_moves_only_the_share_of_what_left() -> None:
    def homes(names: str) -> dict[str, str]:
        route = Route(name="r", targets=tuple(target(name) for name in names), balance="consistent_hash")
        state = CompiledTable(RouteTable(routes=(route,))).routes["r"]
        return {key: state.pick(0.0, key.encode(), None).id for key in map(str, range(2000))}  # type: ignore[union-attr]

    before, after = homes("abcd"), homes("abc")
    assert all(after[key] == home for key, home in before.items() if home != "d")
    assert set(before.values()) == set("abcd")


def test_least_connections_prefers_the_idle_one() -> None:
    route = Route(name="r", targets=(target("a"), target("b"), target("c", weight=2)), balance="least_connections")
    state = CompiledTable(RouteTable(routes=(route,))).routes["r"]
    for _ in range(8):
        chosen = state.pick(0.0, b"", None)
        assert chosen is not None
        chosen.in_flight += 1
    assert {each.id: each.in_flight for each in state.targets} == {"a": 2, "b": 2, "c": 4}


def test_failing_targets_are_ejected_but_never_the_last() -> None:
    state = CompiledTable(RouteTable(routes=(Route(name="r", targets=(target("a"), target("b"))),))).routes["r"]
    one, two = state.targets
    for _ in range(3):
        one.failed(100.0)
    assert {state.pick(101.0, b"", None) for _ in range(6)} == {two}
    assert {state.pick(111.0, b"", None) for _ in range(6)} == {one, two}
    for _ in range(3):
        two.failed(100.0)
        one.failed(100.0)
    assert {state.pick(101.0, b"", None) for _ in range(6)} == {one, two}


def test_a_new_table_keeps_the_targets_it_names_again() -> None:
    first = CompiledTable(RouteTable(routes=(Route(name="r", targets=(target("a"), target("b"))),)))
    first.targets["a"].in_flight = 3
    first.targets["a"].draining = True
    moved = Target(id="b", host="127.0.0.1", port=9001)
    second = CompiledTable(RouteTable(routes=(Route(name="r", targets=(target("a"), moved)),)), first)
    assert second.targets["a"] is first.targets["a"]
    assert not second.targets["a"].draining
    assert second.targets["b"] is not first.targets["b"]
    assert second.gone == [first.targets["b"]]


def test_rate_gate_by_client() -> None:
    now = [0.0]
    gate = RateGate(RateLimit(rate=2.0, burst=2), lambda: now[0])
    assert [gate.take("a") for _ in range(2)] == [0.0, 0.0]
    assert gate.take("a") == pytest.approx(0.5, abs=0.01)
    assert gate.take("b") == 0.0
    now[0] = 0.6
    assert gate.take("a") == 0.0
    for number in range(10_050):
        gate.take(str(number))
    assert "clients=10000" in repr(gate)


def test_options_and_addresses() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address(":80") == ("127.0.0.1", 80)
    for text in ("80", "a:b", "a:99999", "a:-1", "a:٣"):
        with pytest.raises(OptionError):
            parse_address(text)
    with pytest.raises(OptionError):
        DoorOptions(header_timeout=0)
    with pytest.raises(OptionError):
        DoorOptions(trusted=("nonsense",))
    networks = parse_networks(("10.0.0.0/8", "fd00::/8"))
    assert in_networks("10.1.2.3", networks)
    assert in_networks("::ffff:10.1.2.3", networks)
    assert in_networks("fd00::1%eth0", networks)
    assert not in_networks("11.0.0.1", networks)
    assert not in_networks("nonsense", networks)


def test_routes_of_the_command_line() -> None:
    route = parse_route("APP.test/api=http://127.0.0.1:1,[::1]:2", 3)
    assert (route.host, route.path) == ("app.test", "/api")
    assert [(each.host, each.port) for each in route.targets] == [("127.0.0.1", 1), ("::1", 2)]
    merged = table_of(["a=127.0.0.1:1", "a=127.0.0.1:2", "*=127.0.0.1:3"])
    assert [len(each.targets) for each in merged.routes] == [2, 1]
    for text in ("a", "=b", "a=", "a=b", "a=b:c"):
        with pytest.raises(OptionError):
            parse_route(text)


@pytest.mark.parametrize("place", ["[::1]", "[::1]:80", "::1", "[0:0::1]:8080"])
@pytest.mark.parametrize("host", ["[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]:9"])
def test_ipv6_hosts_are_routed_however_they_are_written(place: str, host: str) -> None:
    table = table_of([f"{place}=127.0.0.1:1"])
    validate_table(table)
    assert found(list(table.routes), head(host=host)) == "r0"


def test_a_final_dot_and_a_port_do_not_matter_in_a_route() -> None:
    assert [parse_route(f"{place}=127.0.0.1:1").host for place in ("App.test.", "app.test:80", "app.test.:80")] == [
        "app.test"
    ] * 3


@pytest.mark.parametrize("host", ["[:::::]", "[1.2.3.4]", "[::1", "::1", "[::g]", "[::1]x"])
def test_what_is_no_ipv6_address_is_no_host(host: str) -> None:
    assert host_name(host.encode()) is None
