"""A command as a value: planners return it, `fairway.run` executes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec


class Command(msgspec.Struct, frozen=True):
    """What to execute, never through a shell.

    Attributes:
        argv: Program and arguments, at least one.
        env: Variables added to the environment that the executor builds; values may be secrets and are never printed.
        cwd: Absolute working directory, or None for the executor's choice.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    cwd: Path | None = None

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("expected a command of at least one word, got an empty one")

    def __str__(self) -> str:
        return shlex.join(self.argv)

    def __repr__(self) -> str:
        # Values of env may be secrets: only their names are shown.
        return f"<Command {shlex.join(self.argv)!r} env={sorted(self.env)} cwd={str(self.cwd) if self.cwd else None}>"
