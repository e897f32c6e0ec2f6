"""`fairway serve job-queue`: the job store with its HTTP API alone, without a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from msgspec import Meta

if TYPE_CHECKING:
    from fairway.cli.service import ServiceConfig

_FIELDS = {
    "store": str,
    "max_payload": Annotated[int, Meta(ge=1, le=1 << 30)],
    "queues": list[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]] | None,
    "tasks": str | None,
}


@click.command("job-queue")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file; options go before it.")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve; default 127.0.0.1:7070.")
@click.option("--store", metavar="URL", help="sqlite:///file, redis://host/0 or memory://; default sqlite:///jobs.db.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token that callers need.")
def job_queue(config: Path | None, listen: str | None, store: str | None, token_file: Path | None) -> None:
    """Serve a job store over HTTP, without a registry."""
    import asyncio

    import uvloop

    from fairway.cli.service import ServiceConfig
    from fairway.telemetry import log

    log.configure()
    told = ServiceConfig.read(config, _FIELDS, listen, token_file)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(told, str(store or told.values.get("store") or "sqlite:///jobs.db")))


async def _serve(config: ServiceConfig, url: str) -> None:
    from fairway.api.app import Services
    from fairway.cli.service import serving
    from fairway.jobs.opening import open_store
    from fairway.jobs.service import JobService
    from fairway.jobs.store import StoreOptions
    from fairway.jobs.tasks import load_tasks

    values = config.values
    options = StoreOptions(max_payload=int(values.get("max_payload", 1_048_576)))
    tasks = load_tasks(values["tasks"]) if values.get("tasks") else None
    async with JobService(open_store(url, options), tasks=tasks, queues=values.get("queues")) as service:
        async with serving(config, Services(jobs=service), "job-queue", url) as ctx:
            await ctx.done().recv_ok()
            service.drain()
