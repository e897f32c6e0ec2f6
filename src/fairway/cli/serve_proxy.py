"""`fairway serve reverse-proxy`: the door alone, in one worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fairway.proxy.options import DoorOptions
    from fairway.proxy.routes import RouteTable


@click.command("reverse-proxy")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT", help="Where to serve HTTP.")
@click.option(
    "--route",
    "routes",
    multiple=True,
    required=True,
    metavar="HOST=UPSTREAM",
    help="HOST[/PATH]=HOST:PORT[,HOST:PORT…]; HOST may be *.name or *. Repeatable.",
)
@click.option("--body-limit", type=click.IntRange(min=0), metavar="BYTES", help="Largest request body; 413 beyond it.")
@click.option(
    "--header-timeout", type=float, default=10.0, show_default=True, metavar="S", help="For a request's head; 408."
)
@click.option(
    "--body-timeout", type=float, default=30.0, show_default=True, metavar="S", help="A pause in a body; 408."
)
@click.option(
    "--upstream-timeout", type=float, default=60.0, show_default=True, metavar="S", help="A pause of an app; 504."
)
@click.option(
    "--keepalive-timeout", type=float, default=75.0, show_default=True, metavar="S", help="An idle connection."
)
@click.option("--trusted", multiple=True, metavar="CIDR", help="Believe X-Forwarded-* of these networks. Repeatable.")
@click.option("--access-log", default="off", show_default=True, metavar="off|-|FILE", help="JSON lines; - is stdout.")
@click.option("--tls-listen", metavar="HOST:PORT", help="Where to serve HTTPS.")
@click.option("--certificates", type=click.Path(path_type=Path), metavar="FOLDER", help="NAME.crt and NAME.key pairs.")
@click.option("--metrics", metavar="HOST:PORT", help="Where to serve /metrics.")
def reverse_proxy(
    listen: str,
    routes: tuple[str, ...],
    trusted: tuple[str, ...],
    body_limit: int | None,
    **options: float | str | Path | None,
) -> int:
    """Serve the door alone, without a registry, in one worker."""
    from fairway.proxy.options import DoorOptions, split_networks
    from fairway.proxy.serve import Door, table_of

    door_options = DoorOptions(listen=listen, trusted=split_networks(trusted), body_bytes=body_limit, **options)  # type: ignore[arg-type]  # Click has checked them
    return Door(door_options, table_of(routes)).run()


def read_config(path: Path) -> tuple[DoorOptions, RouteTable]:
    """Return the parts ``door`` and ``routes`` of a YAML file; what they hold is checked where it is used.

    Raises:
        OptionError: The file cannot be read, or a field is missing, unknown or of another type.
    """
    import msgspec

    from fairway.proxy.errors import OptionError
    from fairway.proxy.options import DoorOptions
    from fairway.proxy.routes import RouteTable

    parts = msgspec.defstruct(
        "Config", [("routes", RouteTable), ("door", DoorOptions, DoorOptions())], forbid_unknown_fields=True
    )
    try:
        config = msgspec.yaml.decode(path.read_bytes(), type=parts)
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise OptionError(
            f"{path}: {error}", hint="The config.yaml beside the service's main.py is an example."
        ) from error
    return config.door, config.routes  # type: ignore[attr-defined]  # the fields above
