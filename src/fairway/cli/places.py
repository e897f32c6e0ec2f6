"""Where a project keeps what: names of folders, and the way from a folder to its project. Imports nothing else."""

from __future__ import annotations

import os

REGISTRY = "compose/app-registry"
STATE = ".fairway"


def is_project(folder: str) -> bool:
    """Say whether a folder has a registry or a state folder."""
    return os.path.isdir(os.path.join(folder, REGISTRY)) or os.path.isdir(os.path.join(folder, STATE, "run"))


def nearest_project(folder: str) -> str | None:
    """Return `folder` or the nearest one above it that is a project; None where none is."""
    while not is_project(folder):
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above
    return folder


def state_folder(named: str | None) -> str | None:
    """Return the state folder of the project that is named, or None for the nearest one; None where there is none.

    ``FAIRWAY_STATE_DIR`` moves it, as in `fairway.cli.project.Project.layout`.
    """
    root = os.path.abspath(named) if named is not None else nearest_project(os.getcwd())
    if root is None:
        return None
    return os.path.abspath(os.environ.get("FAIRWAY_STATE_DIR") or os.path.join(root, STATE))
