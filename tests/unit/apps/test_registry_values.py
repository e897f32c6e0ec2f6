"""What a good file becomes: defaults, units, paths, both suffixes; and the schema in the repository."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
import yaml

from fairway.apps import schema, values
from fairway.apps.dotenv import EnvFileError, parse_env, read_env_file
from fairway.apps.problem import RegistryError
from fairway.apps.registry import load, load_file
from fairway.apps.spec import AppSpec, CanarySpec, DeploySpec, DoorSpec, Endpoint, HealthSpec, LimitSpec

REPOSITORY = Path(__file__).parents[3]
FULL = """
name: shop
source: app
runtime: process
backend: {domain: Shop.Example.com, port: 8001, path: /api}
frontend: {domain: www.example.com}
grpc: {domain: grpc.example.com, port: 9001}
command: node server.js --port $PORT
build: [npm ci, [npm, run, build]]
processes: {worker: node worker.js}
env: {DEBUG: true, WORKERS: 4, RATIO: 0.5, COUNTRY: no, EMPTY: "", TEXT: "a b"}
env_file: vars.env
secrets: [API_KEY]
replicas: 2
depends_on: []
health:
  {path: /healthz, interval: 500ms, timeout: 1m30s, rise: 1, fall: 5, start_timeout: 90,
   conditions: ["[STATUS] == 200"]}
deploy: {strategy: recreate, grace: 0s, drain: 2.5, keep: 2, canary: {weight: 5, watch: 1m, max_latency: 300ms}}
limits: {memory: 256M, cpus: 0.5}
door:
  body_limit: 10M
  header_limit: 16K
  body_timeout: 20s
  upstream_timeout: 1m
  rate: 2.5
  burst: 10
  rate_by: route
  max_requests: 100
  balance: least_connections
  sticky: shop_release
  strip: true
  methods: [GET, POST]
  headers: {X-Beta: 1, x-any: }
  redirect: [https, aliases]
  basic_auth: {ann: "%s"}
  allow: [10.1.2.3/8, "::1"]
  aliases: [Shop.Example.org]
"""
HASH = "scrypt$16384$8$1$MDEyMzQ1Njc4OWFiY2RlZg==$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
FULL %= HASH


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "vars.env").write_text("A=1\n")
    return tmp_path


def test_every_field_arrives_with_its_unit(folder: Path) -> None:
    (folder / "shop.yml").write_text(FULL)
    app, problems = load_file(folder / "shop.yml", trusted=())
    assert problems == []
    assert app == AppSpec(
        name="shop",
        file=folder / "shop.yml",
        source=folder / "app",
        runtime="process",
        backend=Endpoint(domain="shop.example.com", port=8001, path="/api"),
        frontend=Endpoint(domain="www.example.com"),
        grpc=Endpoint(domain="grpc.example.com", port=9001),
        command=("node", "server.js", "--port", "$PORT"),
        build=(("npm", "ci"), ("npm", "run", "build")),
        processes={"worker": ("node", "worker.js")},
        env={"DEBUG": "true", "WORKERS": "4", "RATIO": "0.5", "COUNTRY": "no", "EMPTY": "", "TEXT": "a b"},
        env_file=folder / "vars.env",
        secrets=("API_KEY",),
        replicas=2,
        health=HealthSpec(
            path="/healthz", interval=0.5, timeout=90.0, rise=1, fall=5, start_timeout=90.0,
            conditions=("[STATUS] == 200",),
        ),
        deploy=DeploySpec(
            strategy="recreate", grace=0.0, drain=2.5, keep=2,
            canary=CanarySpec(weight=5, watch=60.0, max_latency=0.3),
        ),
        limits=LimitSpec(memory=256 << 20, cpus=0.5),
        door=DoorSpec(
            body_limit=10 << 20, header_limit=16 << 10, body_timeout=20.0, upstream_timeout=60.0, rate=2.5, burst=10,
            rate_by="route", max_requests=100, balance="least_connections", sticky="shop_release", strip=True,
            methods=("GET", "POST"), headers={"X-Beta": "1", "x-any": None}, redirect=("https", "aliases"),
            basic_auth={"ann": HASH}, allow=("10.0.0.0/8", "::1/128"), aliases=("shop.example.org",),
        ),
    )  # fmt: skip


def test_what_is_left_out_is_the_default_of_the_specification(folder: Path) -> None:
    (folder / "shop.yaml").write_text("name: shop\nsource: app\n")
    app, _ = load_file(folder / "shop.yaml", trusted=())
    assert app == AppSpec(name="shop", file=folder / "shop.yaml", source=folder / "app")
    assert app is not None
    assert app.domain == "shop.localhost"


def test_a_path_may_start_at_the_repository_too(tmp_path: Path) -> None:
    registry = tmp_path / "compose" / "app-registry"
    registry.mkdir(parents=True)
    (tmp_path / "apps" / "shop").mkdir(parents=True)
    (registry / "shop.yaml").write_text("name: shop\nsource: apps/shop\n")
    assert load(registry, trusted=()).apps["shop"].source == tmp_path / "apps" / "shop"


def test_a_missing_folder_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="expected a registry folder") as caught:
        load(tmp_path / "none")
    assert "fairway add" in caught.value.hint


def test_the_registry_of_the_repository_is_sound() -> None:
    registry = load(REPOSITORY / "compose" / "app-registry", trusted=())
    assert registry.problems == []
    assert repr(registry).endswith(f"[{len(registry.apps)} apps, 0 problems]>")


def test_the_schema_in_the_repository_is_the_one_of_the_types() -> None:
    written = (REPOSITORY / "compose" / "app-registry.schema.json").read_text()
    assert written == schema.text(), "run `make schema`"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (FULL, True),
        ("name: a\nsource: b\n", True),
        ("name: a\ncompose_file: b\nfrontend: {port: 1, domain: x}\nbackend: {port: 2, domain: y}\n", True),
        ("name: a\n", False),
        ("name: A\nsource: b\n", False),
        ("name: a\nsource: b\ncolour: red\n", False),
        ("name: a\nsource: b\nhealth: {interval: soon}\n", False),
        ("name: a\nsource: b\nbackend: {port: 0}\n", False),
        ("name: a\nsource: b\ndoor: {basic_auth: {ann: hunter2}}\n", False),
        ("name: a\nsource: b\ndoor: {methods: [get]}\n", False),
    ],
)
def test_the_schema_judges_as_the_registry_does(text: str, good: bool) -> None:
    judge = jsonschema_rs.validator_for(schema.schema())
    entries = (
        [text] if not good else [text, *(p.read_text() for p in (REPOSITORY / "compose/app-registry").glob("*.yaml"))]
    )
    for entry in entries:
        errors = [error.message for error in judge.iter_errors(yaml.safe_load(entry))]
        assert (errors == []) is good, errors


def test_the_schema_names_every_field_of_the_specification() -> None:
    fields = {f.encode_name for f in msgspec.structs.fields(AppSpec)} - {"file"}
    assert set(schema.schema()["properties"]) == fields


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("250ms", 0.25), ("1h30m", 5400), ("0", 0), ("1.5m", 90), ("366d", 366 * 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5 s", "s", "-1s", "1e400", "nan", "inf", "5S", "367d", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("64K", 65536), ("1.5G", 3 << 29), ("2MiB", 2 << 20), ("1GB", 1 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert values.size(text) == size


@pytest.mark.parametrize("text", ["0", "-1M", "1X", "M", "1 M", "9999999T", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        values.size(text)


@pytest.mark.parametrize("name", ["a", "go-api", "a" * 40, "0"])
def test_names(name: str) -> None:
    assert values.name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a" * 41, "a b", "a\n", "ä", "a.b", "../x"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 40"):
        values.name(name)


@pytest.mark.parametrize("path", ["/../etc", "/a//b", "/a?b", "/%2e", "/a;b", "api", "/a b", '/"', "/{x}", "/$host"])
def test_what_is_no_route(path: str) -> None:
    with pytest.raises(ValueError, match="expected a p"):
        values.route_path(path)


def test_variables_in_a_file() -> None:
    text = '# note\nA=1\nexport B = \'x # y\'\nC="a\\nb\\"" # note\nD=plain # note\nE=\nF=#x\nG=a=b\n'
    assert parse_env(text) == {"A": "1", "B": "x # y", "C": 'a\nb"', "D": "plain", "E": "", "F": "", "G": "a=b"}


@pytest.mark.parametrize("text", ["hunter2", "A-B=hunter2", "A='hunter2", 'A="hunter2" x', "=hunter2", "A=hunter2\0"])
def test_a_broken_line_is_named_without_its_value(text: str) -> None:
    with pytest.raises(EnvFileError, match="line 2") as caught:
        parse_env(f"OK=1\n{text}\n")
    assert "hunter2" not in str(caught.value)


def test_a_file_of_variables_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(EnvFileError, match="No such file"):
        read_env_file(tmp_path / "none")
    (tmp_path / "large").write_text("A=" + "x" * 300_000)
    with pytest.raises(EnvFileError, match="at most 256 KiB"):
        read_env_file(tmp_path / "large")
