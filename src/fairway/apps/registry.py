"""The registry folder: every file read, checked, filled with defaults, and checked against the others.

A file with a problem leaves out its own app and no other. Named steps over one value a file (`_Draft`): read → parse →
convert → resolve paths; then across files: names, domains, ports, dependencies. Parse and convert depend on the bytes
of a file alone: what they gave can be remembered (`fairway.apps.memory`). The rest is looked at every time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from fairway.apps.memory import Entry, Known, Memory
from fairway.apps.places import PlaceError, Places
from fairway.apps.problem import MAX_BYTES, Complaint, DocumentError, Mark, Problem, RegistryError, nearest
from fairway.apps.spec import AppSpec

MAX_FILES = 1000
SUFFIXES = (".yaml", ".yml")
# What `load` calls to check a health condition: returns what is wrong with the expression, or None.
CheckCondition = Callable[[str], str | None]


class Registry(msgspec.Struct):
    """What a registry folder says.

    Attributes:
        folder: The folder, absolute.
        apps: The apps that can be run, by name, in order of their names.
        problems: What is wrong, in order of files and lines; the apps of those files are not in `apps`.
    """

    folder: Path
    apps: dict[str, AppSpec] = {}
    problems: list[Problem] = []

    def __repr__(self) -> str:
        return f"<Registry {self.folder} [{len(self.apps)} apps, {len(self.problems)} problems]>"


class _Draft(msgspec.Struct):
    """One file on its way to an app."""

    file: Path
    app: AppSpec | None = None
    name: str | None = None
    marks: dict[str, Mark] = {}
    problems: list[Problem] = []

    def complain(self, complaint: Complaint) -> None:
        self.problems.append(
            Problem(
                file=self.file,
                mark=complaint.mark,
                field=complaint.field,
                message=complaint.message,
                hint=complaint.hint,
                code=complaint.code,
                app=self.name,
            )
        )

    def mark(self, path: str) -> Mark | None:
        """Return where a field stands, or the nearest field around it."""
        while path:
            if path in self.marks:
                return self.marks[path]
            path = path.rpartition("[")[0] if path.endswith("]") else path.rpartition(".")[0]
        return None


def load(
    folder: Path,
    *,
    check_condition: CheckCondition | None = None,
    trusted: tuple[Path, ...] | None = None,
    memory: Memory | None = None,
) -> Registry:
    """Read a registry folder (``*.yaml`` and ``*.yml``, not hidden, not below).

    Args:
        folder: The folder.
        check_condition: Checks one health condition; None leaves that to whoever runs the checks.
        trusted: Folders outside of the repository that entries may name; None reads the user's own list.
        memory: What files said when they were read last, by their content; None reads every file anew.

    Raises:
        RegistryError: The folder itself is missing or cannot be read, or holds too many files.
    """
    folder = Path(os.path.abspath(folder))
    places = Places(folder, trusted)
    memory = memory or Memory(None)
    drafts = [_draft(path, places, check_condition, memory) for path in _files(folder)]
    memory.save()
    _check_unique_names(drafts)
    _check_unique_routes(drafts)
    _check_dependencies(drafts)
    registry = Registry(folder)
    for draft in drafts:
        registry.problems += sorted(draft.problems, key=lambda p: p.mark or Mark(0, 0))
        if draft.app is not None and not draft.problems:
            registry.apps[draft.app.name] = draft.app
    registry.apps = dict(sorted(registry.apps.items()))
    return registry


def load_file(
    path: Path, *, check_condition: CheckCondition | None = None, trusted: tuple[Path, ...] | None = None
) -> tuple[AppSpec | None, list[Problem]]:
    """Read one registry file by itself, without looking at the others."""
    path = Path(os.path.abspath(path))
    draft = _draft(path, Places(path.parent, trusted), check_condition, Memory(None))
    return (draft.app if not draft.problems else None), draft.problems


def _files(folder: Path) -> list[Path]:
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.name.endswith(SUFFIXES) and not e.name.startswith("."))
    except OSError as error:
        raise RegistryError(
            f"expected a registry folder at {folder}, got: {error.strerror}",
            hint="Write the first entry with `fairway add PATH`.",
        ) from error
    if len(names) > MAX_FILES:
        raise RegistryError(f"expected at most {MAX_FILES} files in {folder}, got {len(names)}")
    return [folder / name for name in names]


def _draft(path: Path, places: Places, check_condition: CheckCondition | None, memory: Memory) -> _Draft:
    draft = _Draft(path)
    try:
        content = _read(path, places)
        known = memory.recall(content)
        if known is None:
            known = _understand(draft, content)
            if known is not None:
                memory.keep(content, known)
    except DocumentError as error:
        draft.complain(Complaint(error.mark, "", error.message, error.hint, error.code))
        return draft
    if known is not None:
        draft.name, draft.marks = known.entry.name, known.marks
        draft.app = _resolve(draft, known.entry, places)
        _check_conditions(draft, known.entry, check_condition)
    return draft


def _understand(draft: _Draft, content: bytes) -> Known | None:
    """Parse and convert a file; None with complaints where it says what cannot be. Raises `DocumentError`."""
    from fairway.apps import document
    from fairway.apps.convert import convert

    converted = convert(document.parse(content))
    draft.marks = converted.marks
    draft.name = converted.fields.get("name")
    for complaint in converted.complaints:
        draft.complain(complaint)
    return None if converted.complaints else Known(Entry.of(converted.fields), converted.marks)


def _read(path: Path, places: Places) -> bytes:
    """Read a file, bounded; a link out of the tree, a folder, a device or a FIFO is refused."""
    real = Path(os.path.realpath(path))
    if path.is_symlink() and not real.is_relative_to(places.root):
        raise DocumentError("expected a file, got a link out of the repository", None, "registry.outside_tree")
    try:
        fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            information = os.fstat(fd)
            if not stat.S_ISREG(information.st_mode):
                raise DocumentError("expected a regular file, got something else", None, "registry.unreadable")
            if information.st_size > MAX_BYTES:
                raise DocumentError(
                    f"expected at most {MAX_BYTES >> 10} KiB, got {information.st_size >> 10} KiB",
                    None, "registry.size",
                )  # fmt: skip
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"expected a readable file, got: {error.strerror}", None, "registry.unreadable") from error


def _resolve(draft: _Draft, entry: Entry, places: Places) -> AppSpec | None:
    def place(name: str, text: str | None, read: Callable[[str], Path]) -> Path | None:
        if text is None:
            return None
        try:
            return read(text)
        except PlaceError as error:
            draft.complain(Complaint(draft.mark(name), name, str(error), error.hint, error.code))
            return None

    if entry.source is None and entry.compose_file is None:
        draft.complain(
            Complaint(None, "", "expected `source` or `compose_file`, found neither",
                      "Name the app's folder: `source: ../../apps/NAME`.", "registry.missing_field")
        )  # fmt: skip
        return None
    source = place("source", entry.source, places.source)
    compose_file = place("compose_file", entry.compose_file, places.file)
    env_file = place("env_file", entry.env_file, places.file)
    if entry.runtime == "compose" and compose_file is None and source is None and not draft.problems:
        return None
    return entry.spec(draft.file, source, compose_file, env_file)


def _check_conditions(draft: _Draft, entry: Entry, check: CheckCondition | None) -> None:
    if check is None:
        return
    for at, expression in enumerate(entry.health.conditions):
        wrong = check(expression)
        if wrong:
            path = f"health.conditions[{at}]"
            draft.complain(Complaint(draft.mark(path), path, wrong, code="registry.condition"))


def _check_unique_names(drafts: Iterable[_Draft]) -> None:
    first: dict[str, _Draft] = {}
    for draft in drafts:
        if draft.name is None:
            continue
        if draft.name in first:
            message = f"expected a name of its own, {draft.name!r} is taken by {first[draft.name].file.name}"
            draft.complain(Complaint(draft.mark("name"), "name", message, code="registry.duplicate_name"))
        else:
            first[draft.name] = draft


def _check_unique_routes(drafts: Iterable[_Draft]) -> None:
    routes: dict[tuple[object, ...], tuple[_Draft, str]] = {}
    ports: dict[int, tuple[_Draft, str]] = {}
    for draft in drafts:
        if draft.app is None or any(p.code == "registry.duplicate_name" for p in draft.problems):
            continue
        app = draft.app
        for face, endpoint in (("backend", app.backend), ("frontend", app.frontend), ("grpc", app.grpc)):
            if endpoint is None:
                continue
            domain, path = endpoint.domain or app.domain, endpoint.path.rstrip("/")
            taken = routes.setdefault((domain, path, *_conditions(app)), (draft, face))
            # One app may serve gRPC beside HTTP on one domain: NGINX tells them apart.
            if taken != (draft, face) and not (taken[0] is draft and face == "grpc"):
                _complain_taken(draft, f"{face}.domain", f"{domain}{path or '/'}", taken)
            if endpoint.port is not None:
                held = ports.setdefault(endpoint.port, (draft, face))
                if held[0] is not draft:
                    _complain_taken(draft, f"{face}.port", str(endpoint.port), held)
    for draft in drafts:
        for at, alias in enumerate(draft.app.door.aliases if draft.app is not None and not draft.problems else ()):
            assert draft.app is not None
            field_path, path = f"door.aliases[{at}]", draft.app.backend.path.rstrip("/")
            taken = routes.setdefault((alias, path, *_conditions(draft.app)), (draft, field_path))
            if taken != (draft, field_path):
                _complain_taken(draft, field_path, f"{alias}{path or '/'}", taken, what="domain")


def _conditions(app: AppSpec) -> tuple[object, ...]:
    """Return what else the door tells apps of one domain and path apart by."""
    return frozenset(app.door.methods), frozenset((name.lower(), value) for name, value in app.door.headers.items())


def _complain_taken(draft: _Draft, path: str, value: str, taken: tuple[_Draft, str], *, what: str = "") -> None:
    what = what or path.rpartition(".")[2]
    owner = taken[0].file.name if taken[0] is not draft else "this file"
    draft.complain(
        Complaint(draft.mark(path), path, f"expected a {what} of its own, {value} is taken by {taken[1]} in {owner}",
                  code=f"registry.duplicate_{what}")
    )  # fmt: skip


def _check_dependencies(drafts: list[_Draft]) -> None:
    named = {d.name for d in drafts if d.name}
    for draft in drafts:
        for at, wanted in enumerate(draft.app.depends_on if draft.app else ()):
            if wanted not in named:
                _complain_dependency(draft, at, f"expected the name of an app, there is none called {wanted!r}", named)
    # An app that waits for a broken one, or for itself, would wait for ever.
    while True:
        good = {d.app.name: d for d in drafts if d.app and not d.problems}
        stuck = [
            (d, at, w) for d in good.values() for at, w in enumerate(d.app.depends_on if d.app else ()) if w not in good
        ]
        if not stuck:
            break
        for draft, at, wanted in stuck:
            _complain_dependency(draft, at, f"expected an app that can run, {wanted!r} has problems of its own", set())
    for name in _in_circle({n: d.app.depends_on for n, d in good.items() if d.app}):
        _complain_dependency(good[name], 0, f"expected an order to start in, {name!r} depends on itself", set())


def _complain_dependency(draft: _Draft, at: int, message: str, valid: set[str]) -> None:
    path = f"depends_on[{at}]"
    wanted = draft.app.depends_on[at] if draft.app else ""
    hint = nearest(wanted, valid - {draft.name or ""}) if valid else ""
    draft.complain(Complaint(draft.mark(path), path, message, hint, "registry.depends_on"))


def _in_circle(graph: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the apps that are in a circle or wait for one, sorted: what is left when all others have started."""
    left = dict(graph)
    while ready := [name for name, wanted in left.items() if not any(w in left for w in wanted)]:
        for name in ready:
            del left[name]
    return sorted(left)
