"""Apps become sites; what could escape into the configuration is refused."""

from pathlib import Path

import pytest

from fairway.apps.spec import AppSpec, DoorSpec, Endpoint
from fairway.nginx.errors import NginxError, UnsafeValueError
from fairway.nginx.render import render
from fairway.nginx.site import Options, Server, Tls, plan
from fairway.nginx.version import NginxVersion

DOOR = (Server("127.0.0.1", 8080),)


def app(name: str = "api", **fields: object) -> AppSpec:
    return AppSpec(name=name, file=Path(f"{name}.yaml"), **fields)  # type: ignore[arg-type]  # a test's shorthand


@pytest.mark.parametrize(
    "domain",
    [
        "a; } server { listen 1;",
        "a\nb",
        "$host",
        "include /etc/passwd",
        "a b",
        "-a.test",
        "a..b",
        "A.test",
        "*",
        "a.*",
        "{",
        '"',
        "a\x00b",
        "é.test",
        "a" * 300,
        "",
    ],
)
def test_hostile_domain_is_refused_and_the_others_are_served(domain: str) -> None:
    bad = app("bad", backend=Endpoint(domain=domain or " "))
    planned = plan([bad, app("good")], {"bad": DOOR, "good": DOOR})
    assert [site.app for site in planned.sites] == ["good"]
    assert [(refused.app, type(refused.error)) for refused in planned.refused] == [("bad", UnsafeValueError)]
    alone = plan([app("good")], {"good": DOOR})
    version = NginxVersion(1, 22, 1)
    tree = render(planned.sites, Options(), version, Path("/t"), Path("/s"))
    assert tree == render(alone.sites, Options(), version, Path("/t"), Path("/s"))


@pytest.mark.parametrize(
    "path", ["api", "/a;b", "/a b", "/$x", "/a{", "/../x", "/a/../b", "/a\n", '/"', "/a//b", "/%2f"]
)
def test_hostile_path_is_refused(path: str) -> None:
    planned = plan([app(backend=Endpoint(path=path))], {"api": DOOR})
    assert planned.sites == ()
    assert "expected a path prefix" in str(planned.refused[0].error)


@pytest.mark.parametrize("name", ["a;b", "../x", "a\n", "", "A", "a" * 41, "x/y"])
def test_hostile_name_is_refused(name: str) -> None:
    planned = plan([app(name)], {name: DOOR})
    assert planned.sites == ()
    assert isinstance(planned.refused[0].error, UnsafeValueError)


@pytest.mark.parametrize(("host", "port"), [("a;b", 80), ("a b", 80), ("h", 0), ("h", 65536), ("[::1", 80), ("$h", 80)])
def test_hostile_upstream_is_refused(host: str, port: int) -> None:
    with pytest.raises(UnsafeValueError):
        Server(host, port)


@pytest.mark.parametrize("file", ["/a;b", "relative", '/a"b', "/a\nb", "/$a"])
def test_hostile_certificate_path_is_refused(file: str) -> None:
    with pytest.raises(UnsafeValueError, match="certificate"):
        Tls(Path(file), Path("/key"))


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "localhost; x"},
        {"address": "::1%; } server { listen 81; #"},
        {"trusted": ("fe80::%; } server {/64",)},
        {"trusted": ("10.0.0.0/8; }",)},
        {"listen": 0},
        {"listen_grpc": 70000},
        {"body_limit": -1},
        {"idle_timeout": 0},
        {"worker_processes": "auto; x"},
    ],
)
def test_hostile_option_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UnsafeValueError):
        Options(**fields)  # type: ignore[arg-type]  # a test's shorthand


def test_hostile_root_is_refused() -> None:
    with pytest.raises(UnsafeValueError, match="root"):
        render([], Options(), NginxVersion(1, 22), Path("/a;b"), Path("/s"))


def test_two_apps_share_a_domain_by_path_and_the_second_claim_of_one_path_is_refused() -> None:
    shared = [app("a", backend=Endpoint(domain="x.test")), app("b", backend=Endpoint(domain="x.test", path="/b"))]
    planned = plan([*shared, app("c", backend=Endpoint(domain="x.test", path="/b"))], dict.fromkeys("abc", DOOR))
    assert [site.app for site in planned.sites] == ["a", "b"]
    assert str(planned.refused[0].error) == "c: x.test/b is already served by b"


def test_aliases_are_served_as_the_backend_is() -> None:
    site = plan([app(backend=Endpoint(path="/b"), door=DoorSpec(aliases=("www.x.test",)))], {"api": DOOR}).sites[0]
    assert site.domains["www.x.test"] == site.domains["api.localhost"]
    refused = plan([app(door=DoorSpec(aliases=("x; } server {",)))], {"api": DOOR}).refused
    assert "x; } server {" in str(refused[0].error)


def test_grpc_wants_a_fixed_port_and_a_place_of_its_own() -> None:
    clash = plan([app(grpc=Endpoint(port=9))], {"api": DOOR})
    assert "grpc and backend both claim api.localhost/" in str(clash.refused[0].error)
    missing = plan([app(grpc=Endpoint(domain="g.test"))], {"api": DOOR})
    assert "expected grpc.port" in str(missing.refused[0].error)
    alone = plan([app(grpc=Endpoint(domain="g.test", port=9))], {})
    assert alone.sites[0].domains["g.test"][0].grpc


def test_an_app_with_nothing_behind_it_is_left_out_by_name() -> None:
    planned = plan([app()], {})
    assert "nothing to proxy to" in str(planned.refused[0].error)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: nginx/1.22.1\n", (1, 22, 1)),
        ("nginx version: openresty/1.25.3.1", (1, 25, 3)),
        ("nginx version: nginx/1.18.0 (Ubuntu)", (1, 18, 0)),
        ("1.29", (1, 29, 0)),
    ],
)
def test_version_is_read(text: str, version: tuple[int, int, int]) -> None:
    assert NginxVersion.parse(text) == version


@pytest.mark.parametrize("text", ["1.17.9", "x", "", "nginx version: nginx/1.10.3"])
def test_old_or_unreadable_version_is_an_error(text: str) -> None:
    with pytest.raises(NginxError):
        NginxVersion.parse(text)


def test_a_long_hostile_path_is_refused_at_once() -> None:
    hostile = app(backend=Endpoint(path="/" + "a" * 5000 + "!"))
    assert isinstance(plan([hostile], {"api": DOOR}).refused[0].error, UnsafeValueError)


def test_a_prefix_with_and_without_its_slash_is_one_claim() -> None:
    one = app("a", backend=Endpoint(domain="x.test", path="/api"))
    two = app("b", backend=Endpoint(domain="x.test", path="/api/"))
    planned = plan([one, two], dict.fromkeys("ab", DOOR))
    assert [site.app for site in planned.sites] == ["a"]
    assert str(planned.refused[0].error) == "b: x.test/api is already served by a"
