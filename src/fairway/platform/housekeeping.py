"""What has to be looked after now and then: orphans, the logs' disk, and control groups of what is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.concurrency import Ticker, select
from fairway.platform.logbudget import Budget, relieve
from fairway.run import cgroup
from fairway.run.reaper import Reaper
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context
    from fairway.platform.host import Host
    from fairway.platform.instance import Instance

INTERVAL = 15.0


async def keep_house(
    ctx: Context, host: Host, instances: Callable[[], Iterable[Instance]], budget: Budget | None = None
) -> None:
    """Look after the machine every `INTERVAL` seconds until `ctx` is done.

    Args:
        ctx: Ends it.
        host: The machine.
        instances: Every instance there is now.
        budget: Disk that logs may take; None for the default.
    """
    reaper = Reaper()
    ticker = Ticker(INTERVAL)
    try:
        while True:
            match await select(ctx.done().on_recv(), ticker.on_recv()):
                case 0, _, _:
                    return
            live = list(instances())
            reaper.sweep({i.process.pid for i in live if i.process is not None})
            rows = host.state.instances()
            cgroup.sweep(host.hierarchies, frozenset(f"{r.app}.{r.process}.{r.number}.{r.restarts}" for r in rows))
            freed = await asyncio.to_thread(relieve_all, host, {i.log for i in live}, budget or Budget())
            if freed:
                log.get("platform").info("log space given back", bytes=freed)
    finally:
        ticker.stop()


def relieve_all(host: Host, live: set[Path], budget: Budget) -> int:
    """Bring the log files of every app into the budget; returns the bytes that were given back."""
    freed = 0
    files = host.layout.log_files()
    for app in {f.app for f in files}:
        own = [f for f in files if f.app == app]
        # The daemon's and the door's files have no instance, and are always written to.
        writing = {f.path for f in own} if app.startswith("_") else live
        freed += relieve(sorted(own, key=lambda f: f.path.stat().st_mtime if f.path.exists() else 0.0), writing, budget)
    return freed
