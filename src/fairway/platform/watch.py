"""Watches the registry's folder and has it read again when a file in it has changed."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.concurrency import SharedChan, select
from fairway.errors import FairwayError
from fairway.platform.look import SUFFIXES, Look, look
from fairway.telemetry import log

if TYPE_CHECKING:
    from fairway.concurrency import Context

_QUIET_MS = 300  # an editor writes a file in several steps: one reload for all of them
_STEP_MS = 150  # how often the watcher's thread looks whether the burst is over
_ERROR_PAUSE = 5.0


async def watch_registry(ctx: Context, folder: Path, since: Look, reload: Callable[[], Awaitable[None]]) -> None:
    """Call `reload` after every change below `folder` until `ctx` is done; a reload that fails is logged, not raised.

    Args:
        ctx: Ends it.
        folder: Folder of registry files.
        since: A `look` from before the folder was read: what has changed between that and this call counts too.
        reload: What to do.
    """
    changes: SharedChan[int] = SharedChan(1)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, since, changes, stop), name="registry watch", daemon=True)
    watcher.start()
    try:
        while True:
            match await select(ctx.done().on_recv(), changes.on_recv()):
                case 0, _, _:
                    return
                case 1, _, False:
                    return
            try:
                await reload()
            except FairwayError as error:
                log.get("platform").error("registry is not read again", error=str(error), code=error.code)
    finally:
        stop.set()


def _watch(folder: Path, since: Look, changes: SharedChan[int], stop: threading.Event) -> None:
    """The thread: file-system events into the channel; a full channel means that a reload is due already."""
    from watchfiles import watch

    missed = True
    while not stop.is_set():
        try:
            for batch in watch(
                folder, stop_event=stop, debounce=_QUIET_MS, step=_STEP_MS, rust_timeout=1000, raise_interrupt=False,
                watch_filter=None, recursive=False, yield_on_timeout=True,
            ):  # fmt: skip
                # From the first turn on the kernel tells; what came before is seen by comparison.
                if missed and look(folder) != since and not batch:
                    changes.try_send(0)
                missed = False
                if any(path.endswith(SUFFIXES) for _, path in batch):
                    changes.try_send(len(batch))
        except (OSError, RuntimeError) as error:
            log.get("platform").warning("registry folder cannot be watched", folder=str(folder), error=str(error))
            stop.wait(_ERROR_PAUSE)
