"""The `fairway` command: a table of commands, each imported only when it runs.

A new command is one line in `COMMANDS`; its module is imported when the command is run, completed or asked for
its own help, so `fairway --help` costs Click and nothing else.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from fairway.cli import exits

# section -> command -> (module, attribute, one-line help)
COMMANDS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Start and watch": {
        "up": ("fairway.cli.up", "up", "Build, start and serve every app of the registry."),
        "down": ("fairway.cli.down", "down", "Stop the daemon, the door and every app."),
        "ps": ("fairway.cli.ps", "ps", "List the apps, their instances and URLs."),
        "logs": ("fairway.cli.logs", "logs", "Show what the apps print, interleaved by time."),
        "health": ("fairway.cli.health", "health", "Show the state of every health check."),
    },
    "Apps": {
        "add": ("fairway.cli.add", "add", "Write the registry entry of a folder."),
        "deploy": ("fairway.cli.deploy", "deploy", "Build a new release of an app and switch to it without downtime."),
        "rollback": ("fairway.cli.deploy", "rollback", "Switch an app back to an earlier release."),
        "releases": ("fairway.cli.deploy", "releases", "List the releases of an app."),
        "restart": ("fairway.cli.control", "restart", "Replace the instances of an app, one release, no downtime."),
        "scale": ("fairway.cli.control", "scale", "Change how many instances an app has."),
        "stop": ("fairway.cli.control", "stop", "Stop an app and leave the others alone."),
        "start": ("fairway.cli.control", "start", "Start an app that was stopped."),
        "run": ("fairway.cli.run", "run", "Run one command in the environment of an app's current release."),
    },
    "Services": {
        "serve": ("fairway.cli.serve", "serve", "Run one service alone, such as the reverse proxy."),
        "jobs": ("fairway.cli.jobs", "jobs", "Enqueue, watch and look after jobs."),
        "worker": ("fairway.cli.worker", "worker", "Run the tasks of a Python module."),
        "events": ("fairway.cli.events", "events", "Publish, watch and replay events."),
        "door": ("fairway.cli.door", "door", "Make the password hashes of registry files."),
        "nginx": ("fairway.cli.nginx", "nginx", "Write the NGINX configuration of the registry."),
    },
    "Check": {
        "validate": ("fairway.cli.validate", "validate", "Check the registry files and say what is wrong in them."),
        "doctor": ("fairway.cli.doctor", "doctor", "Say what is missing on this machine and how to get it."),
        "completion": ("fairway.cli.completion", "completion", "Print the completion script of a shell."),
    },
}


def load(name: str) -> click.Command | None:
    """Import and return the command `name`, or None where there is no such command."""
    for commands in COMMANDS.values():
        if name in commands:
            module, attribute, _ = commands[name]
            command: click.Command = getattr(import_module(module), attribute)
            return command
    return None


class LazyGroup(click.Group):
    """A Click group over `COMMANDS` that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command's name, in the table's order."""
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        return load(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; without any, show the help and succeed."""
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of its output that goes away early is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return exits.reader_left()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one names its nearest relative."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            guess = f" Did you mean `fairway {near[0]}`?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{guess}", ctx=error.ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of `COMMANDS` without importing any of them."""
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, line) for name, (_, _, line) in commands.items()], col_max=14)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from fairway import __version__

        click.echo(f"fairway {__version__}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="New here? `fairway add ./myapp && fairway up`.",
)
@click.option(
    "-C",
    "--project",
    type=click.Path(file_okay=False),
    envvar="FAIRWAY_PROJECT",
    help="Project folder; else the nearest one upward with compose/app-registry or .fairway.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context, project: str | None) -> None:
    """Host small backends in Go, Python, Node.js and C# behind one door."""
    ctx.obj = project


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status.

    Args:
        argv: Arguments without the program's name; None takes `sys.argv`.
    """
    # Imports make objects by the ten thousand, and none of them is garbage: by default the collector looks at them
    # once every 700.
    gc.set_threshold(20_000, 20, 50)
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; errors become one sentence on stderr, never a traceback."""
    arguments: list[str] | None = None if argv is None else list(argv)
    try:
        result: Any = cli.main(args=arguments, prog_name="fairway", standalone_mode=False)
    except BaseException as error:
        return exits.report(error)
    return result if isinstance(result, int) else 0
