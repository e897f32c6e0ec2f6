"""`fairway logs`: what the apps print, from their files, whether or not the daemon runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from fairway.cli import output
from fairway.cli.completing import apps_argument
from fairway.cli.project import Project, ProjectError, current
from fairway.logs.escape import neutralise
from fairway.logs.follow import ends_of, follow
from fairway.logs.line import LogLine, file_name
from fairway.logs.query import Query, history, matching, parse_since

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_LEVELS = {"trace": None, "debug": None, "info": None, "warn": "yellow", "error": "red", "fatal": "red"}
_SHOWN_KEYS = frozenset({
    "level", "severity", "lvl", "msg", "message", "event", "time", "ts", "timestamp", "@timestamp",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Options:
    """The command's flags."""

    apps: tuple[str, ...]
    following: bool
    since: str | None
    grep: str | None
    ignore_case: bool
    tail: int | None
    raw: bool
    as_json: bool


class Tail(click.ParamType):  # type: ignore[type-arg]  # generic from Click 8.5 on only
    """A number of lines, or ``all``."""

    name = "n|all"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; -1 for all."""
        text = str(value)
        if text in {"all", "-1"}:
            return -1
        if not text.isascii() or not text.isdigit():
            self.fail(f"expected a number or 'all', got {text!r}", param, ctx)
        return int(text)


@click.command()
@apps_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with lines as they come.")
@click.option("--since", metavar="TIME", help="Only since a time or an age: 10m, 2h, 2026-01-31T12:00.")
@click.option("--grep", metavar="REGEX", help="Only lines that match.")
@click.option("-i", "--ignore-case", is_flag=True, help="Match whatever the case.")
@click.option("-n", "--tail", type=Tail(), help="Only the last N lines (default: 100, all with --since), or `all`.")
@click.option("--raw", is_flag=True, help="Only the lines themselves, JSON lines as they are.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def logs(**options: Any) -> None:
    """Show what the apps print, interleaved by time. The daemon's own lines are those of the app `_fairway`."""
    told = _Options(**options)
    project = current()
    query = _query(project, told)
    files = project.layout.log_files
    write = _json_writer() if told.as_json else _raw_writer() if told.raw else _writer(_labels(project, query))
    ends = ends_of(files, query) if told.following else None
    any_line = write(history(files(), query, ends=ends))
    if told.following:
        try:
            for batch in follow(files, query, ends or {}):
                write(batch)
        except KeyboardInterrupt:
            return
    elif not any_line and not told.as_json:
        narrowed = told.apps or told.grep or told.since
        click.echo("No lines." if narrowed else "No lines yet. `fairway up` starts the apps.", err=True)


def _query(project: Project, told: _Options) -> Query:
    logged = {file.app for file in project.layout.log_files()}
    registered = {path.stem for suffix in ("yaml", "yml") for path in project.registry.glob(f"*.{suffix}")}
    unknown = [app for app in told.apps if app not in logged | registered]
    if unknown:
        from difflib import get_close_matches

        near = get_close_matches(unknown[0], logged, n=1)
        raise ProjectError(
            f"There are no logs of {unknown[0]!r}.",
            code="app.unknown",
            hint=f"Did you mean {near[0]!r}?" if near else f"There are logs of: {', '.join(sorted(logged)) or 'none'}.",
        )
    tail = told.tail if told.tail is not None else -1 if told.since else 100
    return Query(
        apps=frozenset(told.apps),
        since=parse_since(told.since, time.time()) if told.since else None,
        match=_matcher(told.grep, told.ignore_case) if told.grep else None,
        tail=None if tail < 0 else tail,
    )


def _matcher(pattern: str, ignore_case: bool) -> Callable[[str], bool]:
    try:
        return matching(pattern, ignore_case=ignore_case)
    except re.error as error:
        raise click.BadParameter(f"{error}", param_hint="--grep") from None


def _labels(project: Project, query: Query) -> list[str]:
    return [file_name(file) for file in project.layout.log_files() if query.wants_file(file)]


def _writer(labels: list[str]) -> Callable[[Iterable[LogLine]], bool]:
    """Return what prints lines for a person: time, app in its colour, the line with its control characters tamed."""
    apps = sorted({label.partition("/")[0] for label in labels})
    colours = {app: _COLOURS[index % len(_COLOURS)] for index, app in enumerate(apps)}
    colour = output.coloured()
    state = {"width": max((len(label) for label in labels), default=0)}

    def write(lines: Iterable[LogLine]) -> bool:
        wrote = False
        for line in lines:
            wrote = True
            label = line.file
            state["width"] = max(state["width"], len(label))
            stamp = datetime.fromtimestamp(line.time).strftime("%H:%M:%S.%f")[:-3]
            text = _shown(line)
            if not colour:
                click.echo(f"{stamp} {label.ljust(state['width'])} | {neutralise(text)}")
                continue
            hue = colours.setdefault(line.app, _COLOURS[len(colours) % len(_COLOURS)])
            head = f"\x1b[2m{stamp}\x1b[0m {click.style(label.ljust(state['width']), fg=hue)} \x1b[2m|\x1b[0m "
            body = neutralise(text, colours=True)
            level = _LEVELS.get(line.level or "info")
            if level is not None:
                body = click.style(neutralise(text), fg=level)
            elif line.level in {"trace", "debug"} or text.startswith("fairway: "):
                body = f"\x1b[2m{neutralise(text)}"
            click.echo(f"{head}{body}\x1b[0m", color=True)
        return wrote

    return write


def _shown(line: LogLine) -> str:
    """Return a JSON line as level, message and the rest; any other line as it is."""
    mark = " …" if line.truncated else ""
    if line.message is None and line.level is None:
        return line.text + mark
    try:
        fields: dict[str, Any] = json.loads(line.text)
    except ValueError:
        return line.text + mark
    rest = " ".join(f"{key}={_value(value)}" for key, value in fields.items() if key not in _SHOWN_KEYS)
    level = f"{line.level.upper():5} " if line.level else ""
    message = f"{line.message}  " if line.message else ""
    return f"{level}{message}{rest}{mark}".rstrip().replace("\n", "\\n")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if value and " " not in value and '"' not in value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _raw_writer() -> Callable[[Iterable[LogLine]], bool]:
    def write(lines: Iterable[LogLine]) -> bool:
        wrote = False
        for line in lines:
            wrote = True
            click.echo(neutralise(line.text, colours=True))
        return wrote

    return write


def _json_writer() -> Callable[[Iterable[LogLine]], bool]:
    import msgspec

    def write(lines: Iterable[LogLine]) -> bool:
        wrote = False
        for line in lines:
            wrote = True
            click.echo(msgspec.json.encode(line).decode())
        return wrote

    return write
