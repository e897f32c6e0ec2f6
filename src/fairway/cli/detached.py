"""`fairway up -d`: starts the daemon in a process of its own and returns when the apps are ready."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from fairway.cli import exits, output
from fairway.cli.client import Client, Unreachable, app_path
from fairway.cli.progress import ProgressView
from fairway.cli.project import Project
from fairway.cli.watching import Outcome, print_outcome, while_drawing
from fairway.errors import FairwayError
from fairway.platform.errors import StateDirError
from fairway.platform.lock import running_daemon

_ANSWERS_WITHIN = 30.0
_ENDS_WITHIN = 5.0  # a daemon that does not answer any more
# The daemon's exit status becomes this command's, by the code that stands for it.
_CODES = {
    exits.USAGE: "cli.usage",
    exits.NOT_FOUND: "app.unknown",
    exits.CONFLICT: "daemon.conflict",
    exits.DENIED: "daemon.state_dir",
}


class DaemonFailed(FairwayError):
    """The daemon ended before it answered."""

    code = "daemon.failed"


def start(
    project: Project, options: list[str], wanted: frozenset[str], *, as_json: bool = False, root: Path | None = None
) -> int:
    """Start the daemon (or join the one that runs), show its progress, return the exit status.

    Args:
        project: Whose daemon.
        options: Arguments of `fairway up` for the daemon's own process.
        wanted: Names of the apps to wait for; empty for all.
        as_json: Print what there is then as JSON instead of the table.
        root: Certificate that clients have to trust, or None.
    """
    client = Client(project)
    began = time.time()
    if client.is_up():
        click.echo("The daemon runs already; reading the registry again.", err=True)
        client.post("/v1/registry:reload?begin" if wanted else "/v1/registry:reload?begin&all")
        for name in sorted(wanted):
            _start(client, name)
        told = _come_up(client)
    else:
        told = _come_up(client, *_spawn(project, options, client))
    apps = [app for app in told["apps"] if not wanted or app["name"] in wanted]
    runs = running_daemon(project.layout.lock)  # one that ran already may listen elsewhere than the options say
    outcome = Outcome(apps, told["problems"], runs[1] if runs and runs[1] else _api_url(options), began, root)
    if as_json:
        output.as_json({"apps": outcome.apps, "problems": outcome.problems, "api": outcome.api})
    else:
        print_outcome(project, outcome, "`fairway down` stops everything")
    return exits.FAILED if outcome.failed else exits.OK


def _come_up(
    client: Client, daemon: subprocess.Popen[bytes] | None = None, log: Path | None = None, begun: int = 0
) -> dict[str, Any]:
    """Show how it goes until every app has come up or failed, and return what the API says of them then.

    Args:
        client: Of the daemon.
        daemon: Its process, where it was started just now. log: where it writes. begun: bytes that were there before.
    """
    try:
        _show(client)
        told: dict[str, Any] = client.get("/v1/apps")
    except Unreachable:
        if daemon is None or log is None:
            raise
        try:
            status = daemon.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            raise Unreachable("The daemon does not answer any more.", hint=f"Its log is {log}.") from None
        raise _why_it_ended(log, begun, status) from None
    finally:
        if daemon is not None and daemon.returncode is None:
            daemon.returncode = 0  # it is meant to outlive this process: no warning that it still runs
    return told


def _start(client: Client, name: str) -> None:
    """Start an app that the running daemon leaves alone; why it does not come up is in its state afterwards.

    Raises:
        Answered: No app of that name is in the registry.
    """
    if client.get(app_path(name))["state"] != "stopped":
        return
    view = ProgressView()
    try:
        for event, data in while_drawing(client.stream("POST", app_path(name, ":start")), view):
            if event == "progress":
                view.update(data["app"], data["phase"], data["message"])
    finally:
        view.finish()


def _spawn(project: Project, options: list[str], client: Client) -> tuple[subprocess.Popen[bytes], Path, int]:
    """Start the daemon and wait until it answers; return its process, its log and how long that was before."""
    layout = project.layout
    try:
        layout.create()
        layout.daemon_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = os.open(layout.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirError(
            f"expected to write the state folder {layout.root}, got: {error.strerror}",
            hint="Run it as the folder's owner, or set FAIRWAY_STATE_DIR to a folder that can be written.",
        ) from error
    begun = os.fstat(log).st_size
    argv = [sys.executable, "-m", "fairway", "--project", str(project.root), "up", "--background", *options]
    try:
        daemon = subprocess.Popen(  # noqa: S603  # our own interpreter and module, arguments as a list
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=project.root
        )
    finally:
        os.close(log)
    deadline = time.monotonic() + _ANSWERS_WITHIN
    while not client.is_up():
        status = daemon.poll()
        if status is not None:
            raise _why_it_ended(layout.daemon_log, begun, status)
        if time.monotonic() > deadline:
            raise DaemonFailed(
                f"The daemon (pid {daemon.pid}) did not answer within {_ANSWERS_WITHIN:.0f} s.",
                hint=f"Its log is {layout.daemon_log}.",
            )
        time.sleep(0.03)
    return daemon, layout.daemon_log, begun


def _why_it_ended(log: Path, begun: int, status: int) -> FairwayError:
    """Return the error that the daemon wrote last, or a plain one with the end of its log."""
    with open(log, "rb") as file:
        file.seek(begun)
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    fix = [line.strip().removeprefix("fix: ") for line in lines if line.strip().startswith("fix: ")]
    if said:
        return DaemonFailed(said[-1], code=_CODES.get(status), hint=fix[-1] if fix else "")
    tail = "\n  ".join(lines[-10:])
    return DaemonFailed(
        f"The daemon ended with status {status}.{chr(10) + '  ' if tail else ''}{tail}", hint=f"See {log}."
    )


def _show(client: Client) -> None:
    """Show the progress of all apps until the daemon says that it is ready."""
    view = ProgressView()
    try:
        for _name, step in while_drawing(client.stream("GET", "/v1/progress"), view, done=lambda: _is_ready(client)):
            view.update(step["app"], step["phase"], step["message"])
    finally:
        view.finish()


def _is_ready(client: Client) -> bool:
    try:
        client.get("/readyz")
    except Unreachable:
        raise
    except FairwayError:
        return False  # 503: apps are still coming up
    return True


def _api_url(options: list[str]) -> str:
    return next(f"http://{option.removeprefix('--api=')}" for option in options if option.startswith("--api="))
