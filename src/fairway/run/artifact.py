"""What a build leaves on disk: ``builds/APP/KEY`` with the source copy, the output and a record of the start.

A build is there when its record is: `build.json` is written last, by a rename. A folder without one was left by a
build that was killed, and is removed by the next.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fairway.build.plan import Built, Kind, Tool
from fairway.command import Command

FILE = "build.json"
FORMAT = 1
COMPLETE = ".fairway-complete"  # in a Python environment; `fairway.run.release` looks at its time when it prunes
_MAX_PROGRAMS = 5000


class StoredCommand(msgspec.Struct, frozen=True):
    """A `Command` as JSON."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str | None = None

    @classmethod
    def of(cls, command: Command) -> StoredCommand:
        """Return the JSON form of a command."""
        return cls(command.argv, dict(command.env), str(command.cwd) if command.cwd else None)

    def command(self) -> Command:
        """Return the command."""
        return Command(self.argv, self.env, Path(self.cwd) if self.cwd else None)


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finished build.

    Attributes:
        format: Version of this record.
        kind: What built it.
        key: Digest of the content, the entry's build settings and Fairway's planners.
        processes: Start commands by name.
        before: Command that runs once before the release takes traffic, or None.
        env: Conventions that tell frameworks where to listen.
        environment: Folder of its Python environment, or None.
        programs: Programs that the start needs, with their stamp: one that is gone or replaced makes the build stale.
        log: Path of the build log, or None.
        stop: Command that ends an instance well, or None where SIGTERM does.
        clear: Command that removes what an engine still has of an ended instance, or None.
    """

    format: int
    kind: Kind
    key: str
    processes: dict[str, StoredCommand]
    before: StoredCommand | None
    env: dict[str, str]
    environment: str | None
    programs: dict[str, str]
    log: str | None
    stop: StoredCommand | None = None
    clear: StoredCommand | None = None

    def startable(self) -> bool:
        """Say whether every program that the start needs is still the one that was there."""
        return all(program_stamp(path) == stamp for path, stamp in self.programs.items())


def program_stamp(path: str) -> str | None:
    """Return what changes when a program is replaced: real path, size, modification time; None where it is gone."""
    try:
        real = os.path.realpath(path)
        info = os.stat(real)
    except OSError:
        return None
    return f"{real}:{info.st_size}:{info.st_mtime_ns}" if os.access(real, os.X_OK) else None


def is_complete(environment: Path) -> bool:
    """Say whether a Python environment is whole and its interpreter still there."""
    return (environment / COMPLETE).exists() and (environment / "bin" / "python").exists()


def load_record(folder: Path) -> BuildRecord | None:
    """Return the record of a build folder, or None where there is no finished build of this format."""
    try:
        record = msgspec.json.decode((folder / FILE).read_bytes(), type=BuildRecord)
    except (OSError, msgspec.MsgspecError):
        return None
    return record if record.format == FORMAT else None


def save_record(folder: Path, record: BuildRecord) -> None:
    """Write a record, 0600; the build exists from here on."""
    staged = folder / f".{FILE}.new"
    staged.unlink(missing_ok=True)
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    staged.rename(folder / FILE)


def stamps(commands: list[Command], tools: list[Tool]) -> dict[str, str]:
    """Return the stamps of the programs that commands start and of the toolchains behind them."""
    paths = {c.argv[0] for c in commands} | {t.path for t in tools}
    return {p: stamp for p in sorted(paths) if (stamp := program_stamp(p)) is not None}


def inspect(source: Path, output: Path, environment: Path | None) -> Built:
    """Return what the install and build commands left behind."""
    programs: dict[str, Path] = {}
    scripts: set[str] = set()
    if environment is not None:
        for entry in _listed(environment / "bin"):
            programs[entry.name] = entry
    for entry in _listed(source / "node_modules" / ".bin"):
        target = entry.resolve()
        if not target.is_file():
            continue
        programs[entry.name] = target
        if _is_node_script(target):
            scripts.add(entry.name)
    return Built(programs, frozenset(scripts), frozenset(e.name for e in _listed(output)))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_MAX_PROGRAMS]
    except OSError:
        return []


def _is_node_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError:
        return False
    return b"node" in first if first.startswith(b"#!") else path.suffix in (".js", ".cjs", ".mjs")
