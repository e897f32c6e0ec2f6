"""What is known of a source folder before anything is decided: names, and the text of the few files that matter."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fairway.build import tree
from fairway.build.plan import PlanError
from fairway.build.words import Line, parse_procfile

READ_AT_ONCE = (
    "Procfile", "go.mod", "package.json", "pyproject.toml", "requirements.txt", "Pipfile", "Pipfile.lock", "setup.py",
    "setup.cfg", "Dockerfile", ".python-version", "runtime.txt", "manage.py", "global.json", "requirements-prod.txt",
    "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt",
    "uv.lock", "poetry.lock",
)  # fmt: skip
COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_LIMITS = {"Pipfile.lock": 2 << 20, "uv.lock": 2 << 20, "poetry.lock": 2 << 20}
_MAX_CODE_FILES = 400
_MAX_CODE_DEPTH = 4
_NOT_THE_APP = re.compile(r"(^|/)(tests?|testing|docs?|examples?|samples?|migrations|alembic|scripts|benchmarks?)/")
_PACKAGE = re.compile(r"package[ \t]+(\w+)")
_GO_IGNORED = re.compile(r"//[ \t]*(?:go:build|\+build)[ \t]+ignore\b")
_MAX_CODE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """A source folder as values.

    Attributes:
        app: Name of the app.
        files: Every file, relative with ``/``, sorted.
        texts: Text of the files in `READ_AT_ONCE` and of the project and code files that detection looks at.
        go_mains: Folders that hold a Go ``package main``, ``.`` for the module root.
    """

    app: str
    files: tuple[str, ...]
    texts: dict[str, str] = field(default_factory=dict)
    go_mains: tuple[str, ...] = ()

    def has(self, path: str) -> bool:
        """Say whether a file of this relative path exists."""
        return path in self.texts or path in self.files

    def named(self, suffix: str) -> tuple[str, ...]:
        """Return the files whose path ends so, shallow ones first."""
        return tuple(sorted((f for f in self.files if f.endswith(suffix)), key=lambda f: (f.count("/"), f)))

    @property
    def procfile(self) -> dict[str, Line]:
        """Processes of the Procfile, or an empty dict."""
        return parse_procfile(self.texts.get("Procfile", ""))

    def json(self, path: str) -> dict[str, Any]:
        """Return a JSON file as a dict, empty where it is missing.

        Raises:
            PlanError: The file is no JSON object; says where.
        """
        text = self.texts.get(path)
        if text is None:
            return {}
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PlanError(f"expected JSON in {path} of {self.app}, got content that is none: {error}") from error
        if not isinstance(value, dict):
            raise PlanError(f"expected a JSON object in {path} of {self.app}, got {type(value).__name__}")
        return value

    def toml(self, path: str) -> dict[str, Any]:
        """Return a TOML file as a dict, empty where it is missing.

        Raises:
            PlanError: The file is no TOML; says where.
        """
        text = self.texts.get(path)
        if text is None:
            return {}
        try:
            return tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise PlanError(f"expected TOML in {path} of {self.app}, got content that is none: {error}") from error


def gather(app: str, root: Path) -> Facts:
    """Read what detection needs from a source folder, bounded in files, depth and bytes.

    Raises:
        SourceError: The folder is missing, unreadable or too large.
    """
    files = tuple(e.path for e in tree.list_tree(root))
    known = set(files)
    texts: dict[str, str] = {}
    wanted = [n for n in (*READ_AT_ONCE, *COMPOSE_NAMES) if n in known]
    wanted += [f for f in files if f.endswith((".csproj", ".fsproj")) and f.count("/") <= 3][:50]
    wanted += [f for f in files if re.fullmatch(r"requirements[\w.-]*\.txt|requirements/[\w.-]+\.txt", f)][:20]
    wanted += _python_candidates(files)
    code = 0
    for path in dict.fromkeys(wanted):
        text = tree.read_text(root, path, _LIMITS.get(path, 256 * 1024))
        if text is None:
            continue
        code += len(text) if path.endswith(".py") else 0
        if code > _MAX_CODE_BYTES and path.endswith(".py"):
            break
        texts[path] = text
    return Facts(app, files, texts, _go_mains(root, files) if "go.mod" in known else ())


def _python_candidates(files: tuple[str, ...]) -> list[str]:
    code = [
        f for f in files if f.endswith(".py") and f.count("/") <= _MAX_CODE_DEPTH and not _NOT_THE_APP.search(f"{f}")
    ]
    code.sort(key=lambda f: (f.count("/"), f))
    return code[:_MAX_CODE_FILES]


def _go_mains(root: Path, files: tuple[str, ...]) -> tuple[str, ...]:
    mains: set[str] = set()
    read = 0
    for path in sorted(files, key=lambda f: (f.count("/"), f)):
        folder = path.rpartition("/")[0] or "."
        hidden = any(part.startswith(("_", ".")) or part in ("testdata", "vendor") for part in folder.split("/")[:])
        if not path.endswith(".go") or path.endswith("_test.go") or folder in mains or (hidden and folder != "."):
            continue
        read += 1
        if read > _MAX_CODE_FILES:
            break
        text = tree.read_text(root, path)
        if text is not None and _is_main(text):
            mains.add(folder)
    return tuple(sorted(mains))


def _is_main(text: str) -> bool:
    """Say whether Go source begins, after comments, with ``package main``; linear in the text, whatever it holds."""
    at, end = 0, min(len(text), 64 * 1024)
    while at < end:
        if text[at].isspace():
            at += 1
        elif text.startswith("//", at):
            if _GO_IGNORED.match(text, at):
                return False
            at = text.find("\n", at) + 1 or end
        elif text.startswith("/*", at):
            at = text.find("*/", at) + 2
            if at == 1:
                return False
        else:
            match = _PACKAGE.match(text, at)
            return match is not None and match[1] == "main"
    return False
