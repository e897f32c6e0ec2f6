"""`fairway doctor`: what this machine has, what it lacks, and how to get it."""

from __future__ import annotations

import shutil
from typing import Any

import click

from fairway.cli import output
from fairway.cli.project import Project, current
from fairway.platform.lock import running_daemon

_LOW_DISK = 1 << 30


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what is installed, what is missing, what for, and how to get it."""
    import msgspec

    from fairway.run.doctor import findings

    found: list[dict[str, Any]] = [msgspec.to_builtins(finding) for finding in findings()]
    found += _of_project(current())
    if as_json:
        output.as_json(found)
        return
    rows = [(one["tool"], output.state(one["state"]), one["version"] or "-", one["needed_for"]) for one in found]
    output.table(("TOOL", "STATE", "VERSION", "NEEDED FOR"), rows)
    fixes = [one for one in found if one["state"] == "missing" and one["how_to_get"]]
    if fixes:
        click.echo()
    for one in fixes:
        click.echo(f"{output.paint(one['tool'], bold=True)}: {output.printable(one['how_to_get'])}")


def _of_project(project: Project) -> list[dict[str, Any]]:
    """Return what there is to say of the project itself, in the form of a finding."""
    running = running_daemon(project.layout.lock)
    free = shutil.disk_usage(project.root).free
    return [
        {
            "tool": "daemon",
            "state": "ok" if running else "stopped",
            "version": "",
            "needed_for": f"pid {running[0]}, {running[1]}" if running else "`fairway up -d` starts it",
            "how_to_get": "",
        },
        {
            "tool": "disk",
            "state": "ok" if free > _LOW_DISK else "missing",
            "version": "",
            "needed_for": f"{output.size(free)} free for builds, releases and logs in {project.root}",
            "how_to_get": "" if free > _LOW_DISK else "Free some space: builds and releases need more than 1 GiB.",
        },
    ]
