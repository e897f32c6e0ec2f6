"""`fairway up`: the daemon in this process, or in one of its own with `-d`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fairway.cli.completing import apps_argument
from fairway.cli.project import Project, ProjectError, current

_EXAMPLES = """\b
Examples:
  fairway up                   build, start and serve every app; Ctrl-C stops them
  fairway up -d go-api         only one app, in the background
  fairway up --listen 0.0.0.0:80 --workers 2
"""


@dataclass(frozen=True, slots=True)
class _Options:
    """The command's flags."""

    apps: tuple[str, ...]
    detach: bool
    listen: tuple[str, int]
    api: tuple[str, int]
    grpc: tuple[str, int]
    workers: int
    watch: bool
    as_json: bool
    background: bool

    def words(self) -> list[str]:
        """Return the arguments that give another process the same flags."""
        return [
            f"--listen={_address(self.listen)}",
            f"--api={_address(self.api)}",
            f"--grpc={_address(self.grpc)}",
            f"--workers={self.workers}",
            "--watch" if self.watch else "--no-watch",
            "--",
            *self.apps,
        ]


class Address(click.ParamType):  # type: ignore[type-arg]  # generic from Click 8.5 on only
    """``HOST:PORT``, ``:PORT`` or ``PORT``; an IPv6 host in brackets."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return (host, port)."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        host, _, port = text.rpartition(":")
        if not port.isascii() or not port.isdigit() or not int(port) <= 65535:
            self.fail(f"expected HOST:PORT with a port from 0 to 65535, got {text!r}", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


@click.command(epilog=_EXAMPLES)
@apps_argument
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when every app is ready.")
@click.option("--listen", type=Address(), default="127.0.0.1:8080", show_default=True, help="Where the door listens.")
@click.option("--api", type=Address(), default="127.0.0.1:7070", show_default=True, help="Where the HTTP API listens.")
@click.option("--grpc", type=Address(), default="127.0.0.1:7071", show_default=True, help="Where gRPC listens.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes of the door.")
@click.option("--watch/--no-watch", default=True, show_default=True, help="Follow changes of the registry files.")
@click.option("--json", "as_json", is_flag=True, help="With -d: print the apps as JSON once they are ready.")
@click.option("--background", is_flag=True, hidden=True, help="What -d starts: no terminal, log as JSON.")
def up(**options: Any) -> int:
    """Build, start and serve every app of the registry, or only those named."""
    told = _Options(**options)
    project = current()
    _check_registry(project)
    if told.detach:
        from fairway.cli import detached

        return detached.start(project, told.words(), frozenset(told.apps), as_json=told.as_json)
    if told.as_json:
        raise click.UsageError("--json goes with -d: in the foreground there is no end to print it at.")
    from fairway.cli import foreground
    from fairway.platform.daemon import DaemonConfig

    config = DaemonConfig(
        registry=project.registry,
        state_dir=project.layout.root,
        door_host=told.listen[0],
        door_port=told.listen[1],
        door_workers=told.workers,
        api_host=told.api[0],
        api_port=told.api[1],
        grpc_port=told.grpc[1],
        apps=told.apps,
        watch=told.watch,
    )
    return foreground.run(project, config, background=told.background)


def _check_registry(project: Project) -> None:
    folder: Path = project.registry
    if any(path.suffix in {".yaml", ".yml"} for path in (folder.iterdir() if folder.is_dir() else ())):
        return
    raise ProjectError(
        f"There is no app in {folder} yet." if project.found else f"There is no app in {project.root} yet.",
        hint="`fairway add ./myapp` writes the entry of a folder, then `fairway up` starts it.",
    )


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
