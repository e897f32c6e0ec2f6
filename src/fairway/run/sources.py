"""An app's source as content: its digest, kept between runs by the files' stamps, and its copy in a build folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec

from fairway.build import tree
from fairway.build.references import common_root, find_references


class _Known(msgspec.Struct):
    """What is remembered of an app's source: where it is, its own snapshot, and those of the folders it refers to."""

    source: str
    own: tree.Snapshot
    references: dict[str, tree.Snapshot] = {}


class Sources:
    """Digests of the sources of all apps.

    Args:
        folder: Where snapshots are kept between runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, _Known] = {}

    def __repr__(self) -> str:
        return f"<Sources {len(self._known)} in {self._folder}>"

    def digest(self, name: str, source: Path) -> str:
        """Return the digest of an app's source and of the folders that it refers to; reads only what has changed.

        Raises:
            SourceError: The source cannot be read or is too large.
        """
        path = self._folder / f"{name}.json"
        earlier = self._earlier(name, source, path)
        own = tree.take_snapshot(source, earlier.own if earlier else None)
        if earlier is not None and own.digest == earlier.own.digest:
            references = [Path(text) for text in earlier.references]
        else:
            references = list(find_references(source))
        known = _Known(str(source), own)
        for reference in references:
            before = earlier.references.get(str(reference)) if earlier else None
            known.references[str(reference)] = tree.take_snapshot(reference, before)
        self._known[name] = known
        if earlier is None or own.rehashed or any(s.rehashed for s in known.references.values()) or known != earlier:
            self._save(path, known)
        return _joined(own.digest, [s.digest for s in known.references.values()])

    def _earlier(self, name: str, source: Path, path: Path) -> _Known | None:
        known = self._known.get(name)
        if known is None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                known = msgspec.json.decode(path.read_bytes(), type=_Known)
        return known if known is not None and known.source == str(source) else None

    def _save(self, path: Path, known: _Known) -> None:
        import tempfile

        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd, staged = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        with open(fd, "wb") as file:
            file.write(msgspec.json.encode(known))
        os.replace(staged, path)


def _joined(own: str, others: list[str]) -> str:
    return own if not others else hashlib.sha256("\n".join([own, *others]).encode()).hexdigest()


def copy_source(source: Path, folder: Path) -> str:
    """Copy a source into the new folder `folder` and return the digest of what was copied.

    The source is at `copied_path(folder)` then, and what it refers to lies where it did, seen from there.

    Raises:
        SourceError: As in `fairway.build.tree.copy_tree`.
    """
    references = find_references(source)
    if not references:
        return tree.copy_tree(source, folder / "source")
    real = source.resolve()
    root = common_root(real, references)
    digests = [tree.copy_tree(part, _below(folder, root, part)) for part in references if not real.is_relative_to(part)]
    holder = next((part for part in references if real.is_relative_to(part)), None)
    if holder is not None:
        digests.insert(references.index(holder), tree.copy_tree(holder, _below(folder, root, holder)))
        own = tree.take_snapshot(source).digest
    else:
        own = tree.copy_tree(source, _below(folder, root, real))
    (folder / "source").symlink_to(os.path.relpath(_below(folder, root, real), folder))
    return _joined(own, digests)


def _below(folder: Path, root: Path, part: Path) -> Path:
    return folder / "tree" / part.relative_to(root)


def copied_path(folder: Path) -> Path:
    """Return where the source lies in a build folder."""
    return (folder / "source").resolve()
