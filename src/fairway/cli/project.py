"""Which project a command is about: the folder with the registry, and its state folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.platform.layout import Layout

REGISTRY = "compose/app-registry"
STATE = ".fairway"


class ProjectError(FairwayError):
    """No project, or not one that the command can work with."""

    code = "cli.no_project"


@dataclass(frozen=True, slots=True)
class Project:
    """One project.

    Attributes:
        root: Its folder, absolute.
        found: Whether it has a registry or a state folder; False for a folder that is none yet.
    """

    root: Path
    found: bool

    @property
    def registry(self) -> Path:
        """Folder of the registry files; need not exist."""
        return self.root / REGISTRY

    @property
    def layout(self) -> Layout:
        """Paths of the state folder; ``FAIRWAY_STATE_DIR`` moves it."""
        from fairway.platform.layout import Layout

        moved = os.environ.get("FAIRWAY_STATE_DIR")
        return Layout(Path(moved) if moved else self.root / STATE)


def current() -> Project:
    """Return the project of the running command: ``--project``, or the nearest one upward, or the current folder.

    Raises:
        ProjectError: The folder that was named does not exist.
    """
    named: str | None = click.get_current_context().find_root().obj
    return find(named)


def find(named: str | None) -> Project:
    """Return the project in the folder `named`, or where that is None, the nearest one upward or the current folder.

    Raises:
        ProjectError: The folder that was named does not exist.
    """
    if named is not None:
        return at(Path(named))
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_project(folder):
            return Project(folder, found=True)
    return Project(here, found=False)


def at(folder: Path) -> Project:
    """Return the project in `folder`, whether or not there is one yet. Raises `ProjectError` if it is no folder."""
    root = folder.absolute()
    if not root.is_dir():
        raise ProjectError(f"There is no folder {str(folder)!r}.", hint="Give --project the folder of your project.")
    return Project(root, found=_is_project(root))


def _is_project(folder: Path) -> bool:
    return (folder / REGISTRY).is_dir() or (folder / STATE / "run").is_dir()
