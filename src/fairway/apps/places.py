"""Which folders and files a registry entry may name: those of its repository, and those that a person let in.

An entry may come from a pull request; what it names is copied, built and run. So a path has to lie, links resolved,
inside the *tree*, the repository that holds the registry, or below a folder that the person who runs Fairway has let
in: `fairway add` does so, by a line in ``$XDG_CONFIG_HOME/fairway/trusted-sources``, a file that no repository can
carry. docs/adr has the reasons.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from fairway.apps.problem import shown

_FILE = "trusted-sources"
_MAX_BYTES = 256 * 1024
VARIABLE = "FAIRWAY_TRUSTED_SOURCES"


class PlaceError(ValueError):
    """A path that an entry may not name, or that is not there. `code` and `hint` go into the problem."""

    def __init__(self, message: str, code: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def tree_root(folder: Path) -> Path:
    """Return the tree of a registry folder: the nearest folder above with ``.git``, else what holds ``compose/``.

    A registry at ``compose/app-registry`` without a repository around has the folder of ``compose`` as its tree, any
    other has its own parent.
    """
    folder = folder.resolve()
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    if folder.parts[-2:] == ("compose", "app-registry"):
        return folder.parent.parent
    return folder.parent


def trust_file(source: Mapping[str, str] | None = None) -> Path:
    """Return the file that lists the folders a person has let in."""
    source = os.environ if source is None else source
    base = source.get("XDG_CONFIG_HOME") or os.path.join(source.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "fairway" / _FILE


def trusted_folders(source: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the folders that were let in: in the file, and in ``FAIRWAY_TRUSTED_SOURCES`` (as in ``PATH``)."""
    source = os.environ if source is None else source
    lines = [p for p in source.get(VARIABLE, "").split(os.pathsep) if p]
    # A list that is missing or cannot be read lets nobody in.
    with contextlib.suppress(OSError), trust_file(source).open("rb") as file:
        lines += file.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
    return tuple(Path(line) for line in map(str.strip, lines) if line.startswith("/") and line != "/")


def trust(folder: Path, source: Mapping[str, str] | None = None) -> bool:
    """Let a folder in for this user; False where it was already.

    Raises:
        OSError: The file cannot be written.
    """
    folder = folder.resolve()
    if any(folder.is_relative_to(known) for known in trusted_folders(source)):
        return False
    path = trust_file(source)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(f"{folder}\n".encode())
    return True


class Places:
    """Resolves the paths of one registry folder's entries.

    Args:
        folder: The registry folder.
        trusted: Folders outside of the tree that are let in; None reads the user's own list.
    """

    def __init__(self, folder: Path, trusted: tuple[Path, ...] | None = None) -> None:
        self.folder = folder.resolve()
        self.root = tree_root(folder)
        self._trusted = trusted_folders() if trusted is None else trusted

    def __repr__(self) -> str:
        return f"<Places of {self.folder} in {self.root}>"

    def source(self, text: str) -> Path:
        """Return the absolute folder that `text` names.

        Raises:
            PlaceError: It is outside, missing, or no folder.
        """
        path = self._inside(text, "If you trust it, let it in with `fairway add {}`.")
        if not path.is_dir():
            raise _missing("folder", "file", path, "registry.source_missing")
        return path

    def file(self, text: str) -> Path:
        """Return the absolute file that `text` names.

        Raises:
            PlaceError: It is outside, missing, or no file.
        """
        path = self._inside(text, f"Move it into the repository, or add its folder to {trust_file()}.")
        if not path.is_file():
            raise _missing("file", "folder", path, "registry.file_missing")
        return path

    def _inside(self, text: str, way_in: str) -> Path:
        if not text.strip():
            raise PlaceError("expected a path, got nothing", "registry.invalid_value")
        if len(text) > 1000 or text.startswith("~"):
            raise PlaceError(f"expected a relative or absolute path, got {shown(text)}", "registry.invalid_value")
        written = Path(text)
        candidates = [written] if written.is_absolute() else [self.folder / written, self.root / written]
        resolved = [Path(os.path.realpath(c)) for c in candidates]
        # What is missing is reported where people expect it first: beside the registry file.
        path = next((r for r in resolved if r.exists()), resolved[0])
        if not self._allowed(path):
            target = shown(str(path), 200)
            raise PlaceError(
                f"expected a path inside {shown(str(self.root), 200)}, got {shown(text)} which leads to {target}",
                "registry.outside_tree",
                way_in.format(target[1:-1]),
            )
        return path

    def _allowed(self, path: Path) -> bool:
        return path.is_relative_to(self.root) or any(path.is_relative_to(t.resolve()) for t in self._trusted)


def _missing(wanted: str, other: str, path: Path, code: str) -> PlaceError:
    got = f"got a {other}" if path.exists() else "found none"
    return PlaceError(
        f"expected a {wanted}, {got} at {shown(str(path), 200)}",
        code,
        "A relative path starts at the folder of this file.",
    )
