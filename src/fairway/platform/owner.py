"""What processes of one state folder are known by. Imports nothing that takes time: see `fairway.cli.ahead`."""

from __future__ import annotations

import hashlib
import os

DOOR_APP = "_fairway"
"""App name of the door's workers and of the daemon itself, in log folders and markers."""


def owner_of(root: str) -> str:
    """Return the prefix of every marker and control group of the state folder `root`, such as ``fairway-1a2b3c4d``."""
    return f"fairway-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


def door_marker(root: str, worker: int) -> str:
    """Return the marker of the door's worker number `worker` of the state folder `root`."""
    return f"{owner_of(root)}/{DOOR_APP}/door.{worker}"


def lock_file(root: str) -> str:
    """Return the file that the running daemon of the state folder `root` holds."""
    return os.path.join(root, "run", "daemon.lock")
