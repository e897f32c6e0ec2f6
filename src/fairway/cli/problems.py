"""What is wrong in the registry, as the API tells it, printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fairway.cli import output
from fairway.cli.project import Project


def print_problems(project: Project, problems: list[dict[str, Any]]) -> None:
    """Print what is wrong in registry files, one line each."""
    if problems:
        click.echo()
    for problem in problems:
        file = Path(problem["file"])
        shown = file.relative_to(project.root) if file.is_relative_to(project.root) else file
        place = f"{shown}:{problem['line']}" if problem["line"] else str(shown)
        field = f"{problem['field']}: " if problem["field"] else ""
        hint = f". {problem['hint']}" if problem["hint"] else ""
        said = output.printable(f"{field}{problem['message']}{hint}")
        click.echo(f"{output.paint(f'left out {place}', 'red', bold=True)}: {said}")
