"""What a process is started with on this machine: paths, state, ports and control groups; needs no event loop."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.run.cgroup import Hierarchies
from fairway.run.ports import PortPool

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec
    from fairway.platform.layout import Layout
    from fairway.platform.state import StateStore
    from fairway.run.release import Release

WEB = "web"


class Machine(msgspec.Struct):
    """The machine, as far as starting a process goes.

    Attributes:
        layout: Paths.
        state: What survives.
        env: Variables that every app gets (where Fairway's own API is, and its token).
        hierarchies: Where control groups can be made.
        ports: Fresh ports.
        clock: Time.
    """

    layout: Layout
    state: StateStore
    env: dict[str, str] = {}
    hierarchies: Hierarchies = msgspec.field(default_factory=Hierarchies)
    ports: PortPool = msgspec.field(default_factory=PortPool)
    clock: Clock = SYSTEM_CLOCK

    @property
    def owner(self) -> str:
        """Prefix of every marker and control group of this state folder, such as ``fairway-1a2b3c4d``."""
        return self.layout.owner


def app_environment(layout: Layout, api_url: str) -> dict[str, str]:
    """Return what every hosted process finds of Fairway itself: the API's URL, and the token of apps."""
    return {"FAIRWAY_URL": api_url, "FAIRWAY_TOKEN": layout.app_token()}


def fixed_port(app: AppSpec, release: Release) -> int | None:
    """Return the port that ``web`` insists on, or None for a fresh one an instance.

    `backend.port` is what a Compose file publishes where there is one; an app without one that names a port has to be
    taken at its word.
    """
    if release.kind == "compose" or app.compose_file is None:
        return app.backend.port
    return None


def runs_once(app: AppSpec, release: Release) -> bool:
    """Say whether ``web`` can have one instance at most.

    Two cannot listen on one port, and a Compose project of one name exists once.
    """
    return release.kind == "compose" or fixed_port(app, release) is not None


def launch_digest(app: AppSpec, release: Release) -> str:
    """Return a digest over everything an instance is started with: a difference asks for a new instance.

    The release covers sources, commands and environment; limits and a fixed port are the registry entry's.
    """
    what = [release.id, app.limits.memory, app.limits.cpus, fixed_port(app, release)]
    text = ", ".join(msgspec.json.encode(value).decode() for value in what)
    return hashlib.sha256(f"[{text}]".encode()).hexdigest()[:16]
