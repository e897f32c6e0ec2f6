"""The log files that there are, for whoever asks every second."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.platform.layout import Layout, LogFile

_SETTLED_NS = 2_000_000_000  # a change of names can fall into the same tick of the file system's clock as one before


class LogFiles:
    """Lists every log file, as `Layout.log_files` does, but reads an app's folder only when names in it have changed.

    Apps that are restarted often have dozens of files of ended instances, and a folder's own time tells when one comes
    or goes. A folder that changed a moment ago is read again all the same.

    Args:
        layout: Whose files.
    """

    __slots__ = ("_folder", "_found", "_known", "_layout")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = os.fspath(layout.logs)  # a text: this is asked every second, of every app
        self._known: dict[str, tuple[int, list[LogFile]]] = {}
        self._found: tuple[LogFile, ...] = ()

    def __call__(self) -> tuple[LogFile, ...]:
        """Return every log file that exists, ascending by app, process and number.

        It is the very tuple of the call before, for whoever only looks whether there is anything new, where there is
        nothing new.
        """
        known, self._known = self._known, {}
        found: list[LogFile] = []
        fresh = False
        try:
            apps = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            self._found = ()
            return self._found
        for app in apps:
            try:
                changed = os.stat(f"{self._folder}/{app}").st_mtime_ns
            except FileNotFoundError:
                continue  # an app that was removed just now
            before = known.get(app)
            if before is not None and before[0] == changed:
                self._known[app] = before
                found += before[1]
                continue
            fresh = True
            asked = time.time_ns()
            files = self._layout.log_files(app)
            if asked - changed > _SETTLED_NS:
                self._known[app] = changed, files
            found += files
        if fresh or len(found) != len(self._found) or self._known.keys() != known.keys():
            self._found = tuple(found)
        return self._found

    def __repr__(self) -> str:
        return f"<LogFiles of {len(self._known)} folders at rest>"
