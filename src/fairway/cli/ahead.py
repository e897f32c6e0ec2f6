"""What `fairway up` has on its way before its own command line is loaded: a worker of the door.

It takes a worker as long to load itself as the command line takes, on a processor that is idle meanwhile. So where the
arguments are plainly those of a daemon, and the last one of this project has ended in order, a spare worker is started
first; the daemon gives it its orders (`fairway.platform.doorplan`), or none, and then it ends. Nothing here decides
anything or says anything: what is wrong with the arguments or the project is the command's to tell. And nothing here
imports what takes time.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairway.run.spare import Spare

_NOT_THE_DAEMON = frozenset({"-d", "--detach", "-h", "--help", "--json"})
_NAMES_A_PROJECT = (["-C"], ["--project"])

_waiting: list[Spare] = []  # one at most, from the first line of the process to the opening of the daemon


def means_a_daemon(arguments: Sequence[str]) -> bool:
    """Say whether `arguments`, without the program's name, are plainly those of a daemon in this process."""
    words = list(arguments)
    if words[:1] in _NAMES_A_PROJECT:
        words = words[2:]
    return words[:1] == ["up"] and _NOT_THE_DAEMON.isdisjoint(words)


def begin(arguments: Sequence[str]) -> None:
    """Start a spare worker where `arguments`, without the program's name, will plainly need one."""
    if not means_a_daemon(arguments):
        return
    named = arguments[1] if [arguments[0]] in _NAMES_A_PROJECT else os.environ.get("FAIRWAY_PROJECT") or None
    from fairway.cli.places import state_folder
    from fairway.platform.owner import door_marker, lock_file

    try:
        root = state_folder(named)
        # A daemon that runs, or that was killed, has left its name there; before the first start there is none.
        if root is None or os.stat(lock_file(root)).st_size > 0:
            return
        marker = door_marker(root, 0)
    except (OSError, ValueError):  # no lock yet; or no current folder, or a path that is no text: the command says so
        return
    from fairway.run.spare import Spare

    try:
        _waiting.append(Spare(marker))
    except (OSError, NotImplementedError):  # no `setsid` in posix_spawn (macOS): the daemon starts one as always
        return


def take_spare() -> Spare | None:
    """Return the spare worker, once; it is the caller's to order or to close."""
    return _waiting.pop() if _waiting else None
