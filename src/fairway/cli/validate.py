"""`fairway validate`: what is wrong in the registry files."""

from __future__ import annotations

import click

from fairway.cli import exits, output
from fairway.cli.project import ProjectError, current
from fairway.health.conditions import ConditionError, parse


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(as_json: bool) -> int:
    """Check the registry files; exit status 2 where something is wrong in one."""
    from fairway.apps.registry import load

    project = current()
    if not project.registry.is_dir():
        raise ProjectError(
            f"There is no registry at {project.registry}.", hint="`fairway add ./myapp` writes the first entry."
        )
    registry = load(project.registry, check_condition=_check)
    if as_json:
        problems = [
            {
                "file": str(problem.file),
                "line": problem.mark.line if problem.mark else None,
                "column": problem.mark.column if problem.mark else None,
                "field": problem.field,
                "message": problem.message,
                "hint": problem.hint,
                "code": problem.code,
                "app": problem.app,
            }
            for problem in registry.problems
        ]
        output.as_json({"apps": list(registry.apps), "problems": problems})
    else:
        for problem in registry.problems:
            click.echo(problem.render(project.root), err=True)
        bad = len({problem.file for problem in registry.problems})
        fine = f"{len(registry.apps)} {'app is' if len(registry.apps) == 1 else 'apps are'} fine"
        click.echo(f"{fine}, {bad} {'file is' if bad == 1 else 'files are'} not." if bad else f"{fine}.")
    return exits.USAGE if registry.problems else exits.OK


def _check(condition: str) -> str | None:
    try:
        parse(condition)
    except ConditionError as error:
        return error.message
    return None
