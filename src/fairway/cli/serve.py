"""`fairway serve SERVICE`: one service alone, without a registry.

A new service is one line in `SERVICES`; its module is imported only when it runs.
"""

from __future__ import annotations

from importlib import import_module

import click

# service -> (module, attribute)
SERVICES: dict[str, tuple[str, str]] = {
    "event-bus": ("fairway.cli.serve_events", "event_bus"),
    "job-queue": ("fairway.cli.serve_jobs", "job_queue"),
    "reverse-proxy": ("fairway.cli.serve_proxy", "reverse_proxy"),
}


class ServiceGroup(click.Group):
    """A Click group over `SERVICES`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the services' names."""
        return list(SERVICES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one service's command."""
        if cmd_name not in SERVICES:
            return None
        module, attribute = SERVICES[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=ServiceGroup)
def serve() -> None:
    """Run one service alone, without a registry."""
