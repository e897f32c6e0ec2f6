"""The command line of one worker of the door: ``python -m fairway.proxy``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fairway.proxy.options import DoorOptions, split_networks
from fairway.proxy.orders import AWAIT, await_orders

if TYPE_CHECKING:
    import argparse

# What the daemon gives to a worker: read without argparse, which takes as long as a tenth of the worker's start.
_PLAIN: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "--listen": ("listen", str),
    "--socket": ("socket", Path),
    "--tls-listen": ("tls_listen", str),
    "--certificates": ("certificates", Path),
    "--acme-challenges": ("acme_challenges", Path),
    "--access-log": ("access_log", str),
    "--access-log-sample": ("access_log_sample", float),
}
_SWITCHES: Final = {"--await-routes": "await_routes", "--reuse-port": "reuse_port"}


def read_plain(arguments: Sequence[str]) -> DoorOptions | None:
    """Read the arguments that the daemon gives to a worker, each spelled out; None where there is any other."""
    told: dict[str, Any] = {}
    trusted: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in _SWITCHES:
            told[_SWITCHES[word]] = True
            continue
        if not words or words[0].startswith("-") or not (word in _PLAIN or word == "--trusted"):
            return None
        value = words.pop(0)
        if word == "--trusted":
            trusted.append(value)
            continue
        name, convert = _PLAIN[word]
        try:
            told[name] = convert(value)
        except ValueError:
            return None
    return DoorOptions(**told, state=_state_beside(told.get("socket")), trusted=split_networks(trusted))


def _state_beside(socket: Path | None) -> Path | None:
    return None if socket is None else socket.with_name(socket.name + ".table.json")


def parser() -> argparse.ArgumentParser:
    """Return the command line of a worker."""
    import argparse

    defaults = DoorOptions()
    cli = argparse.ArgumentParser(prog="python -m fairway.proxy", description="One worker of the door.")
    cli.add_argument("--listen", default=defaults.listen, metavar="HOST:PORT")
    cli.add_argument("--route", action="append", default=[], metavar="HOST=UPSTREAM", help="serve alone; repeatable")
    cli.add_argument("--socket", type=Path, help="control socket that routes are pushed over")
    cli.add_argument("--state", type=Path, help="file that keeps the last table (default: SOCKET.table.json)")
    cli.add_argument("--await-routes", action="store_true", help="connections wait until the first table is pushed")
    cli.add_argument("--reuse-port", action="store_true", help="share the port with other workers")
    cli.add_argument("--tls-listen", metavar="HOST:PORT")
    cli.add_argument("--certificates", type=Path, metavar="FOLDER")
    cli.add_argument("--acme-challenges", type=Path, metavar="FOLDER")
    cli.add_argument("--body-limit", type=int, metavar="BYTES", help="largest request body, 413 beyond it")
    for name in ("header", "body", "upstream", "keepalive", "send", "stream"):
        cli.add_argument(f"--{name}-timeout", type=float, default=getattr(defaults, f"{name}_timeout"), metavar="S")
    cli.add_argument("--header-bytes", type=int, default=defaults.header_bytes)
    cli.add_argument("--header-fields", type=int, default=defaults.header_fields)
    cli.add_argument("--trusted", action="append", default=[], metavar="CIDR", help="believe X-Forwarded-* of these")
    cli.add_argument("--access-log", default=defaults.access_log, metavar="off|-|FILE")
    cli.add_argument("--access-log-sample", type=float, default=defaults.access_log_sample, metavar="SHARE")
    cli.add_argument("--no-trace", action="store_true", help="create no traceparent")
    cli.add_argument("--metrics", metavar="HOST:PORT")
    cli.add_argument("--grace", type=float, default=defaults.grace, metavar="S")
    return cli


def options_of(given: argparse.Namespace) -> DoorOptions:
    """Turn parsed arguments into options."""
    state = given.state if given.state is not None else _state_beside(given.socket)
    return DoorOptions(
        listen=given.listen,
        tls_listen=given.tls_listen,
        certificates=given.certificates,
        socket=given.socket,
        state=state,
        await_routes=given.await_routes,
        reuse_port=given.reuse_port,
        header_bytes=given.header_bytes,
        header_fields=given.header_fields,
        body_bytes=given.body_limit,
        header_timeout=given.header_timeout,
        body_timeout=given.body_timeout,
        upstream_timeout=given.upstream_timeout,
        keepalive_timeout=given.keepalive_timeout,
        send_timeout=given.send_timeout,
        stream_timeout=given.stream_timeout,
        trusted=split_networks(given.trusted),
        access_log=given.access_log,
        access_log_sample=given.access_log_sample,
        trace=not given.no_trace,
        metrics=given.metrics,
        acme_challenges=given.acme_challenges,
        grace=given.grace,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; return its exit status."""
    from fairway.errors import FairwayError

    if arguments is None and sys.argv[1:] == [AWAIT]:
        import fairway.proxy.serve  # noqa: F401  # all that takes time, while nobody waits

        arguments = await_orders()
        if arguments is None:
            return 0
    words = sys.argv[1:] if arguments is None else arguments
    from fairway.proxy.serve import Door, table_of

    try:
        options, routes = read_plain(words), []
        if options is None:
            given = parser().parse_args(words)
            options, routes = options_of(given), given.route
        return Door(options, table_of(routes) if routes else None).run()
    except (FairwayError, OSError) as error:
        print(f"fairway door: {error}", file=sys.stderr)
        return 2
