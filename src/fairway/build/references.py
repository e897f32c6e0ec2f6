"""Folders beside an app that its build files refer to: ``replace`` of Go, ``file:`` of npm, ``-e ../lib``, C# projects.

A release is built from a copy, so what a relative path leads to has to be copied with it, at the same place relative to
the source. Only folders of the same repository that hold a project themselves are taken: a build file cannot make
Fairway copy a home folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fairway.build import tree

_MAX = 20
_FILES = ("go.mod", "package.json", "requirements.txt", "pyproject.toml")
# Texts, compiled (and kept by `re`) on first use: a start without a build needs none of them.
_PATTERNS = (
    r"=>[ \t]{1,20}\"?(\.\./[^\s\"]{1,500})",  # go.mod: replace module => ../module
    r"\"(?:file|link|portal):(\.\./[^\"]{1,500})\"",  # package.json
    r"(?m)^[ \t]{0,20}(?:-e[ \t]{1,20}|--editable[= \t]{1,20})?(?:file:)?(\.\./[^\s\[;#]{1,500})",  # requirements.txt
    r"\bpath\s{0,20}=\s{0,20}[\"'](\.\./[^\"']{1,500})[\"']",  # pyproject.toml: Poetry and uv
    r"<ProjectReference\s{1,20}Include=\"(\.\.[\\/][^\"]{1,500})\"",  # *.csproj
)
_MARKS = ("go.mod", "package.json", "pyproject.toml", "setup.py", "setup.cfg")


def find_references(source: Path) -> tuple[Path, ...]:
    """Return the folders outside of `source` that it refers to, and theirs in turn, sorted, links resolved."""
    source = source.resolve()
    root = _repository(source)
    found: set[Path] = set()
    pending = [source]
    while pending and len(found) < _MAX:
        folder = pending.pop()
        for text in _texts(folder):
            for pattern in _PATTERNS:
                for written in re.findall(pattern, text):
                    target = _project_folder(folder, written)
                    inside = target is not None and target.is_relative_to(root) and not target.is_relative_to(source)
                    if target is not None and inside and target not in found:
                        found.add(target)
                        pending.append(target)
    # A folder inside another one comes with it.
    return tuple(sorted(f for f in found if not any(f != o and f.is_relative_to(o) for o in found)))


def _repository(source: Path) -> Path:
    for parent in source.parents:
        if (parent / ".git").exists():
            return parent
    return source.parent


def _texts(folder: Path) -> list[str]:
    names = [*_FILES]
    try:
        names += [e.name for e in os.scandir(folder) if e.name.endswith((".csproj", ".fsproj"))][:5]
    except OSError:
        return []
    return [text for name in names if (text := tree.read_text(folder, name)) is not None]


def _project_folder(folder: Path, written: str) -> Path | None:
    try:
        target = Path(os.path.realpath(folder / written.replace("\\", "/")))
        if target.suffix in (".csproj", ".fsproj"):
            return target.parent if target.is_file() else None
        return target if any((target / mark).is_file() for mark in _MARKS) else None
    except (OSError, ValueError):  # a name that is too long, or that has a NUL in it
        return None


def common_root(source: Path, references: tuple[Path, ...]) -> Path:
    """Return the deepest folder that holds the source and everything it refers to."""
    return Path(os.path.commonpath([source, *references]))
