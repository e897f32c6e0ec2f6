"""Reads the command line of a daemon without Click, where that is plain: loading Click keeps every app waiting.

Plain are the flags that say where to listen and which apps to start, spelled out and right. Whatever else there is,
a wrong value or a flag that is not known here, is left to `fairway.cli.up`, which reads all of it again: nothing is
refused here, and nothing is read in another way than there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from fairway.cli import exits, project
from fairway.cli.upoptions import MOST_WORKERS, UpOptions, parse_address, parse_share


def _parse_workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_WORKERS:
        raise ValueError(text)
    return int(text)


_VALUES: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "--listen": ("listen", parse_address),
    "--api": ("api", parse_address),
    "--workers": ("workers", _parse_workers),
    "--access-log": ("access_log", parse_share),
}
_SWITCHES: Final = {"--watch": ("watch", True), "--no-watch": ("watch", False), "--background": ("background", True)}


def read(arguments: Sequence[str]) -> tuple[str | None, UpOptions] | None:
    """Return the folder of the project, where one is named, and the flags of ``up``; None where they are not plain.

    Args:
        arguments: Without the program's name.
    """
    words = list(arguments)
    named = os.environ.get("FAIRWAY_PROJECT") or None
    if words[:1] in (["-C"], ["--project"]):
        named, words = (words[1] if len(words) > 1 else ""), words[2:]
    if words[:1] != ["up"] or "_FAIRWAY_COMPLETE" in os.environ or (named is not None and not os.path.isdir(named)):
        return None
    told = _flags(words[1:])
    return None if told is None else (named, UpOptions(**told))


def _flags(words: list[str]) -> dict[str, Any] | None:
    told: dict[str, Any] = {}
    apps: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            apps += words
            break
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            apps.append(word)
        elif word in _SWITCHES:
            field, switch = _SWITCHES[word]
            told[field] = switch
        elif name in _VALUES and (equals or (words and not words[0].startswith("-"))):
            field, parse = _VALUES[name]
            try:
                told[field] = parse(value if equals else words.pop(0))
            except ValueError:
                return None
        else:
            return None
    if not all(apps):
        return None
    return {**told, "apps": tuple(apps)}


def run(arguments: Sequence[str]) -> int | None:
    """Run the daemon and return its exit status; None where the arguments are not plain, and nothing was done."""
    plain = read(arguments)
    if plain is None:
        return None
    named, told = plain
    try:
        from fairway.cli.starting import start

        return start(project.find(named), told)
    except BrokenPipeError:
        return exits.reader_left()
    except BaseException as error:
        return exits.report(error)
