"""Freezes a Compose file for a release: its text as it was, and an image of its own for every service that is built.

Compose builds each service into one name, over and over, and reads its file where it lies. A release that is gone back
to would so run the newest images by the newest file. Each release therefore has a copy of the file, and beside it a
second one that names what was built from this content. Paths go on being relative to the folder of the original, since
folders that are mounted from there have to be the same ones in every release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairway.build.docker import ComposeProject, service_image
from fairway.build.plan import PlanError, Step, Tool

FILE, IMAGES = "compose.yaml", "images.yaml"
_RESOLVED = "resolved.json"
_LIMIT = 1 << 20


class _Port(msgspec.Struct):
    published: str | int | None = None


class _Service(msgspec.Struct):
    build: Any = None
    ports: list[_Port] = []
    network_mode: str | None = None


class _Resolved(msgspec.Struct):
    services: dict[str, _Service] = {}


class _Image(msgspec.Struct, omit_defaults=True):
    image: str
    pull_policy: str | None = None


class _Images(msgspec.Struct):
    services: dict[str, _Image]


async def freeze(
    project: ComposeProject,
    output: Path,
    digest: str,
    port: int,
    *,
    docker: Tool,
    run: Callable[[Step], Awaitable[None]],
) -> ComposeProject:
    """Copy a Compose file, name the images of its services, and return the project of the copy.

    Args:
        project: The file as it lies there.
        output: The build's own folder, which gets the copies.
        digest: Digest of the build, for the images' tag.
        port: What ``${PORT}`` stands for while it is looked at.
        docker: The engine's client.
        run: Carries out a step of the build; raises where it fails.

    Raises:
        PlanError: The file cannot be read, or publishes other ports than `port`.
        BuildError: Compose does not accept it; from `run`.
    """
    copy = output / FILE
    await asyncio.to_thread(_copy, project.files[0], copy)
    frozen = ComposeProject(project.app, project.directory, (copy,))
    resolved = output / _RESOLVED
    try:
        await run(frozen.step(docker, "config", "--format", "json", "--output", str(resolved), port=port))
        services = await asyncio.to_thread(_read, resolved)
    finally:
        resolved.unlink(missing_ok=True)  # it holds the values of the app's variables
    _check_ports(project, services, port)
    built = {n: _Image(service_image(project.app, n, digest), "never") for n, s in services.items() if s.build}
    if not built:
        return frozen
    # JSON is YAML.
    await asyncio.to_thread((output / IMAGES).write_bytes, msgspec.json.encode(_Images(built)))
    return ComposeProject(project.app, project.directory, (copy, output / IMAGES))


def images_of(build: Path) -> tuple[str, ...]:
    """Return the images that were made for the Compose release of a build folder."""
    try:
        found = msgspec.json.decode((build / "output" / IMAGES).read_bytes(), type=_Images)
    except (OSError, msgspec.MsgspecError):
        return ()
    return tuple(image.image for image in found.services.values())


def _copy(source: Path, target: Path) -> None:
    try:
        with source.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise PlanError(f"expected a Compose file at {source}, got: {error.strerror}", hint="") from error
    if len(data) > _LIMIT:
        raise PlanError(f"expected a Compose file of at most {_LIMIT} bytes at {source}, got more", hint="")
    target.write_bytes(data)


def _read(path: Path) -> Mapping[str, _Service]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Resolved).services
    except (OSError, msgspec.MsgspecError) as error:
        raise PlanError(f"expected what `docker compose config` says of the file, got: {error}", hint="") from error


def _check_ports(project: ComposeProject, services: Mapping[str, _Service], port: int) -> None:
    """Say at once what would else be a minute of waiting for a port that nobody publishes."""
    published = [str(p.published) for s in services.values() for p in s.ports if p.published is not None]
    unclear = any("-" in p for p in published) or any(s.network_mode == "host" for s in services.values())
    if str(port) in published or unclear:
        return
    raise PlanError(
        f"expected a service of {project.app} to publish the port ${{PORT}} (here {port}), "
        f"found {', '.join(sorted(published)) or 'no published port'}",
        hint='Publish it in the Compose file (`ports: ["127.0.0.1:${PORT}:8000"]`), or name the port that it publishes '
        "as `backend.port` of the registry entry.",
    )
