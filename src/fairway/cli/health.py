"""`fairway health`: what the health checks say."""

from __future__ import annotations

import time

import click

from fairway.cli import exits, output
from fairway.cli.client import Client
from fairway.cli.completing import apps_argument
from fairway.cli.project import current


@click.command()
@apps_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def health(apps: tuple[str, ...], as_json: bool) -> int:
    """Show the state of every health check; exit status 1 where one is unhealthy or stale."""
    report = Client(current()).get("/v1/health", app=apps)
    if as_json:
        output.as_json(report)
    elif not report["targets"]:
        click.echo(f"Nothing is checked: {'none of these apps' if apps else 'no app'} runs.")
    else:
        now = time.time()
        rows = []
        for target in report["targets"]:
            took = f"{target['seconds'] * 1000:.0f} ms" if target["checked_at"] is not None else "-"
            flapping = " (flapping)" if target["flapping"] else ""
            rows.append(
                (
                    target["key"],
                    output.state(target["state"]) + flapping,
                    output.ago(target["since"], now),
                    str(target["status"] or "-"),
                    took,
                    output.ago(target["checked_at"], now),
                    target["error"] or target["target"],
                )
            )
        output.table(("TARGET", "STATE", "FOR", "STATUS", "TOOK", "CHECKED", "DETAIL"), rows)
    return exits.OK if report["healthy"] else exits.FAILED
