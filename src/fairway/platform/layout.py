"""Where everything lives below the state folder (``.fairway/``): paths, names and permissions, nothing else.

Log files, and what a reader of them may rely on (docs/adr/0005-logs-are-shortened-by-holes.md):

* One file an instance: ``logs/<app>/<process>.<number>.log``. `number` is never used twice for one app and process,
  so a file belongs to one instance for ever; an instance that is restarted after a crash goes on in its own file.
* The instance itself holds the file, opened with ``O_APPEND``: nothing between can block, kill or lose a line.
  Fairway appends lines of its own (``fairway: …``) with one ``write(2)`` each, which ``O_APPEND`` keeps whole.
* A file is never renamed, truncated or rewritten, so a byte offset is a cursor that stays valid for ever. Over its
  budget the *head* of a file is given back to the disk (``FALLOC_FL_PUNCH_HOLE``): the size stays, the bytes before
  some offset read as NUL. A reader that starts at 0, or falls behind, skips with ``os.lseek(fd, 0, os.SEEK_DATA)`` and
  then drops everything up to the first newline if the byte before was a hole. Where holes are not supported, only
  whole files are given up.
* Beside ``web.1.log`` lies ``web.1.times``, the index of arrival times that `fairway.logs.times` keeps and deletes.
* Whole files of ended instances are deleted oldest first, when an app is over its budget of bytes or files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from fairway.platform.owner import door_marker, lock_file, owner_of

_SOCKET_LIMIT = 100  # sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included
_LOG_NAME = re.compile(r"^(?P<process>[A-Za-z0-9_-]+)\.(?P<number>[0-9]+)\.log$")


class LogFile(NamedTuple):
    """One instance's log file: `path`, and the app, process name and instance number that the path says."""

    path: Path
    app: str
    process: str
    number: int


class Layout:
    """Paths below one state folder.

    Args:
        state_dir: The state folder; made absolute, not created until `create()`.
    """

    __slots__ = ("root",)

    def __init__(self, state_dir: Path) -> None:
        self.root = Path(os.path.abspath(state_dir))

    def create(self) -> None:
        """Create the folders that are missing, each 0700. Raises `OSError` where that is not permitted."""
        builder = (self.releases, self.cache, self.root / "builds", self.root / "build-logs", self.root / "venvs")
        for folder in (self.root, self.logs, self.run, *builder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)  # the mode of a folder that was here, or came as another one's parent
        sockets = self.api_socket.parent
        if sockets != self.run:
            sockets.mkdir(mode=0o700, exist_ok=True)
            found = sockets.lstat()
            # Below a folder that everybody may write to, somebody may have been here before.
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise PermissionError(errno.EPERM, "expected a private folder of this user for sockets", str(sockets))
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")

    @property
    def database(self) -> Path:
        """The platform's SQLite file (WAL): apps wanted, releases, instances, door workers."""
        return self.root / "state.db"

    @property
    def jobs_database(self) -> Path:
        """The default store of jobs."""
        return self.root / "jobs.db"

    @property
    def events_database(self) -> Path:
        """The default store of events."""
        return self.root / "events.db"

    @property
    def webhooks(self) -> Path:
        """The registered webhooks with their secrets, 0600."""
        return self.root / "webhooks.json"

    @property
    def logs(self) -> Path:
        """Folder of the instances' log files, one folder an app."""
        return self.root / "logs"

    @property
    def releases(self) -> Path:
        """Folder of built releases, the builder's own."""
        return self.root / "releases"

    @property
    def cache(self) -> Path:
        """Folder of toolchains and build caches, the builder's own."""
        return self.root / "cache"

    @property
    def certificates(self) -> Path:
        """Folder (0700) of the door's certificates and their keys, and of the ACME account's key."""
        return self.root / "tls"

    @property
    def run(self) -> Path:
        """Folder of the lock and the sockets."""
        return self.root / "run"

    @property
    def lock(self) -> Path:
        """File that the running daemon holds with ``flock``; contains its pid and its API's URL."""
        return Path(lock_file(str(self.root)))

    @property
    def token_file(self) -> Path:
        """File (0600) with the bearer token of the HTTP and gRPC API."""
        return self.root / "token"

    @property
    def secrets_file(self) -> Path:
        """File of ``NAME=value`` lines that `AppSpec.secrets` may name."""
        return self.root / "secrets.env"

    @property
    def daemon_log(self) -> Path:
        """The daemon's own log when it runs in the background."""
        return self.logs / "_fairway" / "daemon.0.log"

    @property
    def owner(self) -> str:
        """Prefix of every marker and control group of this state folder, such as ``fairway-1a2b3c4d``."""
        return owner_of(str(self.root))

    def door_marker(self, worker: int) -> str:
        """Marker of door worker number `worker`."""
        return door_marker(str(self.root), worker)

    @property
    def api_socket(self) -> Path:
        """Unix socket (0600) on which the daemon's API takes the command line's requests without a token."""
        return self._socket("api.sock")

    def door_socket(self, worker: int) -> Path:
        """Unix socket on which door worker number `worker` takes its routes."""
        return self._socket(f"door-{worker}.sock")

    def log_file(self, app: str, process: str, number: int) -> Path:
        """Log file of one instance.

        The door's workers use the app name ``_fairway`` and the process ``door``, their access logs ``_door`` and
        ``access``.
        """
        return self.logs / app / f"{process}.{number}.log"

    def log_files(self, app: str | None = None) -> list[LogFile]:
        """Every log file that exists, of one app or of all, ascending by app, process and number."""
        folders = [self.logs / app] if app is not None else sorted(p for p in self.logs.glob("*") if p.is_dir())
        found: list[LogFile] = []
        for folder in folders:
            for path in folder.glob("*.log"):
                match = _LOG_NAME.match(path.name)
                if match is not None:
                    found.append(LogFile(path, folder.name, match["process"], int(match["number"])))
        return sorted(found, key=lambda f: (f.app, f.process, f.number))

    def token(self) -> str:
        """Return the API's bearer token; the first call writes a new random one (0600, 256 bits)."""
        return _secret(self.token_file)

    def app_token(self) -> str:
        """Return the token that hosted apps get in ``$FAIRWAY_TOKEN``: jobs and events, nothing else."""
        return _secret(self.root / "app-token")

    def _socket(self, name: str) -> Path:
        path = self.run / name
        if len(os.fsencode(path)) <= _SOCKET_LIMIT:
            return path
        import tempfile

        # A deep folder would overflow sun_path: a private folder under the temporary one stands in for it.
        digest = hashlib.sha256(os.fsencode(self.run)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"fairway-{os.getuid()}-{digest}" / name

    def __repr__(self) -> str:
        return f"<Layout {self.root}>"


def _secret(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        text = ""
    if text:
        return text
    import secrets

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = secrets.token_urlsafe(32)
    staged = path.with_suffix(".new")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(fresh + "\n")
    staged.replace(path)
    return fresh
