"""Finds out, without building and without an event loop, whether the newest release of an app is what it would become.

The builder asks the same questions in the same words; whoever gets a release here gets the one that it would return.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fairway.run import artifact
from fairway.run.buildkey import key_of
from fairway.run.failure import BuildError
from fairway.run.release import Release, newest_release

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec
    from fairway.run.sources import Sources

_SECRETS_FILE = "secrets.env"


def unchanged_release(state: Path, app: AppSpec, sources: Sources) -> Release | None:
    """Return the newest release of an app if it is of this very source, entry and environment and can be started.

    None means that the builder has to be asked: something has changed, is missing, or an engine holds the image.

    Args:
        state: The state folder.
        app: The app, from the registry.
        sources: Digests of the sources.

    Raises:
        FairwayError: The source or the environment cannot be read.
    """
    newest = newest_release(state, app.name)
    if newest is None or newest.in_container:
        return None
    env, _ = variables_of(state, app)
    key = key_of(sources.digest(app.name, source_of(app)), app)
    folder, record = known_build(state / "builds" / app.name, key)
    if folder is None or record is None or record.kind in {"docker", "compose"}:
        return None
    return newest if newest.digest == release_digest(folder, {**record.env, **env}) else None


def source_of(app: AppSpec) -> Path:
    """Return the folder of an app's source. Raises `BuildError` where there is none."""
    source = app.source or (app.compose_file.parent if app.compose_file else None)
    if source is None or not source.is_dir():
        raise BuildError(
            f"expected the source folder of {app.name} at {source}, found none",
            app=app.name, code="build.source", hint=f"Correct `source` in {app.file}.",
        )  # fmt: skip
    return source


def variables_of(state: Path, app: AppSpec) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the app's variables, and those values that must not stand in a log.

    Raises:
        BuildError: A secret is named that is nowhere.
        EnvFileError: Its file of variables cannot be read.
    """
    if app.env_file is None and not app.secrets:
        return dict(app.env), ()
    from fairway.apps.dotenv import read_env_file

    hidden = read_env_file(app.env_file) if app.env_file else {}
    if app.secrets:
        path = state / _SECRETS_FILE
        stored = read_env_file(path) if path.exists() else {}
        for name in app.secrets:
            value = os.environ.get(name, stored.get(name))
            if value is None:
                raise BuildError(
                    f"expected the secret {name} of {app.name} in the environment or in {path}, it is in neither",
                    app=app.name, code="build.config",
                    hint=f"Add a line {name}=VALUE to {path} (chmod 600), or export it before `fairway up`.",
                )  # fmt: skip
            hidden[name] = value
    return {**app.env, **hidden}, tuple(hidden.values())


def known_build(builds: Path, key: str) -> tuple[Path, artifact.BuildRecord] | tuple[None, None]:
    """Return the newest build of a key that can still be started, as far as the disk says."""
    for number in range(9, -1, -1):
        folder = builds / (key[:16] if number == 0 else f"{key[:16]}-{number}")
        record = artifact.load_record(folder)
        if record is None or record.key != key or not record.startable():
            continue
        if record.environment is None or artifact.is_complete(Path(record.environment)):
            return folder, record
    return None, None


def release_digest(build: Path, env: Mapping[str, str]) -> str:
    """Return the digest of a release: of the build that it starts, and of its environment."""
    return hashlib.sha256(msgspec.json.encode([str(build), sorted(env.items())])).hexdigest()
