"""`fairway serve event-bus`: the event bus with its HTTP API alone, without a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fairway.cli.service import ServiceConfig
    from fairway.events import Retention

_FIELDS = {"store": str, "retention": Any}  # Retention reads its own part


@click.command("event-bus")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file; options go before it.")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve; default 127.0.0.1:7070.")
@click.option(
    "--store", metavar="URL", help="sqlite:///file, redis://host/0 or memory://; default sqlite:///events.db."
)
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token that callers need.")
def event_bus(config: Path | None, listen: str | None, store: str | None, token_file: Path | None) -> None:
    """Serve an event bus over HTTP, without a registry."""
    import asyncio

    import uvloop

    from fairway.cli.service import ServiceConfig
    from fairway.events import Retention
    from fairway.platform.services import event_retention
    from fairway.telemetry import log

    log.configure()
    told = ServiceConfig.read(config, _FIELDS, listen, token_file)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        kept = Retention.parse(told.values["retention"]) if "retention" in told.values else event_retention()
        runner.run(_serve(told, str(store or told.values.get("store") or "sqlite:///events.db"), kept))


async def _serve(config: ServiceConfig, url: str, retention: Retention) -> None:
    from fairway.api.app import Services
    from fairway.cli.service import serving
    from fairway.events import EventBus

    async with (
        EventBus(url, retention=retention) as bus,
        serving(config, Services(events=bus), "event-bus", url) as ctx,
    ):
        await ctx.done().recv_ok()
        bus.end_subscriptions()  # else the server waits for its streams, and cuts them
