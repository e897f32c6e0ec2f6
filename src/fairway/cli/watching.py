"""Waits until apps have come up, while their progress is shown; what `up -d` and the foreground have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fairway.cli import output

SETTLED = frozenset({"running", "degraded", "failed", "stopped"})


def print_result(apps: list[dict[str, Any]], *, api: str, footer: str) -> None:
    """Print the table of URLs, why the failed ones failed, and what can be typed next."""
    rows = [(app["name"], output.state(app["state"]), app["url"] or "-") for app in apps]
    click.echo()
    output.table(("APP", "STATE", "URL"), rows)
    for app in apps:
        if app["state"] in {"failed", "degraded"} and app["message"]:
            click.echo()
            lines = app["message"].splitlines()
            click.echo(f"{output.paint(app['name'], 'red', bold=True)}: {output.printable(lines[0])}")
            for line in lines[1:]:
                click.echo(f"  {output.printable(line)}")
    click.echo()
    click.echo(output.paint(f"API {api} · `fairway logs -f` · `fairway ps` · {footer}", dim=True))


def failed(apps: Iterable[dict[str, Any]], wanted: frozenset[str]) -> bool:
    """Say whether one of the apps that were asked for (empty: all) failed."""
    return any(app["state"] in {"failed", "degraded"} for app in apps if not wanted or app["name"] in wanted)
