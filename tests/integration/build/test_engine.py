"""Folders for a container engine, with a client that writes down what it is asked: the real one needs an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.apps.spec import AppSpec
from fairway.concurrency import background
from fairway.run.builder import Builder
from fairway.run.toolchain import Toolchains

pytestmark = pytest.mark.integration


@pytest.fixture
def engine(tmp_path: Path) -> tuple[Builder, Path]:
    bin_folder, asked = tmp_path / "bin", tmp_path / "asked"
    bin_folder.mkdir()
    client = bin_folder / "docker"
    client.write_text(f'#!/bin/sh\nif [ "$1" = version ]; then echo 28.1.0; else echo "$@" >> {asked}; fi\n')
    client.chmod(0o755)
    return Builder(tmp_path / ".fairway", toolchains=Toolchains(str(bin_folder), tmp_path / "cache")), asked


def spec(source: Path, **fields: object) -> AppSpec:
    return AppSpec(name="shop", file=source / "x.yaml", source=source, **fields)  # type: ignore[arg-type]


async def test_a_dockerfile(engine: tuple[Builder, Path], tmp_path: Path) -> None:
    builder, asked = engine
    source = tmp_path / "app"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nEXPOSE 3000\n")
    release = await builder.build(background(), spec(source, env={"A": "1"}))
    image = release.processes["web"].argv[-1]
    assert release.kind == "docker"
    assert asked.read_text() == f"build --tag {image} .\n"
    assert "127.0.0.1:$PORT:3000" in release.processes["web"].argv
    again = await builder.build(background(), spec(source, env={"A": "1"}))
    assert (again.cached, again.id) == (True, release.id)


async def test_a_compose_file_is_used_where_it_lies(engine: tuple[Builder, Path], tmp_path: Path) -> None:
    builder, asked = engine
    source = tmp_path / "app"
    source.mkdir()
    file = source / "compose.yml"
    file.write_text("services: {}\n")
    release = await builder.build(background(), spec(source, compose_file=file, runtime="compose"))
    assert release.kind == "compose"
    assert asked.read_text() == f"compose --file {file} --project-name fairway-shop build\n"
    assert release.processes["web"].cwd == source


async def test_a_language_without_its_toolchain_goes_to_the_engine(
    engine: tuple[Builder, Path], tmp_path: Path
) -> None:
    builder, _ = engine
    source = tmp_path / "app"
    source.mkdir()
    (source / "App.csproj").write_text('<Project Sdk="Microsoft.NET.Sdk.Web"></Project>')
    (source / "Dockerfile").write_text("FROM scratch\n")
    release = await builder.build(background(), spec(source))
    assert release.kind == "docker"
    assert release.log_path is not None
    assert "expected dotnet on the search path, found none; going on with docker" in release.log_path.read_text()
