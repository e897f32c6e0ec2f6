"""The daemon in this process: its log, its opening, its end by Ctrl-C. What it serves is `fairway.cli.faces`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from fairway.cli import exits
from fairway.cli.project import Project

if TYPE_CHECKING:
    from fairway.platform.config import DaemonConfig


def run(project: Project, config: DaemonConfig, *, background: bool) -> int:
    """Run the daemon until it is told to end; return the exit status.

    Args:
        project: Whose daemon.
        config: How it runs.
        background: Started by `up -d`: everything goes to the daemon's log as JSON, nothing to a terminal.
    """
    held = _Held()
    try:
        _run(project, config, held, background=background)
    except KeyboardInterrupt:
        pass  # one before the daemon listens, or a third that met it as it dropped everything: both end below
    # A second Ctrl-C makes the daemon drop everything where it stands; nothing of it may stay behind, whatever comes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    count = _end_leftovers(project)
    if not background:
        import click

        click.echo(f"Killed {count} processes." if count else "Stopped.")
    return exits.INTERRUPTED if count else exits.OK


def _end_leftovers(project: Project) -> int:
    """End what this daemon has left behind, and return how many processes that were.

    It has given its lock back, or has never held it. Where another daemon holds it, all that runs is that one's.
    """
    from fairway.cli.stopping import stop_leftovers
    from fairway.platform.lock import running_daemon

    return 0 if running_daemon(project.layout.lock) is not None else stop_leftovers(project, grace=0.0)


class _Held:
    """Ctrl-C and SIGTERM until the daemon can listen to them: what was started has to be ended.

    The first one waits until the daemon is loaded: raised in the middle, it would lose the pid of a process that is
    being born, or leave a module half imported. A second one raises at once.
    """

    def __init__(self) -> None:
        self._came = False
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {signal.SIGTERM: _interrupt}
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # what is ignored, as in the background, stays so
            handlers[signal.SIGINT] = signal.default_int_handler  # which asyncio knows, and replaces
        self._handlers = handlers
        for number in handlers:
            signal.signal(number, self._hold)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True

    def release(self) -> None:
        """From here on each raises `KeyboardInterrupt`; so does this, where one came."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._came:
            raise KeyboardInterrupt


def _run(project: Project, config: DaemonConfig, held: _Held, *, background: bool) -> None:
    from fairway.cli.ahead import take_spare
    from fairway.platform.opening import opened

    with opened(config, take_spare()) as opening:
        # Loaded while the door and the apps come up: it takes as long as they do.
        from fairway.telemetry import log

        # The terminal belongs to the progress and the table; the daemon's own lines go where `-d` puts them.
        log.configure(stream=sys.stderr if background else _own_log(project), json=True)
        from fairway.cli.faces import faces
        from fairway.platform.daemon import run as run_daemon

        held.release()
        run_daemon(opening, faces(project, background=background))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _own_log(project: Project) -> TextIO:
    path = project.layout.daemon_log
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return open(file, "a", buffering=1, encoding="utf-8")
    except OSError:
        return sys.stderr  # the daemon is about to say, in its own words, that it cannot write there
