"""`fairway worker MODULE`: run the tasks of a module until told to stop."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fairway.concurrency import Context
    from fairway.jobs.store import Store
    from fairway.jobs.tasks import Tasks
    from fairway.jobs.worker import WorkerConfig


@click.command()
@click.argument("module")
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="Queue to work on, asked first WEIGHT times as often; repeatable. Default: default.",
)
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Jobs at once."
)
@click.option(
    "--prefetch", type=click.IntRange(0, 10_000), default=512, show_default=True, help="Short jobs held ahead."
)
@click.option("--lease", "lease_s", type=float, default=30.0, show_default=True, metavar="SECONDS", help="Lease.")
@click.option("--grace", "grace_s", type=float, default=10.0, show_default=True, metavar="SECONDS", help="Drain time.")
@click.option("--name", default="", help="Name in the store; default is host and process id.")
@click.option(
    "--url",
    envvar="FAIRWAY_URL",
    metavar="URL",
    help="Daemon (http://host:port) or store (sqlite:///file, redis://host/0); default is this project's daemon.",
)
def worker(module: str, queues: tuple[str, ...], url: str | None, **options: Any) -> int:
    """Run the tasks of MODULE (package.module or package.module:tasks) until SIGTERM, then drain.

    A drain claims no more, hands back what has not begun, and gives running jobs --grace seconds; what is left then is
    handed back too. A second signal ends the worker at once.
    """
    from fairway.jobs.tasks import load_tasks
    from fairway.jobs.worker import WorkerConfig
    from fairway.telemetry import log

    log.configure()
    # As `python -m` has it: modules beside the caller are found.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    config = WorkerConfig(queues=_weights(queues), **options)
    config.check()
    tasks = load_tasks(module)
    status = _run(_serve(url or _project_url(), tasks, config))
    # Threads that ignored their deadline would keep the interpreter from ending; their jobs were handed back.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _weights(queues: tuple[str, ...]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for given in queues or ("default",):
        name, _, weight = given.partition("=")
        if weight and not (weight.isascii() and weight.isdigit()):
            raise click.BadParameter(
                f"expected NAME or NAME=WEIGHT with a whole number, got {given!r}", param_hint="-q"
            )
        weights[name] = int(weight or 1)
    return weights


def _project_url() -> str:
    from urllib.parse import quote

    from fairway.cli.project import ProjectError, current

    project = current()
    if not project.found:
        raise ProjectError(
            f"There is no project at {project.root} or above, whose daemon would have jobs.",
            hint="Say the project with `fairway -C DIR worker …`, or another daemon or store with --url.",
        )
    return f"http+unix://{quote(str(project.layout.api_socket), safe='')}"


def _run(main: Any) -> int:
    import asyncio

    try:
        import uvloop
    except ImportError:  # not on this platform
        return int(asyncio.run(main))
    return int(uvloop.run(main))


async def _serve(url: str, tasks: Tasks, config: WorkerConfig) -> int:
    import asyncio
    import signal

    from fairway.concurrency import notify_context
    from fairway.jobs.errors import StoreUnavailable
    from fairway.jobs.opening import open_store
    from fairway.jobs.worker import Worker
    from fairway.telemetry import log

    store = open_store(url)
    async with notify_context(signal.SIGINT, signal.SIGTERM) as ctx:
        if not await _open(store, ctx):
            return 0
        running = Worker(store, tasks, config)
        log.get("worker").info(
            "ready", worker=running.name, queues=dict(config.queues), tasks=len(tasks), store=repr(store)
        )

        def force() -> None:
            os._exit(130)

        async def impatience() -> None:
            await ctx.done().recv_ok()
            ctx.stop()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, force)

        second = asyncio.create_task(impatience())
        try:
            await running.run(ctx)
        except StoreUnavailable as error:
            log.get("worker").error("drained without the store", error=str(error))
            return 1
        finally:
            second.cancel()
            await store.close()
        log.get("worker").info("drained", settled=running.statistics().settled)
    return 0


async def _open(store: Store, ctx: Context) -> bool:
    """Open the store, waiting for one that is not there yet; False if the context ended first."""
    import asyncio

    from fairway.concurrency import select
    from fairway.jobs.errors import StoreUnavailable
    from fairway.telemetry import log

    pause = 0.2
    while True:
        try:
            await store.open()
        except StoreUnavailable as error:
            log.get("worker").warning("store not there yet", error=str(error), again_in_s=round(pause, 1))
        else:
            return True
        chosen, _, _ = await select(ctx.done().on_recv(), timeout=pause)
        if chosen == 0:
            return False
        pause = min(5.0, pause * 2)
        await asyncio.sleep(0)
