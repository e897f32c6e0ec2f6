"""Live progress of builds and starts: a line an app on a terminal, a line a step elsewhere.

Drawn by hand, in some eighty lines: it runs inside the daemon while `fairway up` is in the foreground, and Rich would
cost that process 10 MiB for good.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from fairway.cli import output

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_WORDS = {
    "queued": "waiting",
    "detect": "looking",
    "toolchain": "toolchain",
    "build": "building",
    "start": "starting",
    "probe": "checking",
    "route": "switching",
    "drain": "draining",
    "done": "ready",
    "failed": "failed",
}


class ProgressView:
    """Shows how far each app is.

    Args:
        stream: Where to; None for stderr.
        live: Redraw in place; None decides by whether `stream` is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, live: bool | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live = output.coloured(self._stream) if live is None else live
        self._apps: dict[str, tuple[str, str, float, float]] = {}  # phase, message, begun, ended
        self._drawn = 0
        self._frame = 0

    def update(self, app: str, phase: str, message: str) -> None:
        """Take one step of one app. Without a terminal a new phase is a line; with one, `draw` shows every step."""
        now = time.monotonic()
        known = self._apps.get(app)
        begun = known[2] if known is not None and known[0] not in {"done", "failed"} else now
        message = output.printable(message)
        self._apps[app] = (phase, message, begun, now if phase in {"done", "failed"} else 0.0)
        if not self._live and (known is None or known[0] != phase):
            word = _WORDS.get(phase, phase)
            self._stream.write(f"{app}: {word}{f': {message}' if message else ''}\n")
            self._stream.flush()

    def draw(self) -> None:
        """Redraw in place; call it about ten times a second."""
        if not self._live or not self._apps:
            return
        self._frame += 1
        name_width = max(output.width(name) for name in self._apps)
        lines = [self._line(name, name_width) for name in sorted(self._apps)]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write("\x1b[?25l" + up + "".join(f"\r\x1b[2K{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def finish(self) -> None:
        """Draw the last state and give the cursor back."""
        if self._live:
            self.draw()
            self._stream.write("\x1b[?25h")
            self._stream.flush()
            self._drawn = 0
            self._apps.clear()

    def _line(self, name: str, name_width: int) -> str:
        phase, message, begun, ended = self._apps[name]
        seconds = (ended or time.monotonic()) - begun
        mark = {"done": "✓", "failed": "✗"}.get(phase) or _SPINNER[self._frame % len(_SPINNER)]
        word = _WORDS.get(phase, phase)
        head = f"{mark} {name.ljust(name_width)}  {word.ljust(9)} {seconds:5.1f}s  "
        room = max(0, output.columns() - output.width(head) - 1)
        shown = message if output.width(message) <= room else message[: max(0, room - 1)] + "…"
        colour = {"done": "32", "failed": "31"}.get(phase, "36")
        return f"\x1b[{colour}m{head[:2]}\x1b[0m{head[2:]}\x1b[2m{shown}\x1b[0m"
