"""Waits until apps have come up, while their progress is shown; what `up -d` and the foreground have in common."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import click

from fairway.cli import output
from fairway.cli.problems import print_problems
from fairway.cli.progress import ProgressView
from fairway.cli.project import Project
from fairway.logs.query import Query, history

_REDRAW = 0.1
_LAST_LINES = 10
T = TypeVar("T")


def while_drawing(events: Iterable[T], view: ProgressView, *, done: Callable[[], bool] | None = None) -> Iterator[T]:
    """Yield what a blocking iterator gives, which a thread reads, and redraw the view ten times a second meanwhile.

    Args:
        events: What is read; an error of it is raised here.
        view: What is redrawn.
        done: Asked ten times a second: true ends the loop once nothing waits to be yielded; None waits for the end of
            `events`.
    """
    queue: SimpleQueue[tuple[T] | BaseException | None] = SimpleQueue()

    def read() -> None:
        try:
            for event in events:
                queue.put((event,))
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            item = queue.get(timeout=_REDRAW)
        except Empty:
            view.draw()
            if done is not None and done():
                return
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a start went.

    Attributes:
        apps: What the API says of the apps that were asked for.
        problems: What it says is wrong in the registry.
        api: URL of the API.
        since: Unix time of the start: what a failed app has printed since then is shown.
        root: Certificate that clients have to trust for HTTPS, or None.
    """

    apps: list[dict[str, Any]]
    problems: list[dict[str, Any]]
    api: str
    since: float
    root: Path | None = None

    @property
    def failed(self) -> bool:
        """Whether an app does not serve as it should, or a registry file is left out."""
        return bool(self.problems) or any(app["state"] in {"failed", "degraded"} for app in self.apps)


def print_outcome(project: Project, outcome: Outcome, footer: str) -> None:
    """Print the table of URLs, what went wrong and why, and what can be typed next."""
    rows = [(app["name"], output.state(app["state"]), app["url"] or "-") for app in outcome.apps]
    click.echo()
    if rows:
        output.table(("APP", "STATE", "URL"), rows)
    for app in outcome.apps:
        if app["state"] in {"failed", "degraded"} and app["message"]:
            click.echo()
            output.told_of(app["name"], app["message"], colour="red")
            query = Query(apps=frozenset({app["name"]}), since=outcome.since, tail=_LAST_LINES)
            for line in history(project.layout.log_files(app["name"]), query):
                click.echo(f"  {output.paint('|', dim=True)} {output.printable(line.text)}")
    for app in outcome.apps:
        if app["state"] == "stopped":
            click.echo(f"\n{app['name']} is stopped: `fairway start {app['name']}` starts it.")
    print_problems(project, outcome.problems)
    if outcome.root is not None and any(app["url"].startswith("https://") for app in outcome.apps):
        click.echo()
        click.echo(f"HTTPS is signed by this machine's own authority: {outcome.root}")
        click.echo(f"  trust it once: {_how_to_trust(outcome.root)}")
        click.echo(f"  or call it so: curl --cacert {shlex.quote(str(outcome.root))} {outcome.apps[0]['url']}")
    click.echo()
    click.echo(output.paint(f"API {outcome.api} · `fairway logs -f` · `fairway ps` · {footer}", dim=True))


def _how_to_trust(root: Path) -> str:
    """Return the command that adds a certificate to the system's own store; browsers may keep another."""
    path = shlex.quote(str(root))
    if sys.platform == "darwin":
        return f"sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {path}"
    if Path("/etc/pki/ca-trust/source/anchors").is_dir():
        return f"sudo cp {path} /etc/pki/ca-trust/source/anchors/fairway.crt && sudo update-ca-trust"
    return f"sudo cp {path} /usr/local/share/ca-certificates/fairway.crt && sudo update-ca-certificates"
