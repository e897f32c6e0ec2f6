"""The daemon's contract: what it is started with, and what a face of it (HTTP, gRPC) is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.concurrency import Context
    from fairway.platform.layout import Layout
    from fairway.platform.platform import Platform


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """How the daemon runs.

    Attributes:
        registry: Folder of registry files.
        state_dir: State folder; None for ``.fairway`` two folders above the registry (the project's root).
        door_host: Address the door listens on.
        door_port: Port the door listens on.
        door_workers: Door processes that share the port, >= 1.
        api_host: Address of the HTTP API.
        api_port: Port of the HTTP API.
        grpc_port: Port of the gRPC API.
        apps: Names to bring up; empty for all.
        watch: Reload when registry files change.
        stop_apps_on_exit: Stop instances and door when the daemon ends in order (Ctrl-C); False leaves them to be
            adopted by the next daemon.
    """

    registry: Path
    state_dir: Path | None = None
    door_host: str = "127.0.0.1"
    door_port: int = 8080
    door_workers: int = 1
    api_host: str = "127.0.0.1"
    api_port: int = 7070
    grpc_port: int = 7071
    apps: tuple[str, ...] = ()
    watch: bool = True
    stop_apps_on_exit: bool = True


@dataclass(slots=True)
class Services:
    """What the daemon hands to each face.

    Attributes:
        ctx: Done when the daemon is to end; its cause says why.
        config: What the daemon was started with.
        layout: Paths of the state folder.
        platform: The platform.
        token: Bearer token that the API asks for.
        health: The `fairway.health` checker that the platform feeds with instances.
        logs: The `fairway.logs` service over the log folder.
        extras: Further services by name, for faces that share one.
    """

    ctx: Context
    config: DaemonConfig
    layout: Layout
    platform: Platform
    token: str
    health: Any = None
    logs: Any = None
    extras: dict[str, Any] = field(default_factory=dict)


Face = Callable[[Services], AbstractAsyncContextManager[object]]
"""A face: entered, it listens (or raises `PortTaken`); left, it has stopped. Entered before the apps come up."""

Faces = Sequence[Face]
