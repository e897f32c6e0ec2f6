"""`fairway up`: the daemon in this process, or in one of its own with `-d`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fairway.cli import upoptions
from fairway.cli.completing import apps_argument
from fairway.cli.project import current
from fairway.cli.upoptions import UpOptions, parse_address, parse_share

_EXAMPLES = """\b
Examples:
  fairway up                   build, start and serve every app; Ctrl-C stops them
  fairway up -d go-api         only one app, in the background
  fairway up --listen 0.0.0.0:80 --workers 2
  fairway up --tls             HTTPS at https://NAME.localhost:8443 beside HTTP
  fairway up --listen 0.0.0.0:80 --tls-listen 0.0.0.0:443 --acme ann@example.com
"""


class Address(click.ParamType):  # type: ignore[type-arg]  # generic from Click 8.5 on only
    """``HOST:PORT``, ``:PORT`` or ``PORT``; an IPv6 host in brackets."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return (host, port)."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AccessLog(click.ParamType):  # type: ignore[type-arg]  # generic from Click 8.5 on only
    """A share of requests from 0 to 1, or ``off``."""

    name = "share|off"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return the share; None for no log."""
        try:
            return parse_share(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FILE = click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=False)


@click.command(epilog=_EXAMPLES)
@apps_argument
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when every app is ready.")
@click.option("--listen", type=Address(), default=upoptions.LISTEN, show_default=True, help="Where the door listens.")
@click.option("--api", type=Address(), default=upoptions.API, show_default=True, help="Where the HTTP API listens.")
@click.option(
    "--workers",
    type=click.IntRange(1, upoptions.MOST_WORKERS),
    default=1,
    show_default=True,
    help="Processes of the door.",
)
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
    default=upoptions.ACCESS_LOG,
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
    told = UpOptions(**given)
    if told.as_json and not told.detach:
        raise click.UsageError("--json goes with -d: in the foreground there is no end to print it at.")
    from fairway.cli.starting import start

    return start(current(), told)
