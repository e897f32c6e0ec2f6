"""Writes docs/51-command-line.md from the commands themselves: ``python -m fairway.cli.reference > …``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from fairway.cli.exits import STATUSES
from fairway.cli.main import COMMANDS, cli, load

_HEAD = """# The command line

Written from the commands themselves by `make schema`; `fairway COMMAND --help` shows the same.

Every command works from any folder below the project: the nearest folder upward with `compose/app-registry` or
`.fairway` is the project, or say it with `-C DIR` (`FAIRWAY_PROJECT`). Commands talk to the daemon over its Unix
socket, which needs no token; with `FAIRWAY_URL` and `FAIRWAY_TOKEN` set they talk to another machine's. `fairway logs`,
`validate`, `doctor`, `add` and `run` need no daemon. What prints a table prints JSON with `--json`. Colours vanish
without a terminal and with `NO_COLOR`. An error is one sentence on stderr and the fix below it; `FAIRWAY_DEBUG=1` shows
the traceback of what should not have happened.
"""

_STATUSES = {
    0: "done",
    1: "it failed: an app, a deploy, a health check, or anything not named below",
    2: "wrong usage, or something wrong in the registry",
    3: "no daemon answers",
    4: "there is no such app or release",
    5: "a conflict: a daemon runs already, a port is taken, the app is stopped",
    6: "not permitted",
    130: "interrupted",
}


def page() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD]
    for section, commands in COMMANDS.items():
        lines.append(f"## {section}\n")
        for name in commands:
            command = load(name)
            assert command is not None
            lines += _command(f"fairway {name}", command)
    lines.append("## Options of every command\n")
    lines += [*_options(cli), ""]
    lines.append("## Exit statuses\n")
    lines += ["| status | means |", "|---|---|"]
    lines += [f"| {status} | {meaning} |" for status, meaning in _STATUSES.items()]
    assert set(STATUSES.values()) <= set(_STATUSES)
    return "\n".join(lines) + "\n"


def _command(path: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield f"### `{path}`\n"
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"`{path} {pieces}`\n"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "") + "\n"
    options = list(_options(command))
    if options:
        yield from [*options, ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _command(f"{path} {name}", child)


def _options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        default = "" if parameter.show_default is not True else f" Default: `{_default(parameter)}`."
        yield f"- {names}: {(parameter.help or '').rstrip('.')}.{default}"


def _default(option: click.Option) -> str:
    if option.is_flag and option.secondary_opts:
        return (option.opts if option.default else option.secondary_opts)[0]
    return str(option.default)


if __name__ == "__main__":
    click.echo(page(), nl=False)
