"""A release: one built state of one app with its environment, ready to start, kept on disk for rollback.

Layout of the state folder, all of it private to the owner (0700, files that hold values 0600):

    releases/APP/ID/release.json     what this module reads and writes
    builds/APP/DIGEST/               the built tree; several releases (say, with another environment) may share it
    venvs/DIGEST/                    a Python environment, shared by equal dependency files

A release appears by one rename of a finished folder, so that a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from fairway.command import Command
from fairway.errors import FairwayError

FORMAT = 1
_DAY = 86400.0
FILE = "release.json"
ReleaseKind = Literal["go", "python", "node", "dotnet", "command", "docker", "compose"]


class ReleaseError(FairwayError):
    """A release folder is missing, of another format, or damaged."""

    code = "release.unreadable"
    default_hint = "Build the app again with `fairway deploy APP`."


class _Process(msgspec.Struct, frozen=True):
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cwd: str | None = None


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    id: str
    app: str
    kind: ReleaseKind
    digest: str
    created_at: float
    build: str
    before: _Process | None = None
    stop: _Process | None = None
    clear: _Process | None = None
    log: str | None
    processes: dict[str, _Process]
    env: dict[str, str]


class _WithEnvironment(msgspec.Struct, frozen=True):
    environment: str | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One startable state of an app. Values of `env` may be secrets: they are stored 0600 and never printed.

    Attributes:
        id: Sorts by time: ``20260131-142501337-9f86d081``, UTC to the millisecond and the start of the digest.
        app: Name of the app.
        directory: The release's own folder, ``releases/APP/ID``.
        processes: Start commands by name, ``web`` first; real programs, never a wrapper that swallows signals.
            The literals ``$PORT`` and ``${PORT}`` in a word stand for the instance's port; `with_port` puts it in.
        env: Variables from `env`, `env_file` and `secrets` of the registry entry, and the conventions by which
            frameworks are told where to listen (they may contain ``$PORT`` too).
        digest: Hex digest over the built content, commands and environment.
        created_at: Seconds since the Unix epoch.
        kind: What built it. Instances of ``docker`` and ``compose`` listen from the engine's processes, not from
            the process that is started.
        build_directory: The built tree that the commands run in; may be shared with other releases.
        log_path: Log of the build, or None where nothing had to be built.
        before: What the builder has run, to its end and with exit status 0, before the release appeared (a
            Procfile's ``release``, such as database migrations), or None.
        stop: Ends an instance for good, or None where SIGTERM does. In it and in `clear`, ``$PORT`` stands for the
            instance's port and the word ``$GRACE`` for the whole seconds that it has.
        clear: Removes what a container engine still has of an instance whose own processes have ended, or None.
        cached: True where `Builder.build` found it built already.
    """

    id: str
    app: str
    directory: Path
    processes: dict[str, Command]
    env: dict[str, str]
    digest: str
    created_at: float
    kind: ReleaseKind
    build_directory: Path
    log_path: Path | None = None
    before: Command | None = None
    stop: Command | None = None
    clear: Command | None = None
    cached: bool = False

    def __repr__(self) -> str:
        return f"<Release {self.app} {self.id} {self.kind} processes={sorted(self.processes)} env={sorted(self.env)}>"

    @property
    def in_container(self) -> bool:
        """Whether an engine's process listens for its instances, not one of their own."""
        return self.kind in {"docker", "compose"}

    @classmethod
    def load(cls, directory: Path) -> Release:
        """Read a release back from its folder, for instance after the daemon was restarted.

        Raises:
            ReleaseError: The folder holds no release of this format.
        """
        path = directory / FILE
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        except OSError as error:
            raise ReleaseError(f"expected a release in {directory}, got: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise ReleaseError(f"expected a release in {path}, got content that is none: {error}") from error
        if stored.format != FORMAT:
            raise ReleaseError(f"expected a release of format {FORMAT} in {path}, got format {stored.format}")
        return cls(
            id=stored.id,
            app=stored.app,
            directory=directory,
            processes={name: _command(p) for name, p in stored.processes.items()},
            before=_command(stored.before) if stored.before else None,
            stop=_command(stored.stop) if stored.stop else None,
            clear=_command(stored.clear) if stored.clear else None,
            env=stored.env,
            digest=stored.digest,
            created_at=stored.created_at,
            kind=stored.kind,
            build_directory=Path(stored.build),
            log_path=Path(stored.log) if stored.log else None,
        )

    def save(self) -> None:
        """Write the release to its folder, atomically: the folder appears whole or not at all.

        Raises:
            ReleaseError: The folder exists already or cannot be written.
        """
        import shutil
        import tempfile

        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=self.directory.parent))
        try:
            _write_private(staged / FILE, msgspec.json.encode(self._stored()))
            staged.rename(self.directory)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise ReleaseError(
                f"expected to write the release {self.directory}, got: {error.strerror}", code="release.unwritable"
            ) from error

    def _stored(self) -> _Stored:
        return _Stored(
            format=FORMAT,
            id=self.id,
            app=self.app,
            kind=self.kind,
            digest=self.digest,
            created_at=self.created_at,
            build=str(self.build_directory),
            log=str(self.log_path) if self.log_path else None,
            processes={name: _process(command) for name, command in self.processes.items()},
            before=_process(self.before) if self.before else None,
            stop=_process(self.stop) if self.stop else None,
            clear=_process(self.clear) if self.clear else None,
            env=self.env,
        )


def _command(stored: _Process) -> Command:
    return Command(stored.argv, MappingProxyType(stored.env), Path(stored.cwd) if stored.cwd else None)


def _process(command: Command) -> _Process:
    return _Process(command.argv, dict(command.env), str(command.cwd) if command.cwd else None)


def with_port(text: str, port: int) -> str:
    """Return a word of a command, or a value of its environment, with ``${PORT}`` and ``$PORT`` replaced.

    ``$PORTAL`` and other names that merely begin so are left alone.

    >>> with_port("--bind=127.0.0.1:${PORT}", 8101), with_port("$PORTAL", 8101)
    ('--bind=127.0.0.1:8101', '$PORTAL')
    """
    if "PORT" not in text:
        return text
    out = text.replace("${PORT}", str(port))
    head, *rest = out.split("$PORT")
    for part in rest:
        name_goes_on = part[:1].isalnum() or part[:1] == "_"
        head += ("$PORT" if name_goes_on else str(port)) + part
    return head


def release_id(created_at: float, digest: str) -> str:
    """Return the id of a release: UTC time to the millisecond, then the first eight digits of the digest."""
    moment = datetime.fromtimestamp(created_at, UTC)
    return f"{moment:%Y%m%d-%H%M%S}{moment.microsecond // 1000:03d}-{digest[:8]}"


def list_releases(state: Path, app: str) -> list[Release]:
    """Return the readable releases of an app, newest first; a damaged one is left out, it cannot be started.

    Args:
        state: The state folder (``.fairway``).
        app: Name of the app.
    """
    return list(_readable(state / "releases" / app))


def newest_release(state: Path, app: str) -> Release | None:
    """Return the newest readable release of an app, or None where there is none; as `list_releases`, but reads one."""
    return next(_readable(state / "releases" / app), None)


def _readable(folder: Path) -> Iterator[Release]:
    try:
        names = sorted((e.name for e in os.scandir(folder) if not e.name.startswith(".")), reverse=True)
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(ReleaseError):
            yield Release.load(folder / name)


def prune_releases(state: Path, app: str, *, keep: int, in_use: frozenset[str] = frozenset()) -> list[str]:
    """Remove the oldest releases of an app beyond `keep`, and built trees that no release needs any more.

    Args:
        state: The state folder.
        app: Name of the app.
        keep: Releases to keep, >= 1, newest first.
        in_use: Ids that are never removed (running, or being started).

    Returns:
        The ids that were removed, oldest first.
    """
    import shutil

    releases = list_releases(state, app)
    gone = [r for r in releases[max(keep, 1) :] if r.id not in in_use]
    for release in gone:
        shutil.rmtree(release.directory, ignore_errors=True)
    removed = {r.id for r in gone}
    needed = {r.build_directory for r in releases if r.id not in removed}
    builds = state / "builds" / app
    if gone and builds.is_dir():
        for build in builds.iterdir():
            if not build.name.startswith(".") and build not in needed:
                shutil.rmtree(build, ignore_errors=True)
        _prune_environments(state)
    return [r.id for r in reversed(gone)]


def _prune_environments(state: Path) -> None:
    """Remove Python environments that no build of any app names and that no build has used for a day."""
    import shutil

    needed: set[str] = set()
    for record in state.glob("builds/*/*/build.json"):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            environment = msgspec.json.decode(record.read_bytes(), type=_WithEnvironment).environment
            needed.add(Path(environment).name if environment else "")
    for marker in state.glob("venvs/*/.fairway-complete"):
        if marker.parent.name not in needed and marker.stat().st_mtime < time.time() - _DAY:
            shutil.rmtree(marker.parent, ignore_errors=True)


def _write_private(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
