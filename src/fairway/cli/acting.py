"""Does something to one app through the daemon and shows how it goes."""

from __future__ import annotations

from typing import Any

import click

from fairway.cli import output
from fairway.cli.client import Answered, Client, app_path
from fairway.cli.progress import ProgressView
from fairway.cli.project import current
from fairway.cli.watching import while_drawing

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def act(app: str, verb: str, body: dict[str, Any] | None, as_json: bool) -> None:
    """POST ``/v1/apps/APP:VERB``, show progress on stderr, print the result on stdout.

    Raises:
        FairwayError: What the daemon answered, or that none does.
    """
    client = Client(current())
    view = ProgressView(live=False if as_json else None)
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None
    try:
        for name, data in while_drawing(client.stream("POST", app_path(app, f":{verb}"), body), view):
            if name == "progress" and not as_json:
                view.update(data["app"], data["phase"], data["message"])
            elif name == "result":
                result = data
            elif name == "problem":
                problem = data
    finally:
        view.finish()
    if problem is not None:
        _show_log(problem)
        raise Answered(problem["detail"], code=problem["code"], hint=problem.get("hint", ""))
    if result is None:
        raise Answered("The daemon ended the answer without a result.", hint="`fairway logs _fairway` says why.")
    if as_json:
        output.as_json(result)
    else:
        print_result(result)


def print_result(result: dict[str, Any]) -> None:
    """Print what was done, or with `--plan` what would be."""
    if result["planned"]:
        output.told_of(result["app"], result["message"] or "would be deployed")
        for step in result["steps"]:
            click.echo(f"  · {output.printable(step)}")
        return
    message = result["message"] or f"{result['action']} done"
    output.told_of(result["app"], f"{message} ({result['seconds']:.1f} s)")


def _show_log(problem: dict[str, Any]) -> None:
    """Print the last lines of the build or instance that failed, and where there are more."""
    for line in problem.get("log_lines", ()):
        click.echo(f"  | {output.printable(line)}", err=True)
    if problem.get("log_path"):
        click.echo(f"  log: {output.printable(problem['log_path'])}", err=True)
