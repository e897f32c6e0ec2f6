"""Writes the registry entry for a folder: what `fairway add PATH` does."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import ClassVar

from fairway.apps import values
from fairway.apps.places import tree_root, trust
from fairway.apps.problem import RegistryError, shown
from fairway.apps.registry import load

_CHOOSE = "Choose another name with `--name NAME`."


class EntryError(RegistryError):
    """An entry cannot be written: its name or folder is taken, or the folder is none."""

    code = "registry.entry"
    default_hint: ClassVar[str] = ""


def write(registry: Path, app_folder: Path, name: str | None = None) -> Path:
    """Write the entry for a folder and return its file; nothing that exists is overwritten.

    The source is written relative to the registry where both are in one repository; else absolute, and the folder is
    let in for this user (see `fairway.apps.places`), for whoever adds a folder trusts it.

    Args:
        registry: The registry folder; made where it is missing.
        app_folder: The app's source folder.
        name: Name of the app; None takes the folder's, in small letters with dashes.

    Raises:
        EntryError: `app_folder` is no folder or has a path that no entry can name, or the name or the folder is
            registered already.
    """
    source = Path(os.path.realpath(app_folder))
    if not source.is_dir():
        raise EntryError(
            f"expected a folder at {shown(str(app_folder), 200)}, found none", code="registry.source_missing"
        )
    _check_path(source)
    chosen = _name(source, name)
    registry = Path(os.path.abspath(registry))
    try:
        registry.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EntryError(
            f"expected to make the folder {registry}, got: {error.strerror}",
            code="registry.unwritable",
            hint="Run it in a folder that you may write, or say another project with `fairway -C DIR add …`.",
        ) from error
    _check_free(registry, source, chosen)
    inside = source.is_relative_to(tree_root(registry))
    written = os.path.relpath(source, os.path.realpath(registry)) if inside else str(source)
    path = registry / f"{chosen}.yaml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(chosen, written))
    except FileExistsError as error:
        raise EntryError(f"expected no file at {path}, there is one", code="registry.exists", hint=_CHOOSE) from error
    except OSError as error:
        raise EntryError(f"expected to write {path}, got: {error.strerror}", code="registry.unwritable") from error
    if not inside:
        trust(source)
    return path


def _check_path(source: Path) -> None:
    """Raise `EntryError` for a folder whose entry could not be read again."""
    if source.parent == source:
        raise EntryError(f"expected an app's folder, got the root of all: {source}", hint="Say the folder of one app.")
    try:
        values.text(str(source)).encode()
    except ValueError as error:  # UnicodeEncodeError, too: bytes that are no UTF-8
        raise EntryError(
            f"expected a path in UTF-8 without control or invisible characters, got {shown(str(source), 200)}",
            code="registry.invalid_value",
            hint="Rename the folder.",
        ) from error


def _name(source: Path, name: str | None) -> str:
    if name is not None:
        try:
            return values.name(name)
        except ValueError as error:
            raise EntryError(f"{error} as the app's name, got {shown(name)}", code="registry.invalid_value") from error
    plain = "".join(c for c in unicodedata.normalize("NFKD", source.name.casefold()) if not unicodedata.combining(c))
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-")
    if not slug:
        raise EntryError(
            f"expected a folder name with letters or digits, got {shown(source.name)}",
            hint="Say the name yourself with `--name NAME`.",
        )
    return slug


def _check_free(registry: Path, source: Path, name: str) -> None:
    for app in load(registry).apps.values():
        if app.source == source:
            raise EntryError(
                f"expected a folder that is new, {source} is {app.name} in {app.file}",
                code="registry.exists",
                hint="`fairway up` serves it; edit that file to change how.",
            )
        if app.name == name:
            raise EntryError(
                f"expected a name that is free, {name!r} is taken by {app.file}",
                code="registry.exists",
                hint=_CHOOSE,
            )
    for suffix in (".yaml", ".yml"):
        path = registry / f"{name}{suffix}"
        if path.exists():
            raise EntryError(
                f"expected no file at {path}, there is one",
                code="registry.exists",
                hint="`fairway validate` says what is wrong in it; or choose another name with `--name NAME`.",
            )


def _text(name: str, source: str) -> str:
    quoted = source if re.fullmatch(r"[A-Za-z0-9._/-]+", source) else "'" + source.replace("'", "''") + "'"
    return (
        f"name: {name}\n"
        f"source: {quoted}\n"
        "\n"
        f"# Served at http://{name}.localhost:8080. How it is built and started is found in the source; to say it\n"
        "# yourself, or to add health checks, variables, secrets or limits: see Fairway's registry reference.\n"
    )
