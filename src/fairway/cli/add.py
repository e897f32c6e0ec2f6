"""`fairway add`: the registry entry of a folder."""

from __future__ import annotations

from pathlib import Path

import click

from fairway.cli.project import current


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="Name of the app; else the folder's.")
def add(path: Path, name: str | None) -> None:
    """Write the registry entry of the folder PATH, so that `fairway up` builds and serves it."""
    from fairway.apps.entry import write
    from fairway.platform.lock import running_daemon

    project = current()
    written = write(project.registry, path, name)
    shown = written.relative_to(project.root) if written.is_relative_to(project.root) else written
    click.echo(f"Wrote {shown}.")
    if running_daemon(project.layout.lock) is None:
        click.echo(f"Next: `fairway up` serves it at http://{written.stem}.localhost:8080.")
    else:
        click.echo("The daemon takes it up now: `fairway ps` says how far it is, and its URL.")
