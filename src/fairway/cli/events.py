"""`fairway events`: publish, watch and replay events, look after consumer groups."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click

from fairway.cli import output
from fairway.cli.client import Client, Unreachable
from fairway.cli.project import current

_PAUSE = (0.2, 5.0)  # seconds: first and longest pause while the daemon is away


@click.group()
def events() -> None:
    """Publish and read events of the daemon's bus."""


@events.command()
@click.argument("topic")
@click.argument("data", required=False)
@click.option("--type", "kind", help="Type of the event; the topic's name by default.")
@click.option("--id", "name", help="Id; the same id and source again is stored once.")
@click.option("--source", default="cli", show_default=True, help="Who says so.")
@click.option("--subject", help="What it is about.")
@click.option("--key", help="Partition key: events with one key are handled in order.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def publish(topic: str, data: str | None, as_json: bool, **attributes: str | None) -> None:
    """Publish one event with DATA, JSON or else text; `-` reads it from standard input."""
    document: dict[str, Any] = {"data": _data(data), "source": attributes["source"]}
    for field, attribute in (("type", "kind"), ("id", "name"), ("subject", "subject"), ("partitionkey", "key")):
        if attributes[attribute] is not None:
            document[field] = attributes[attribute]
    answer = Client(current()).post(f"/v1/events/{quote(topic, safe='')}", document)
    if as_json:
        output.as_json(answer)
    else:
        click.echo(f"Published as offset {answer['offsets'][0]}, id {answer['ids'][0]} ({answer['durability']}).")


def _data(text: str | None) -> Any:
    if text == "-":
        text = sys.stdin.read()
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


@events.command()
@click.argument("pattern", default=">")
@click.option("--after", type=click.IntRange(0), help="Begin with what lies above this offset.")
@click.option("--since", metavar="TIME", help="Begin at a time or an age: 10m, 2h, 2026-01-31T12:00.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def subscribe(pattern: str, after: int | None, since: str | None, as_json: bool) -> None:
    """Show events as they are published, of the topics that match PATTERN (`orders.*`, `orders.>`).

    Goes on where it was when the daemon restarts.
    """
    _one_start(after, since)
    last, pause, connected, log_id = after, _PAUSE[0], False, None
    try:
        while True:
            try:
                position = Client(current()).get("/v1/events/position")
                if log_id is not None and position.get("log_id") != log_id:
                    click.echo("The log was lost; reading the new one from its first event.", err=True)
                    last, since = 0, None
                elif last is None and since is None:  # where it begins, so that a restart of the daemon hides nothing
                    last = position["last"]
                connected, log_id = True, position.get("log_id")
                for item in _stream(pattern, last, since, follow=True):
                    last, pause = item["offset"], _PAUSE[0]
                    _show(item, as_json)
            except Disconnected as broken:
                last = broken.offset
                click.echo(f"Too slow; resuming after offset {last}.", err=True)
                continue
            except Unreachable as gone:
                if not connected:
                    raise
                click.echo(f"{gone.message} Trying again in {pause:g} s.", err=True)
            time.sleep(pause)
            pause = min(pause * 2, _PAUSE[1])
    except KeyboardInterrupt:
        return


def _one_start(after: int | None, since: str | None) -> None:
    if after is not None and since is not None:
        raise click.UsageError("Expected --after or --since, got both.")


@events.command()
@click.argument("pattern", default=">")
@click.option("--after", type=click.IntRange(0), help="Only what lies above this offset.")
@click.option("--since", metavar="TIME", help="Only since a time or an age: 10m, 2h, 2026-01-31T12:00.")
@click.option("--dead", "group", metavar="GROUP", help="Publish a consumer group's dead letters again instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def replay(pattern: str, after: int | None, since: str | None, group: str | None, as_json: bool) -> None:
    """Show past events up to now, or publish the dead letters of a group again."""
    _one_start(after, since)
    if group is not None:
        if pattern != ">" or after is not None or since is not None:
            raise click.UsageError("Expected --dead GROUP alone: it publishes all dead letters of the group again.")
        answer = Client(current()).post(f"/v1/events/groups/{quote(group, safe='')}:replay")
        if as_json:
            output.as_json(answer)
        else:
            count = answer["replayed"]
            letters = (
                "No dead letters" if not count else f"Published {count} dead {'letter' if count == 1 else 'letters'}"
            )
            click.echo(f"{letters} of {group}{' again' if count else ''}.")
        return
    shown = 0
    for item in _stream(pattern, after, since, follow=False):
        _show(item, as_json)
        shown += 1
    if not shown and not as_json:
        click.echo("No events.", err=True)


@events.command()
@click.option("--delete", metavar="GROUP", help="Delete a group with all that it still has to read.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def groups(delete: str | None, yes: bool, as_json: bool) -> None:
    """List the consumer groups, how far they are and when a member was last seen; or delete one."""
    if delete is not None:
        _delete(delete, yes, as_json)
        return
    found = Client(current()).get("/v1/events/groups")
    if as_json:
        output.as_json(found)
    elif not found:
        click.echo("No consumer groups.", err=True)
    else:
        columns = ("name", "pattern", "cursor", "lag", "waiting", "leased", "dead")
        rows = [[*(str(group[column]) for column in columns), _ago(group.get("seen", 0.0))] for group in found]
        output.table([*(column.upper() for column in columns), "SEEN"], rows)


def _delete(group: str, yes: bool, as_json: bool) -> None:
    if not yes:
        click.confirm(f"Delete group {group} with all that it still has to read?", abort=True, err=True)
    Client(current()).delete(f"/v1/events/groups/{quote(group, safe='')}")
    if as_json:
        output.as_json({"deleted": group})
    else:
        click.echo(f"Deleted group {group}.")


def _ago(seen: float) -> str:
    age = time.time() - seen
    for seconds, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if age >= seconds:
            return f"{age // seconds:.0f}{unit} ago"
    return "now"  # it is kept to a minute


class Disconnected(Exception):
    """The daemon cut a slow reader off; it may resume after `offset`."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def _stream(pattern: str, after: int | None, since: str | None, *, follow: bool) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"topic": pattern, "follow": "true" if follow else "false"}
    if after is not None:
        query["after"] = after
    elif since is not None:
        from fairway.logs.query import parse_since

        query["since"] = parse_since(since, time.time())
    for name, data in Client(current()).stream("GET", "/v1/events", **query):
        if name == "fairway.disconnected" and "topic" not in data:  # an event may have that type too
            raise Disconnected(int(data["offset"]))
        yield data


def _show(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(item, ensure_ascii=False))
        return
    event = item["event"]
    at = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S")
    data = json.dumps(event.get("data"), ensure_ascii=False)
    kind = "" if event["type"] == item["topic"] else f" {event['type']}"
    line = f"{item['offset']:>6} {at} {output.paint(item['topic'], 'cyan')}{kind} {data}"
    click.echo(output.printable(line))
