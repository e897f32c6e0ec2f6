"""What commands print: plain tables, JSON, colours that vanish where nobody sees them. Light on purpose: no Rich."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click

_SGR = re.compile(r"\x1b\[[0-9;]*m")
_STATE_COLOURS = {
    "running": "green",
    "healthy": "green",
    "current": "green",
    "done": "green",
    "ok": "green",
    "starting": "yellow",
    "building": "yellow",
    "degraded": "yellow",
    "blocked": "yellow",
    "backoff": "yellow",
    "stale": "yellow",
    "failed": "red",
    "unhealthy": "red",
    "exited": "red",
    "missing": "red",
}


def coloured(stream: TextIO | None = None) -> bool:
    """Say whether colours are wanted on `stream` (stdout): a terminal, and neither NO_COLOR nor TERM=dumb."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    target = stream if stream is not None else sys.stdout
    return target.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
    """Return `text` in a colour, or as it is where colours are not wanted."""
    if not coloured():
        return text
    return click.style(text, fg=colour, bold=bold or None, dim=dim or None)


def state(name: str) -> str:
    """Return the name of a state in its colour."""
    return paint(name, _STATE_COLOURS.get(name))


def as_json(value: Any) -> None:
    """Print `value` as JSON, indented for a reader and stable for a program."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: columns as wide as their widest cell."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [width(heading) for heading in headings]
    for row in cells:
        widths = [max(have, width(cell)) for have, cell in zip(widths, row, strict=True)]
    click.echo(_line([paint(heading, dim=True) for heading in headings], widths))
    for row in cells:
        click.echo(_line(row, widths))


def width(text: str) -> int:
    """Return how many columns `text` takes on a terminal, colours not counted."""
    plain = _SGR.sub("", text)
    if plain.isascii():
        return len(plain)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in plain
    )


def printable(text: str) -> str:
    """Return `text` on one line without control characters; colours that `paint` made stay."""
    from fairway.logs.escape import neutralise

    return neutralise(text.replace("\n", " "), colours=True)


def told_of(app: str, message: str, *, colour: str | None = None) -> None:
    """Print a message of several lines about an app, whose name comes first and once."""
    first, *rest = message.removeprefix(f"{app}: ").splitlines() or [""]
    click.echo(f"{paint(app, colour, bold=True)}: {printable(first)}")
    for line in rest:
        click.echo(f"  {printable(line)}")


def ago(then: float | None, now: float) -> str:
    """Return how long ago a Unix time is, in the largest fitting unit: ``5s``, ``12m``, ``3h``, ``8d``; - for None."""
    if then is None:
        return "-"
    seconds = max(0.0, now - then)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def size(count: int | None) -> str:
    """Return bytes as ``512 B``, ``34 MiB``; - for None."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def columns() -> int:
    """Return the terminal's width."""
    return shutil.get_terminal_size((100, 24)).columns


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (wide - width(cell)) for cell, wide in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip()
