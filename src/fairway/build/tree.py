"""The files of an app's source folder: listed, hashed and copied, with everything in it taken as hostile.

Left out are version control, caches, installed dependencies and build output, plus what a ``.fairwayignore`` in the
folder names (one glob a line). Symbolic links are taken as links: their text is hashed and copied, their target is
never read, so that a link to ``/etc/shadow`` gives away nothing. Devices, sockets and FIFOs are skipped.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from fairway.errors import FairwayError

MAX_FILES = 50_000
MAX_BYTES = 2 << 30
MAX_DEPTH = 40
IGNORE_FILE = ".fairwayignore"
# A file changed within this time of being hashed may change again without a new timestamp (the "racily clean" entries
# of git's index): such a file is hashed again the next time.
RACY_NS = 50_000_000

SKIPPED_FOLDERS = frozenset(
    {
        ".git", ".hg", ".svn", ".jj", ".fairway", ".idea", ".vs", ".vscode", ".next", ".nuxt", ".turbo", ".tox", ".nox",
        ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".gradle", ".yarn-cache", ".npm", ".eggs",
        "__pycache__", "node_modules", ".venv",
    }
)  # fmt: skip
SKIPPED_FILES = (".DS_Store", "*.pyc", "*.pyo", "*.swp", "*~", "npm-debug.log*", "yarn-error.log")


class SourceError(FairwayError):
    """A source folder is missing, unreadable or beyond the bounds."""

    code = "build.source"
    default_hint: ClassVar[str] = f"Name what an app does not need in a {IGNORE_FILE} file, one glob a line."


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One file or link. `stamp` changes whenever its content may have changed."""

    path: str
    link: bool
    executable: bool
    size: int
    stamp: tuple[int, int, int]


class Snapshot(msgspec.Struct, frozen=True):
    """The content of a folder at one time.

    Attributes:
        digest: Covers every path, kind and content.
        taken_ns: When it was taken, in nanoseconds since the Unix epoch.
        files: Path to size, modification time, change time, inode and digest.
        rehashed: Files that had to be read.
    """

    digest: str
    taken_ns: int
    files: dict[str, tuple[int, int, int, int, str]]
    rehashed: int = 0


def list_tree(root: Path) -> list[Entry]:
    """List the files below `root`, sorted by path.

    Raises:
        SourceError: The folder cannot be read, or holds more than the bounds allow.
    """
    ignored = _ignore_patterns(root)
    found: list[Entry] = []
    total = 0
    for entry in _walk(root, ignored):
        found.append(entry)
        total += entry.size
        if len(found) > MAX_FILES or total > MAX_BYTES:
            raise SourceError(
                f"expected at most {MAX_FILES} files and {MAX_BYTES >> 20} MiB of source in {root}, "
                f"got more (at {len(found)} files and {total >> 20} MiB)"
            )
    found.sort(key=lambda e: e.path)
    return found


def _walk(root: Path, ignored: tuple[str, ...]) -> Iterator[Entry]:
    pending = [("", 0)]
    while pending:
        prefix, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise SourceError(f"expected folders at most {MAX_DEPTH} deep in {root}, got {prefix!r}")
        try:
            with os.scandir(root / prefix) as scan:
                entries = list(scan)
        except OSError as error:
            raise SourceError(f"expected a readable folder at {root / prefix}, got: {error.strerror}") from error
        names = {e.name for e in entries}
        if prefix and "pyvenv.cfg" in names:
            continue
        has_project = any(n.endswith((".csproj", ".fsproj")) for n in names)
        for entry in entries:
            path = f"{prefix}{entry.name}"
            if _ignored(path, entry.name, ignored):
                continue
            if entry.is_dir(follow_symlinks=False):
                skipped = entry.name in SKIPPED_FOLDERS or (has_project and entry.name in ("bin", "obj"))
                if not skipped:
                    pending.append((f"{path}/", depth + 1))
                continue
            if not path.isprintable() and not _is_text(path):
                raise SourceError(f"expected file names in UTF-8 in {root}, got {path!r}")
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                yield Entry(
                    path,
                    stat.S_ISLNK(info.st_mode),
                    bool(info.st_mode & 0o100),
                    info.st_size,
                    (info.st_mtime_ns, info.st_ctime_ns, info.st_ino),
                )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ignored(path: str, name: str, patterns: tuple[str, ...]) -> bool:
    if any(fnmatch.fnmatchcase(name, p) for p in SKIPPED_FILES):
        return True
    return any(fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(name, p) for p in patterns)


def _ignore_patterns(root: Path) -> tuple[str, ...]:
    path = root / IGNORE_FILE
    if path.is_symlink() or not path.is_file():
        return ()
    with path.open("rb") as file:
        text = file.read(64 * 1024).decode("utf-8", "replace")
    lines = (line.strip().strip("/") for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))[:500]


def digest_of(files: Mapping[str, tuple[bool, bool, str]]) -> str:
    """Return the digest over paths, kinds (link, executable) and content digests, independent of their order."""
    whole = hashlib.sha256()
    for path in sorted(files):
        link, executable, digest = files[path]
        whole.update(f"{path}\0{link:d}{executable:d}{digest}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def take_snapshot(root: Path, earlier: Snapshot | None = None) -> Snapshot:
    """Return the content digest of a folder, hashing only files whose stamp is new since `earlier`.

    A stamp is size, modification time, change time and inode. The change time cannot be set by a program, so a file of
    an old stamp has old content; files changed just before `earlier` was taken are hashed again.

    Raises:
        SourceError: As in `list_tree`, or a file cannot be read.
    """
    known = earlier.files if earlier else {}
    horizon = earlier.taken_ns - RACY_NS if earlier else 0
    taken_ns = time.time_ns()
    files: dict[str, tuple[int, int, int, int, str]] = {}
    kinds: dict[str, tuple[bool, bool, str]] = {}
    rehashed = 0
    for entry in list_tree(root):
        stamp = (entry.size, *entry.stamp)
        before = known.get(entry.path)
        if before is not None and before[:4] == stamp and max(entry.stamp[0], entry.stamp[1]) < horizon:
            digest = before[4]
        else:
            digest = _hash_entry(root, entry)
            rehashed += 1
        files[entry.path] = (*stamp, digest)
        kinds[entry.path] = (entry.link, entry.executable, digest)
    return Snapshot(digest_of(kinds), taken_ns, files, rehashed)


def copy_tree(root: Path, target: Path) -> str:
    """Copy the files below `root` to the new folder `target` and return the digest of what was copied.

    The digest is of the very bytes that were written, so that an edit during the copy shows as another digest.

    Raises:
        SourceError: As in `list_tree`, or a file cannot be copied.
    """
    kinds: dict[str, tuple[bool, bool, str]] = {}
    made: set[Path] = set()
    target.mkdir(parents=True, mode=0o700)
    for entry in list_tree(root):
        destination = target / entry.path
        if destination.parent not in made:
            destination.parent.mkdir(parents=True, exist_ok=True)
            made.add(destination.parent)
        try:
            if entry.link:
                text = os.readlink(root / entry.path)
                os.symlink(text, destination)
                digest = hashlib.sha256(os.fsencode(text)).hexdigest()
            else:
                digest = _copy_file(root / entry.path, destination, executable=entry.executable)
                os.utime(destination, ns=(entry.stamp[0], entry.stamp[0]))
        except OSError as error:
            raise SourceError(f"expected to copy {root / entry.path}, got: {error.strerror}") from error
        kinds[entry.path] = (entry.link, entry.executable, digest)
    return digest_of(kinds)


def _open_regular(path: Path) -> int:
    # Not following a link here closes the gap between listing and opening; not blocking, a FIFO swapped in.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "not a regular file any more")
    return fd


def _hash_entry(root: Path, entry: Entry) -> str:
    path = root / entry.path
    try:
        if entry.link:
            return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
        with open(_open_regular(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"expected a readable file at {path}, got: {error.strerror}") from error


def _copy_file(source: Path, destination: Path, *, executable: bool) -> str:
    whole = hashlib.sha256()
    written = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if executable else 0o644)
    with open(_open_regular(source), "rb") as reader, open(written, "wb") as writer:
        while block := reader.read(1 << 20):
            whole.update(block)
            writer.write(block)
    return whole.hexdigest()


def read_text(root: Path, path: str, limit: int = 256 * 1024) -> str | None:
    """Return the text of a regular file below `root`, or None where it is missing, larger than `limit` or a link out.

    Args:
        root: The source folder.
        path: Relative path, without ``..``.
        limit: Bytes that are read at most.
    """
    full = root / path
    try:
        if not full.resolve().is_relative_to(root.resolve()):
            return None
        with open(_open_regular(full.resolve()), "rb") as file:
            data = file.read(limit + 1)
    except (OSError, RuntimeError):
        return None
    return None if len(data) > limit else data.decode("utf-8-sig", "replace")
