"""Exit statuses: the one place where errors become numbers and sentences on stderr."""

from __future__ import annotations

import errno
import os
import sys

from fairway.errors import FairwayError

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
CONFLICT = 5
DENIED = 6
INTERRUPTED = 130

# Longest matching prefix of the error's code wins.
STATUSES: dict[str, int] = {
    "registry": USAGE,
    "logs": USAGE,
    "health": USAGE,
    "request": USAGE,
    "cli.usage": USAGE,
    "cli.no_project": USAGE,
    "cli.unreachable": UNREACHABLE,
    "app.unknown": NOT_FOUND,
    "release.unknown": NOT_FOUND,
    "daemon.already_running": CONFLICT,
    "daemon.port_taken": CONFLICT,
    "daemon.conflict": CONFLICT,
    "app.stopped": CONFLICT,
    "daemon.state_dir": DENIED,
    "platform.invalid": USAGE,
    "auth": DENIED,
    "proxy.option_invalid": USAGE,
    "events.invalid": USAGE,
    "events.invalid_topic": USAGE,
    "events.payload_too_large": USAGE,
    "events.unknown_group": NOT_FOUND,
    "events.store_unavailable": UNREACHABLE,
    "jobs.not_found": NOT_FOUND,
    "jobs.queue_not_found": NOT_FOUND,
    "jobs.schedule_not_found": NOT_FOUND,
    "jobs.invalid": USAGE,
    "jobs.payload_too_large": USAGE,
    "jobs.unknown_kind": USAGE,
    "jobs.unknown_queue": USAGE,
    "jobs.module": USAGE,
    "jobs.store_url": USAGE,
    "jobs.store_unavailable": UNREACHABLE,
    "jobs.store_owned": CONFLICT,
    "jobs.conflict": CONFLICT,
}


# A file where a folder belongs, a folder where a file belongs, a disk that is mounted read-only.
_NOT_WRITABLE = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EROFS})


def status_of(code: str) -> int:
    """Return the exit status of an error's dotted code: that of the longest known prefix, else 1."""
    parts = code.split(".")
    for end in range(len(parts), 0, -1):
        status = STATUSES.get(".".join(parts[:end]))
        if status is not None:
            return status
    return FAILED


def report(error: BaseException) -> int:
    """Print `error` as one sentence and its fix on stderr and return the exit status; re-raise what is a bug."""
    import click  # a daemon that ends well has no need of it

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, FairwayError):
        _say(error.message, error.hint)
        return status_of(error.code)
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show(file=sys.stderr)
        return error.exit_code
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "fairway"
        said = error.format_message().replace("integer range", "whole number").replace("float range", "number")
        _say(said, f"`{path} --help` says how to call it.")
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show(file=sys.stderr)
        return error.exit_code
    if isinstance(error, PermissionError):
        _say(f"No permission for {error.filename or 'a file'}.", "Check its owner and mode, or use another --project.")
        return DENIED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _say(f"No space left on the disk{f' for {error.filename}' if error.filename else ''}.", "Free some space.")
        return FAILED
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
        _say(f"{error.filename or 'A file'} cannot be used: {error.strerror}.", "Remove it, or use another --project.")
        return DENIED
    return _bug(error)


def reader_left() -> int:
    """Return the status for a reader that has what it wanted, as in `fairway logs | head`.

    Nothing may be flushed into the broken pipe at exit, so stdout leads nowhere from here on.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def _say(message: str, hint: str) -> None:
    import click

    from fairway.cli.output import coloured

    colours = coloured(sys.stderr)
    click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=colours)
    click.echo(message, err=True)
    if hint:
        click.secho("  fix: ", fg="cyan", nl=False, err=True, color=colours)
        click.echo(hint, err=True)


def _bug(error: BaseException) -> int:
    """Say that this is Fairway's fault; the traceback only where FAIRWAY_DEBUG asks for it."""
    if os.environ.get("FAIRWAY_DEBUG"):
        import traceback

        traceback.print_exception(error)
    _say(
        f"Fairway failed unexpectedly: {type(error).__name__}: {error}",
        "Run it again with FAIRWAY_DEBUG=1 for the traceback and report it.",
    )
    return FAILED
