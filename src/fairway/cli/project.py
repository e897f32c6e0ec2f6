"""Which project a command is about: the folder with the registry, and its state folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fairway.cli.places import REGISTRY, STATE, is_project, nearest_project
from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.platform.layout import Layout


class ProjectError(FairwayError):
    """No project, or not one that the command can work with."""

    code = "cli.no_project"


class Project(NamedTuple):
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
    import click

    named: str | None = click.get_current_context().find_root().obj
    return find(named)


def find(named: str | None) -> Project:
    """Return the project in the folder `named`, or where that is None, the nearest one upward or the current folder.

    Raises:
        ProjectError: The folder that was named does not exist.
    """
    if named is not None:
        return at(Path(named))
    here = os.getcwd()
    found = nearest_project(here)
    return Project(Path(found or here), found=found is not None)


def at(folder: Path) -> Project:
    """Return the project in `folder`, whether or not there is one yet. Raises `ProjectError` if it is no folder."""
    root = folder.absolute()
    if not root.is_dir():
        raise ProjectError(f"There is no folder {str(folder)!r}.", hint="Give --project the folder of your project.")
    return Project(root, found=is_project(str(root)))
