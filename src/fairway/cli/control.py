"""`fairway restart`, `scale`, `stop` and `start`."""

from __future__ import annotations

import click

from fairway.cli.acting import act, json_option
from fairway.cli.completing import app_argument


@click.command()
@app_argument
@json_option
def restart(app: str, as_json: bool) -> None:
    """Replace every instance of an app by a new one of the same release, with no failed request."""
    act(app, "restart", None, as_json)


@click.command()
@app_argument
@click.argument("replicas", metavar="N", type=click.IntRange(0, 100))
@json_option
def scale(app: str, replicas: int, as_json: bool) -> None:
    """Run N instances of an app; kept until its registry file changes."""
    act(app, "scale", {"replicas": replicas}, as_json)


@click.command()
@app_argument
@json_option
def stop(app: str, as_json: bool) -> None:
    """Drain and stop an app; the others go on. It stays stopped until `fairway start` or `fairway deploy`."""
    act(app, "stop", None, as_json)


@click.command()
@app_argument
@json_option
def start(app: str, as_json: bool) -> None:
    """Start an app that was stopped."""
    act(app, "start", None, as_json)
