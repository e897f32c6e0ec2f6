"""`fairway ps`: apps, their instances and URLs."""

from __future__ import annotations

import time
from typing import Any

import click

from fairway.cli import output
from fairway.cli.client import Client, app_path
from fairway.cli.problems import print_problems
from fairway.cli.project import current


@click.command()
@click.argument("apps", nargs=-1, metavar="[APP]...")
@click.option("-a", "--all", "instances", is_flag=True, help="One line an instance instead of one an app.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps(apps: tuple[str, ...], instances: bool, as_json: bool) -> None:
    """List the apps, their instances and URLs."""
    project = current()
    client = Client(project)
    told = {"apps": [client.get(app_path(name)) for name in apps], "problems": []} if apps else client.get("/v1/apps")
    found = told["apps"]
    if as_json:
        output.as_json(found)
        return
    if not found:
        click.echo("No app is served. `fairway add PATH` writes the entry of one.")
    elif instances:
        print_instances(found)
    else:
        print_apps(found)
    print_problems(project, told["problems"])


def print_apps(apps: list[dict[str, Any]]) -> None:
    """Print one line an app, and below the table why the unwell ones are."""
    now = time.time()
    rows = []
    for app in apps:
        web = [one for one in app["instances"] if one["process"] == "web"]
        started = [one["started_at"] for one in web if one["started_at"] is not None]
        memory = [one["memory"] for one in app["instances"] if one["memory"] is not None]
        rows.append(
            (
                app["name"],
                output.state(app["state"]),
                f"{app['ready']}/{app['replicas']}",
                app["release"] or "-",
                output.ago(min(started), now) if started else "-",
                str(sum(one["restarts"] for one in app["instances"])),
                output.size(sum(memory)) if memory else "-",
                app["url"] or "-",
            )
        )
    output.table(("APP", "STATE", "READY", "RELEASE", "UP", "RESTARTS", "MEMORY", "URL"), rows)
    print_messages(apps)


def print_messages(apps: list[dict[str, Any]]) -> None:
    """Print why an app is what it is, where it says so."""
    for app in apps:
        if app["message"]:
            click.echo()
            output.told_of(app["name"], app["message"])


def print_instances(apps: list[dict[str, Any]]) -> None:
    """Print one line an instance."""
    now = time.time()
    rows = [
        (
            app["name"],
            one["id"],
            output.state(one["state"]),
            one["release"],
            str(one["pid"] or "-"),
            str(one["port"] or "-"),
            output.ago(one["started_at"], now),
            str(one["restarts"]),
            output.size(one["memory"]),
            one["exit"] or "-",
        )
        for app in apps
        for one in app["instances"]
    ]
    headings = ("APP", "INSTANCE", "STATE", "RELEASE", "PID", "PORT", "UP", "RESTARTS", "MEMORY", "LAST EXIT")
    output.table(headings, rows)
