"""Folders for a container engine, with a client that writes down what it is asked and answers what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.apps.spec import AppSpec, Endpoint
from fairway.concurrency import background
from fairway.run.builder import Builder
from fairway.run.failure import BuildError
from fairway.run.toolchain import Toolchains

pytestmark = pytest.mark.integration

# What a test scripts: a line a rule, "pattern|status|file that is printed"; the first that fits the arguments answers.
CLIENT = """#!/bin/sh
echo "$@" >> {asked}
env > {folder}/env
previous=
for word in "$@"; do
  if [ "$previous" = --output ]; then cp {folder}/config.json "$word"; fi
  previous=$word
done
while IFS='|' read -r pattern status answer; do
  case "$*" in $pattern) echo "$answer"; exit "$status";; esac
done < {folder}/rules
"""
RULES = ["version*|0|28.1.0", "compose version|0|Docker Compose version v2.40.3"]


class Engine:
    """A `docker` whose answers are scripted.

    Attributes:
        builder: A builder that finds nothing but it.
        config: What ``docker compose config`` says.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "engine"
        (self._folder / "bin").mkdir(parents=True)
        self._asked = self._folder / "asked"
        client = self._folder / "bin" / "docker"
        client.write_text(CLIENT.format(asked=self._asked, folder=self._folder))
        client.chmod(0o755)
        self.client = str(client)
        path = f"{client.parent}:/usr/bin:/bin"
        self.builder = Builder(folder / ".fairway", toolchains=Toolchains(path, folder / "cache"))
        self.answer()
        self.config({"web": {"build": {"context": "."}, "ports": [{"published": "8000", "target": 80}]}})

    def answer(self, *rules: str) -> None:
        """Answer by these rules first."""
        (self._folder / "rules").write_text("\n".join([*rules, *RULES, ""]))

    def config(self, services: dict[str, object]) -> None:
        """Say this where ``docker compose config`` is asked."""
        (self._folder / "config.json").write_text(json.dumps({"name": "x", "services": services}))

    @property
    def asked(self) -> list[str]:
        """What it was asked since the last look, questions for versions left out."""
        lines = self._asked.read_text().splitlines() if self._asked.exists() else []
        self._asked.unlink(missing_ok=True)
        return [line for line in lines if "version" not in line]

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the latest call."""
        return dict(line.split("=", 1) for line in (self._folder / "env").read_text().splitlines() if "=" in line)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture
def boxed(tmp_path: Path) -> Callable[..., AppSpec]:
    """Make an app of one Compose file."""
    source = tmp_path / "app"
    source.mkdir()
    file = source / "compose.yml"
    file.write_text("services: {web: {build: ., ports: ['${PORT}:80']}}\n")
    return lambda **fields: spec(source, compose_file=file, runtime="compose", **fields)


def spec(source: Path, **fields: object) -> AppSpec:
    return AppSpec(name="shop", file=source / "x.yaml", source=source, **fields)  # type: ignore[arg-type]


async def test_a_dockerfile(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "app"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nEXPOSE 3000\n")
    release = await engine.builder.build(background(), spec(source, env={"A": "1"}))
    image = release.processes["web"].argv[-1]
    assert release.kind == "docker"
    assert engine.asked == [f"build --tag {image} ."]
    assert "127.0.0.1:$PORT:3000" in release.processes["web"].argv
    assert release.clear is not None
    assert release.clear.argv[1:] == ("rm", "--force", "--volumes", "fairway-shop-$PORT")
    again = await engine.builder.build(background(), spec(source, env={"A": "1"}))
    assert (again.cached, again.id) == (True, release.id)
    assert engine.asked == [f"image inspect --format {{{{.Id}}}} {image}"]


async def test_an_image_that_was_removed_is_built_again(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "app"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\n")
    await engine.builder.build(background(), spec(source))
    assert len(engine.asked) == 1
    engine.answer("image inspect*|1|Error: No such image")
    assert not (await engine.builder.build(background(), spec(source))).cached
    assert [line.split()[0] for line in engine.asked] == ["image", "image", "build"]


async def test_a_compose_file_is_frozen_for_each_release(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    app = boxed()
    release = await engine.builder.build(background(), app)
    folder = release.build_directory / "output"
    project = f"compose --project-name fairway-shop --project-directory {app.source} --file {folder}/compose.yaml"
    both = f"{project} --file {folder}/images.yaml"
    config, build, pull = engine.asked
    assert config == f"{project} config --format json --output {folder}/resolved.json"
    assert build == f"{both} build"
    assert pull == f"{both} pull --ignore-buildable --policy missing"
    web = " ".join(release.processes["web"].argv[1:])
    assert web == f"{both} up --no-build --no-color --no-log-prefix --abort-on-container-exit --remove-orphans"
    assert release.stop is not None
    assert " ".join(release.stop.argv[1:]) == f"{both} down --remove-orphans --timeout $GRACE"
    assert (folder / "compose.yaml").read_text() == app.compose_file.read_text()  # type: ignore[union-attr]
    images = json.loads((folder / "images.yaml").read_text())
    [(service, image)] = images["services"].items()
    assert service == "web"
    assert image["image"].startswith("fairway/shop-web:")
    assert image["pull_policy"] == "never"
    assert not (folder / "resolved.json").exists()  # it held the values of variables


async def test_releases_of_a_compose_file_have_images_of_their_own(
    engine: Engine, boxed: Callable[..., AppSpec]
) -> None:
    app = boxed()
    first = await engine.builder.build(background(), app)
    (app.source / "main.txt").write_text("changed")  # type: ignore[operator]
    second = await engine.builder.build(background(), app)
    assert first.processes["web"].argv != second.processes["web"].argv
    one, two = ((r.build_directory / "output/images.yaml").read_text() for r in (first, second))
    assert one != two


async def test_services_that_are_fetched_keep_their_images(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    engine.config({"web": {"image": "nginx", "ports": [{"published": "8000", "target": 80}]}})
    release = await engine.builder.build(background(), boxed())
    assert not (release.build_directory / "output/images.yaml").exists()


async def test_what_compose_fills_in_is_there_while_it_builds(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    app = boxed(env={"PLAIN": "p"}, secrets=("DB_PASSWORD",))
    secrets = engine.builder.state / "secrets.env"
    secrets.parent.mkdir()
    secrets.write_text("DB_PASSWORD=hunter2hunter2\n")
    engine.answer("*build|0|connecting with hunter2hunter2")
    release = await engine.builder.build(background(), app)
    env = engine.environment
    assert (env["PLAIN"], env["DB_PASSWORD"], env["PORT"], env["FAIRWAY_APP"]) == (
        "p",
        "hunter2hunter2",
        "8000",
        "shop",
    )
    assert release.log_path is not None
    log = release.log_path.read_text()
    assert "connecting with ***" in log
    assert "hunter2" not in log


@pytest.mark.parametrize(
    ("services", "found"),
    [
        ({"web": {"ports": [{"published": "8009", "target": 80}]}, "db": {}}, "found 8009"),
        ({"web": {"ports": [{"target": 80}]}}, "found no published port"),
        ({}, "found no published port"),
    ],
)
async def test_a_compose_file_that_publishes_another_port(
    engine: Engine, boxed: Callable[..., AppSpec], services: dict[str, object], found: str
) -> None:
    engine.config(services)
    with pytest.raises(BuildError, match=r"expected a service of shop to publish the port \$\{PORT\}") as error:
        await engine.builder.build(background(), boxed())
    assert found in error.value.message
    assert "backend.port" in (error.value.hint or "")
    assert not any("build" in line.split() for line in engine.asked)


async def test_the_port_of_the_entry_is_the_one_that_has_to_be_published(
    engine: Engine, boxed: Callable[..., AppSpec]
) -> None:
    engine.config({"web": {"ports": [{"published": "8009", "target": 80}]}})
    release = await engine.builder.build(background(), boxed(backend=Endpoint(port=8009)))
    assert release.kind == "compose"
    assert engine.environment["PORT"] == "8000"  # of the last step, which no port matters to


@pytest.mark.parametrize(
    "service", [{"network_mode": "host"}, {"ports": [{"published": "8000-8010", "target": 80}]}], ids=["host", "range"]
)
async def test_ports_that_only_the_start_can_tell(
    engine: Engine, boxed: Callable[..., AppSpec], service: dict[str, object]
) -> None:
    engine.config({"web": service})
    assert (await engine.builder.build(background(), boxed())).kind == "compose"


async def test_an_invalid_compose_file(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    engine.answer("*config --format*|15|services.web additional properties 'prots' not allowed")
    with pytest.raises(BuildError, match=r"config .* got exit status 15") as error:
        await engine.builder.build(background(), boxed())
    assert "services.web additional properties 'prots' not allowed" in error.value.tail


async def test_a_pull_that_fails_is_left_to_the_start(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    engine.answer("*pull --ignore*|1|no such host")
    release = await engine.builder.build(background(), boxed())
    assert release.log_path is not None
    assert "no such host" in release.log_path.read_text()


async def test_a_compose_file_outside_of_the_source_is_part_of_the_build(engine: Engine, tmp_path: Path) -> None:
    source, file = tmp_path / "app", tmp_path / "deploy" / "compose.yml"
    for folder in (source, file.parent):
        folder.mkdir()
    (source / "main.txt").write_text("x")
    file.write_text("services: {}\n")
    app = spec(source, compose_file=file, runtime="compose")
    first = await engine.builder.build(background(), app)
    file.write_text("services: {}\n# changed\n")
    second = await engine.builder.build(background(), app)
    assert not second.cached
    assert first.build_directory != second.build_directory


async def test_an_engine_that_does_not_answer(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    engine.answer("version*|1|Cannot connect to the Docker daemon at unix:///nowhere.")
    with pytest.raises(BuildError, match="which says: Cannot connect to the Docker daemon") as error:
        await engine.builder.build(background(), boxed())
    assert error.value.code == "build.engine_missing"
    assert "runtime: process" in (error.value.hint or "")


async def test_a_client_without_the_compose_plugin(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    engine.answer("compose version|1|docker: unknown command: docker compose")
    with pytest.raises(BuildError, match=r"expected docker compose 2 .* says: docker: unknown command") as error:
        await engine.builder.build(background(), boxed())
    assert error.value.code == "build.engine_missing"
    assert "plugin" in (error.value.hint or "")


async def test_a_compose_that_is_too_old(engine: Engine, boxed: Callable[..., AppSpec]) -> None:
    engine.answer("compose version|0|docker-compose version 1.29.2")
    with pytest.raises(BuildError, match=r"expected docker compose 2 .* found 1\.29\.2"):
        await engine.builder.build(background(), boxed())


async def test_a_language_without_its_toolchain_goes_to_the_engine(engine: Engine, tmp_path: Path) -> None:
    source = tmp_path / "app"
    source.mkdir()
    (source / "App.csproj").write_text('<Project Sdk="Microsoft.NET.Sdk.Web"></Project>')
    (source / "Dockerfile").write_text("FROM scratch\n")
    release = await engine.builder.build(background(), spec(source))
    assert release.kind == "docker"
    assert release.log_path is not None
    assert "expected dotnet on the search path, found none; going on with docker" in release.log_path.read_text()
