"""What is wrong with a registry file, as a value: where, what was expected, what came, and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple

import msgspec

from fairway.errors import FairwayError

MAX_BYTES = 256 * 1024
"""Largest registry file."""


class Mark(NamedTuple):
    """A place in a file: `line` and `column` count from 1."""

    line: int
    column: int


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with one registry file. The app is left out; the others go on.

    Attributes:
        file: The registry file.
        mark: Line and column, or None where the file as a whole is meant.
        field: Path of the field, such as ``backend.port``, or an empty string.
        message: What was expected and what came; printable, one line.
        hint: The way out, such as the nearest valid field, or an empty string.
        code: Stable and dotted, such as ``registry.unknown_field``.
        app: Name of the app, where it could be read.
    """

    file: Path
    mark: Mark | None
    field: str
    message: str
    hint: str = ""
    code: str = "registry.invalid"
    app: str | None = None

    def render(self, base: Path | None = None) -> str:
        """Return ``FILE:LINE:COLUMN: FIELD: MESSAGE. HINT``, the file relative to `base` where it is below it."""
        file = self.file
        if base is not None and file.is_relative_to(base):
            file = file.relative_to(base)
        place = f"{file}:{self.mark.line}:{self.mark.column}" if self.mark else str(file)
        parts = [place, self.field, self.message] if self.field else [place, self.message]
        return ": ".join(parts) + (f". {self.hint}" if self.hint else "")

    def __str__(self) -> str:
        return self.render()


class Complaint(msgspec.Struct, frozen=True):
    """A problem without its file."""

    mark: Mark | None
    field: str
    message: str
    hint: str = ""
    code: str = "registry.invalid"


class DocumentError(Exception):
    """The file is no document that Fairway reads. `code` and `mark` say which rule and where."""

    def __init__(self, message: str, mark: Mark | None, code: str = "registry.yaml", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark
        self.code = code
        self.hint = hint


class RegistryError(FairwayError):
    """The registry as a whole cannot be read or written."""

    code = "registry.unreadable"
    default_hint: ClassVar[str] = ""


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return ``Did you mean `X`?`` for the most similar valid word, or an empty string where none is similar."""
    import difflib

    close = difflib.get_close_matches(word[:60].lower(), sorted(valid), n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else ""


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``Did you mean `X`?`` for the most similar valid word, else the list of what is valid.

    >>> nearest("prot", ["port", "path", "domain"])
    'Did you mean `port`?'
    """
    names = sorted(valid)
    return suggestion(word, names) or f"Valid here: {', '.join(names)}"


def shown(text: str, limit: int = 60) -> str:
    """Return text from a hostile file for a message: quoted, cut, everything unprintable or not ASCII escaped."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return ascii(cut).replace("\\u2026", "…")
