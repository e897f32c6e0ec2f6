"""`fairway deploy`, `rollback` and `releases`."""

from __future__ import annotations

from datetime import datetime

import click

from fairway.cli import output
from fairway.cli.acting import act, json_option
from fairway.cli.client import Client, app_path
from fairway.cli.completing import app_argument
from fairway.cli.project import current


@click.command()
@app_argument
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@json_option
def deploy(app: str, plan: bool, as_json: bool) -> None:
    """Build what an app's sources and registry entry say now and switch to it without a failed request.

    A build or health check that fails leaves the old release serving.
    """
    act(app, "deploy", {"plan": plan}, as_json)


@click.command()
@app_argument
@click.argument("release", required=False)
@json_option
def rollback(app: str, release: str | None, as_json: bool) -> None:
    """Switch an app back to RELEASE, or to the one before the current."""
    act(app, "rollback", {"release": release}, as_json)


@click.command()
@app_argument
@json_option
def releases(app: str, as_json: bool) -> None:
    """List the releases of an app, newest first."""
    found = Client(current()).get(app_path(app, "/releases"))["releases"]
    if as_json:
        output.as_json(found)
        return
    if not found:
        click.echo(f"{app} has no release yet. `fairway deploy {app}` makes one.")
        return
    rows = []
    for release in found:
        mark = "current" if release["current"] else "" if release["available"] else "gone"
        when = datetime.fromtimestamp(release["created_at"]).strftime("%Y-%m-%d %H:%M:%S")
        rows.append((release["id"], when, output.state(mark)))
    output.table(("RELEASE", "CREATED", ""), rows)
