"""`fairway run`: one command in the environment of an app's release, such as a migration or a shell."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

import click

from fairway.cli.completing import app_argument
from fairway.cli.project import Project, current
from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.run.release import Release


class RunError(FairwayError):
    """The command cannot be run."""

    code = "cli.run"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@app_argument
@click.option("--release", help="Id of a release; else the one that serves, or the newest.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def run(app: str, release: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND in the folder and environment of an app's release: `fairway run blog -- python manage.py migrate`.

    Where the daemon runs, that holds FAIRWAY_URL and FAIRWAY_TOKEN too, as for the app itself.

    The exit status is the command's.
    """
    project = current()
    words, env, folder = _prepared(project, app, release, command)
    os.chdir(folder)
    try:
        os.execvpe(words[0], words, env)  # noqa: S606  # the owner's own words, as a list, without a shell
    except FileNotFoundError:
        raise RunError(
            f"There is no program {words[0]!r} on the PATH of {app}'s release.",
            hint=f"`fairway run {app} -- env` shows its environment.",
        ) from None


def _prepared(
    project: Project, app: str, wanted: str | None, command: tuple[str, ...]
) -> tuple[list[str], dict[str, str], str]:
    """Return the words, the environment and the folder of the command."""
    from fairway.run import environment
    from fairway.run.proctable import MARKER
    from fairway.run.release import list_releases

    releases = list_releases(project.layout.root, app)
    if not releases:
        raise RunError(
            f"There is no release of {app!r}.", code="release.unknown", hint=f"`fairway deploy {app}` makes one."
        )
    chosen = wanted or _serving(project, app) or releases[0].id
    release = next((one for one in releases if one.id == chosen), None)
    if release is None:
        raise RunError(
            f"{app} has no release {chosen!r}.", code="release.unknown", hint=f"`fairway releases {app}` lists them."
        )
    main = release.processes.get("web") or next(iter(release.processes.values()))
    own = {"FAIRWAY_APP": app, "FAIRWAY_RELEASE": release.id, **_of_the_daemon(project)}
    env = environment.compose(release.env, main.env, own, marker="")
    # Without a port there is nothing that these conventions could tell, and the marker is for instances only.
    env = {name: value for name, value in env.items() if name != MARKER and "$PORT" not in value}
    words = list(command[1:] if command[0] == "--" else command)
    if not words:
        raise RunError("Expected a command after --.", code="cli.usage", hint=f"`fairway run {app} -- env` is one.")
    if release.in_container:
        words = _in_container(release, words)
    return words, env, str(main.cwd or release.build_directory)


def _in_container(release: Release, words: list[str]) -> list[str]:
    from fairway.build.docker import run_once

    if release.kind == "docker":
        return list(run_once(release.processes["web"].argv, tuple(words), terminal=sys.stdin.isatty()))
    raise RunError(
        f"{release.app} runs by its Compose file: which of its services is meant, Compose alone can be told.",
        hint=f"`docker compose --project-name fairway-{release.app} exec SERVICE {shlex.join(words)}`",
    )


def _of_the_daemon(project: Project) -> dict[str, str]:
    """Return the variables that the running daemon gives to every app; none where none runs."""
    from fairway.platform.host import app_environment
    from fairway.platform.lock import running_daemon

    found = running_daemon(project.layout.lock)
    return app_environment(project.layout, found[1]) if found is not None and found[1] else {}


def _serving(project: Project, app: str) -> str | None:
    """Return the release that serves, where a daemon says so."""
    from fairway.cli.client import Client, app_path

    try:
        release: str | None = Client(project).get(app_path(app))["release"]
    except FairwayError:
        return None
    return release
