"""Names of apps for arguments and for the shell's completion, read from the registry's file names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fairway.errors import FairwayError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the apps whose names start with `incomplete`; none where there is no project."""
    from click.shell_completion import CompletionItem

    from fairway.cli.places import REGISTRY
    from fairway.cli.project import find

    try:
        project = find(ctx.find_root().params.get("project"))
    except FairwayError:
        return []
    folder = project.root / REGISTRY
    found = {path.stem for path in folder.glob("*.y*ml")} if folder.is_dir() else set()
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def apps_argument(command: Any) -> Any:
    """Decorate a command with any number of app names, `apps`."""
    return click.argument("apps", nargs=-1, metavar="[APP]...", shell_complete=names)(command)


def app_argument(command: Any) -> Any:
    """Decorate a command with one app name, `app`."""
    return click.argument("app", metavar="APP", shell_complete=names)(command)
