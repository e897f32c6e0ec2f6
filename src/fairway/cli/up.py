"""`fairway up`: the daemon in this process, or in one of its own with `-d`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fairway.cli.completing import apps_argument
from fairway.cli.project import Project, ProjectError, current
from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.platform.doorplan import DoorSetup
    from fairway.platform.tls import TlsConfig

_EXAMPLES = """\b
Examples:
  fairway up                   build, start and serve every app; Ctrl-C stops them
  fairway up -d go-api         only one app, in the background
  fairway up --listen 0.0.0.0:80 --workers 2
  fairway up --tls             HTTPS at https://NAME.localhost:8443 beside HTTP
  fairway up --listen 0.0.0.0:80 --tls-listen 0.0.0.0:443 --acme ann@example.com
"""


class _Options(msgspec.Struct, frozen=True):
    """The command's flags."""

    apps: tuple[str, ...]
    detach: bool
    listen: tuple[str, int]
    api: tuple[str, int]
    workers: int
    watch: bool
    as_json: bool
    background: bool
    tls: bool
    tls_listen: tuple[str, int] | None
    tls_cert: Path | None
    tls_key: Path | None
    acme: str | None
    acme_directory: str | None
    acme_trust: Path | None
    access_log: float | None
    trusted: tuple[str, ...]

    def door(self) -> DoorSetup:
        """Return what the door is started with.

        Raises:
            click.UsageError: Options that do not go together, or a network that is none.
        """
        from fairway.platform.doorplan import DoorSetup

        return DoorSetup(tls=self._tls(), access_log=self.access_log, trusted=self._networks() if self.trusted else ())

    def _networks(self) -> tuple[str, ...]:
        from fairway.proxy.options import parse_networks, split_networks

        trusted = split_networks(self.trusted)
        try:
            parse_networks(trusted)
        except FairwayError as error:
            raise click.BadParameter(str(error), param_hint="--trusted") from None
        return trusted

    def _tls(self) -> TlsConfig | None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key go together: a certificate is of no use without its key.")
        if self.tls_cert is not None and self.acme is not None:
            raise click.UsageError("--tls-cert and --acme do not go together: who is to make the certificates?")
        if self.acme is None and (self.acme_directory is not None or self.acme_trust is not None):
            raise click.UsageError("--acme-directory and --acme-trust go with --acme EMAIL.")
        if not (self.tls or self.tls_listen or self.tls_cert or self.acme):
            return None
        from fairway.platform.tls import LETS_ENCRYPT, TlsConfig

        host, port = self.tls_listen or (self.listen[0], 8443)
        return TlsConfig(
            host=host,
            port=port,
            certificate=self.tls_cert,
            key=self.tls_key,
            acme=self.acme,
            directory=self.acme_directory or LETS_ENCRYPT,
            acme_trust=self.acme_trust,
        )

    def words(self) -> list[str]:
        """Return the arguments that give another process the same flags."""
        return [
            f"--listen={_address(self.listen)}",
            f"--api={_address(self.api)}",
            f"--workers={self.workers}",
            "--watch" if self.watch else "--no-watch",
            f"--access-log={'off' if self.access_log is None else f'{self.access_log:g}'}",
            *(f"--trusted={network}" for network in self.trusted),
            *self._tls_words(),
            "--",
            *self.apps,
        ]

    def _tls_words(self) -> list[str]:
        given = {
            "--tls-listen": _address(self.tls_listen) if self.tls_listen else None,
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--acme": self.acme,
            "--acme-directory": self.acme_directory,
            "--acme-trust": self.acme_trust,
        }
        return [*(["--tls"] if self.tls else []), *(f"{name}={value}" for name, value in given.items() if value)]


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


class AccessLog(click.ParamType):  # type: ignore[type-arg]  # generic from Click 8.5 on only
    """A share of requests from 0 to 1, or ``off``."""

    name = "share|off"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return the share; None for no log."""
        text = str(value)
        if text == "off":
            return None
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0:
            self.fail(f"expected a share from 0 to 1, or off, got {text!r}", param, ctx)
        return share


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=False)


@click.command(epilog=_EXAMPLES)
@apps_argument
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when every app is ready.")
@click.option("--listen", type=Address(), default="127.0.0.1:8080", show_default=True, help="Where the door listens.")
@click.option("--api", type=Address(), default="127.0.0.1:7070", show_default=True, help="Where the HTTP API listens.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes of the door.")
@click.option("--tls", is_flag=True, help="Serve HTTPS too; a local authority signs for *.localhost.")
@click.option("--tls-listen", type=Address(), help="Where HTTPS listens: port 8443 beside --listen by default.")
@click.option("--tls-cert", type=_FILE, help="Certificate and chain in PEM for every name; read again when it changes.")
@click.option("--tls-key", type=_FILE, help="Its key.")
@click.option(
    "--acme", metavar="EMAIL", help="Get certificates for public names over HTTP-01; --listen has to be on 80."
)
@click.option("--acme-directory", metavar="URL", help="Of another authority than Let's Encrypt.")
@click.option("--acme-trust", type=_FILE, help="Root certificate of that authority's own server.")
@click.option(
    "--access-log",
    type=AccessLog(),
    default="1",
    show_default=True,
    help="Share of successful requests in the door's log (`fairway logs _door`); errors always. off for no log.",
)
@click.option("--trusted", multiple=True, metavar="CIDR", help="Believe X-Forwarded-* of these networks; repeatable.")
@click.option("--watch/--no-watch", default=True, show_default=True, help="Follow changes of the registry files.")
@click.option("--json", "as_json", is_flag=True, help="With -d: print the apps as JSON once they are ready.")
@click.option("--background", is_flag=True, hidden=True, help="What -d starts: no terminal, log as JSON.")
def up(**options: Any) -> int:
    """Build, start and serve every app of the registry, or only those named."""
    given: dict[str, Any] = {k: v.absolute() if isinstance(v, Path) else v for k, v in options.items()}
    told = _Options(**given)
    door = told.door()
    project = current()
    _check_registry(project)
    if told.detach:
        from fairway.cli import detached

        root = door.tls.root if door.tls is not None else None
        return detached.start(project, told.words(), frozenset(told.apps), as_json=told.as_json, root=root)
    if told.as_json:
        raise click.UsageError("--json goes with -d: in the foreground there is no end to print it at.")
    from fairway.cli import foreground
    from fairway.platform.config import DaemonConfig

    config = DaemonConfig(
        registry=project.registry,
        state_dir=project.layout.root,
        door_host=told.listen[0],
        door_port=told.listen[1],
        door_workers=told.workers,
        door=door,
        api_host=told.api[0],
        api_port=told.api[1],
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
