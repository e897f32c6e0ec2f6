"""`fairway serve job-queue`: the job store with its HTTP API alone, without a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class _Sections:
    """Reads the service's configuration file."""

    KNOWN = frozenset({"listen", "store", "token_file", "max_payload", "queues", "tasks"})

    def __init__(self, path: Path | None) -> None:
        from fairway.errors import FairwayError

        values: Any = {}
        if path is not None:
            import yaml

            try:
                values = (
                    yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
                )
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise FairwayError(f"cannot read {path}: {error}", code="cli.usage") from error
        if not isinstance(values, dict) or set(values) - self.KNOWN:
            known = ", ".join(sorted(self.KNOWN))
            unknown = (
                sorted(map(str, set(values) - self.KNOWN)) if isinstance(values, dict) else [type(values).__name__]
            )
            raise FairwayError(f"{path}: expected the fields {known}, got {', '.join(unknown)}", code="cli.usage")
        self.values: dict[str, Any] = values

    def get(self, name: str, option: Any, default: Any) -> Any:
        """Return the command line's value, else the file's, else the default."""
        return option if option is not None else self.values.get(name, default)


@click.command("job-queue")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="YAML file; options go before it.")
@click.option("--listen", metavar="HOST:PORT", help="Where to serve; default 127.0.0.1:7070.")
@click.option("--store", metavar="URL", help="sqlite:///file, redis://host/0 or memory://; default sqlite:///jobs.db.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token that callers need.")
def job_queue(config: Path | None, listen: str | None, store: str | None, token_file: Path | None) -> None:
    """Serve a job store over HTTP, without a registry."""
    import asyncio

    import uvloop

    from fairway.errors import FairwayError
    from fairway.telemetry import log

    log.configure()
    told = _Sections(config)
    host, _, port = str(told.get("listen", listen, "127.0.0.1:7070")).rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise FairwayError(f"expected listen as HOST:PORT, got {told.get('listen', listen, '')!r}", code="cli.usage")
    path = told.get("token_file", token_file, None)
    token = None if path is None else Path(path).read_text(encoding="utf-8").strip()
    if token is None and host.strip("[]") not in {"127.0.0.1", "::1", "localhost"}:
        raise FairwayError(f"expected a token_file for listening on {host}, which others can reach", code="cli.usage")
    url = str(told.get("store", store, "sqlite:///jobs.db"))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(host.strip("[]"), int(port), url, token, told.values))


async def _serve(host: str, port: int, url: str, token: str | None, values: dict[str, Any]) -> None:
    import signal

    from fairway.api.app import Services, create_app
    from fairway.api.guard import GuardPolicy
    from fairway.api.server import serve
    from fairway.concurrency import notify_context
    from fairway.jobs.service import JobService
    from fairway.jobs.store import StoreOptions, open_store
    from fairway.jobs.tasks import load_tasks
    from fairway.telemetry import log

    options = StoreOptions(max_payload=int(values.get("max_payload", 1_048_576)))
    tasks = load_tasks(values["tasks"]) if values.get("tasks") else None
    async with notify_context(signal.SIGINT, signal.SIGTERM) as ctx:
        async with JobService(open_store(url, options), tasks=tasks, queues=values.get("queues")) as service:
            policy = GuardPolicy(token=token, hosts=frozenset({host}))
            async with serve(create_app(Services(jobs=service), policy=policy), host=host, port=port) as bound:
                log.get("job-queue").info("ready", url=f"http://{bound[0]}:{bound[1]}", store=url)
                await ctx.done().recv_ok()
                service.drain()
