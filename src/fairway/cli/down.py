"""`fairway down`: ends the daemon, which stops the door and every app."""

from __future__ import annotations

import click

from fairway.cli import exits
from fairway.cli.project import current
from fairway.cli.stopping import stop_daemon, stop_leftovers


@click.command()
@click.option("--timeout", type=click.FloatRange(0.1, 3600), default=60.0, show_default=True, help="Seconds to wait.")
def down(timeout: float) -> int:
    """Drain and stop every app, the door and the daemon."""
    project = current()
    if stop_daemon(project, timeout):
        click.echo("Stopped.")
    elif count := stop_leftovers(project):
        click.echo(f"No daemon ran; stopped {count} processes that an earlier one left behind.")
    else:
        click.echo(f"Nothing runs for {project.root}.")
    return exits.OK
