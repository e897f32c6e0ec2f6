"""How the daemon runs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fairway.platform.doorplan import DoorSetup
from fairway.platform.layout import Layout


class DaemonConfig(msgspec.Struct, frozen=True):
    """How the daemon runs.

    Attributes:
        registry: Folder of registry files.
        state_dir: State folder; None for ``.fairway`` two folders above the registry (the project's root).
        door_host: Address the door listens on.
        door_port: Port the door listens on.
        door_workers: Door processes that share the port, >= 1.
        door: What they are started with: HTTPS, access log, trusted networks.
        api_host: Address of the HTTP API.
        api_port: Port of the HTTP API.
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
    door: DoorSetup = msgspec.field(default_factory=DoorSetup)
    api_host: str = "127.0.0.1"
    api_port: int = 7070
    apps: tuple[str, ...] = ()
    watch: bool = True
    stop_apps_on_exit: bool = True

    @property
    def layout(self) -> Layout:
        """Paths of the state folder."""
        return Layout(self.state_dir or self.registry.absolute().parent.parent / ".fairway")

    @property
    def api_url(self) -> str:
        """Where whoever is on this machine reaches the API: a wildcard address by the loopback one."""
        named = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # read, not bound
        host = named.get(self.api_host, self.api_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.api_port}"
