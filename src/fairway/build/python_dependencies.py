"""Which packages a Python app asks for, whichever of the usual files says so."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fairway.build.facts import Facts

_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_REQUIREMENT_FILES = (
    "requirements.txt", "requirements-prod.txt", "requirements/production.txt", "requirements/prod.txt",
    "requirements/base.txt",
)  # fmt: skip
_LOCAL = re.compile(r"^\s*(?:-e\b|--editable\b|\.{1,2}(?:/|\s*$|\[)|file:)")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What has to be installed.

    Attributes:
        arguments: Arguments of ``pip install``, such as ``-r requirements.txt``.
        listing: Requirement lines that stand in no file that pip reads (Poetry's, a Pipfile's): written to one first.
        names: Normalised names of the packages that the app names itself.
        said_in: Files that say so; their content is the key of the environment.
        locked: Exact versions from ``poetry.lock`` or ``uv.lock``, as constraints: they add no package.
        whole_source: The environment depends on the source too (``-e .``, ``setup.py``), so nothing can be shared.
    """

    arguments: tuple[str, ...] = ()
    listing: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    said_in: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()
    whole_source: bool = False


def normalise(name: str) -> str:
    """Return a package name as PyPI compares it: lower case, runs of ``-_.`` as one dash (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_dependencies(facts: Facts) -> Dependencies:
    """Find the dependencies: requirements files, ``pyproject.toml`` (PEP 621 or Poetry), ``Pipfile``, ``setup.py``.

    Raises:
        PlanError: A file that should say so is no TOML or JSON.
    """
    for path in _REQUIREMENT_FILES:
        if facts.has(path):
            return _from_requirements(facts, path)
    project = facts.toml("pyproject.toml")
    if project:
        found = _from_pyproject(project)
        if found is not None:
            return _with_lock(facts, found)
    if facts.has("Pipfile.lock") or facts.has("Pipfile"):
        return _from_pipfile(facts)
    if facts.has("setup.py"):
        return Dependencies(("./",), said_in=("setup.py",), whole_source=True)
    return Dependencies()


def _from_requirements(facts: Facts, path: str) -> Dependencies:
    names: set[str] = set()
    said_in: list[str] = []
    local = False
    pending = [path]
    while pending and len(said_in) < 20:
        current = pending.pop()
        text = facts.texts.get(current)
        if text is None or current in said_in:
            continue
        said_in.append(current)
        for line in text.splitlines():
            reference = re.match(r"^\s*(?:-r|-c|--requirement|--constraint)[\s=]+(\S+)", line)
            if reference:
                folder = current.rpartition("/")[0]
                pending.append(f"{folder}/{reference[1]}".lstrip("/").replace("/./", "/"))
            elif _LOCAL.match(line):
                local = True
            elif match := _NAME.match(line):
                names.update(_with_extras(match[1], line))
    # A file that is referred to but was not read cannot be part of the key.
    complete = not pending and all(p in facts.texts for p in said_in)
    return Dependencies(("-r", path), (), frozenset(names), tuple(said_in), whole_source=local or not complete)


def _with_extras(name: str, line: str) -> Iterator[str]:
    yield normalise(name)
    if normalise(name) == "fastapi" and re.search(r"\[\s*(?:standard|all)", line):
        yield "uvicorn"


def _from_pyproject(project: dict[str, Any]) -> Dependencies | None:
    table = project.get("project")
    if isinstance(table, dict) and isinstance(table.get("dependencies"), list):
        lines = tuple(str(d) for d in table["dependencies"])
        return _listed(lines, "pyproject.toml")
    tool = project.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    if isinstance(poetry, dict) and isinstance(poetry.get("dependencies"), dict):
        lines = tuple(r for n, c in poetry["dependencies"].items() if (r := _from_constraint(str(n), c)))
        return _listed(lines, "pyproject.toml")
    if isinstance(table, dict) and "dependencies" in (table.get("dynamic") or ()):
        return Dependencies(("./",), said_in=("pyproject.toml",), whole_source=True)
    return Dependencies(said_in=("pyproject.toml",)) if isinstance(table, dict) else None


def _with_lock(facts: Facts, found: Dependencies) -> Dependencies:
    for path in ("uv.lock", "poetry.lock"):
        packages = facts.toml(path).get("package")
        if not isinstance(packages, list):
            continue
        versions: dict[str, set[str]] = {}
        for package in packages:
            if not isinstance(package, dict) or not isinstance(package.get("version"), str):
                continue
            source = package.get("source")
            # Poetry names only other sources than the index; uv names the index as `registry`.
            if source is None or (isinstance(source, dict) and "registry" in source):
                versions.setdefault(normalise(str(package.get("name", ""))), set()).add(package["version"])
        # Of a package that is locked in several versions, for several platforms, the installer chooses.
        pinned = sorted(f"{name}=={one}" for name, some in versions.items() if name and len(some) == 1 for one in some)
        return replace(found, locked=tuple(pinned), said_in=(*found.said_in, path))
    return found


def _listed(lines: tuple[str, ...], said_in: str) -> Dependencies:
    names: set[str] = set()
    for line in lines:
        if match := _NAME.match(line):
            names.update(_with_extras(match[1], line))
    return Dependencies((), lines, frozenset(names), (said_in,))


def _from_constraint(name: str, value: Any) -> str | None:
    """Turn one of Poetry's or Pipenv's dependencies into a requirement line; None for Python and optional ones."""
    if name.lower() == "python":
        return None
    extras, constraint, marker = "", value, ""
    if isinstance(value, list):
        value = value[0] if value else "*"
        constraint = value
    if isinstance(value, dict):
        if value.get("optional"):
            return None
        constraint = value.get("version", "*")
        extras = f"[{','.join(map(str, value['extras']))}]" if value.get("extras") else ""
        marker = f"; {value['markers']}" if value.get("markers") else ""
        if value.get("git"):
            reference = value.get("rev") or value.get("tag") or value.get("branch") or value.get("ref")
            return f"{name}{extras} @ git+{value['git']}{f'@{reference}' if reference else ''}{marker}"
    return f"{name}{extras}{to_pep440(str(constraint))}{marker}"


def to_pep440(constraint: str) -> str:
    """Turn a Poetry constraint into a PEP 440 specifier.

    >>> to_pep440("^1.2.3"), to_pep440("^0.4"), to_pep440("~2.1"), to_pep440("*"), to_pep440("2.0"), to_pep440(">=1,<3")
    ('>=1.2.3,<2', '>=0.4,<0.5', '>=2.1,<2.2', '', '==2.0', '>=1,<3')
    """
    parts = [_one_specifier(p.strip()) for p in constraint.partition("||")[0].split(",")]
    return ",".join(p for p in parts if p)


def _one_specifier(text: str) -> str:
    if text in ("*", ""):
        return ""
    numbers = [int(n) for n in re.findall(r"\d{1,9}", re.sub(r"(?:a|b|rc|\.?dev|\.?post).*$", "", text.lstrip("^~=")))]
    if text.startswith("^") and numbers:
        at = next((i for i, n in enumerate(numbers) if n), len(numbers) - 1)
        upper = [*numbers[:at], numbers[at] + 1]
        return f">={text[1:]},<{'.'.join(map(str, upper))}"
    if text.startswith("~") and not text.startswith("~=") and numbers:
        upper = [numbers[0] + 1] if len(numbers) == 1 else [numbers[0], numbers[1] + 1]
        return f">={text[1:]},<{'.'.join(map(str, upper))}"
    return text if text[0] in "<>=!~" else f"=={text}"


def _from_pipfile(facts: Facts) -> Dependencies:
    lock = facts.json("Pipfile.lock").get("default")
    if isinstance(lock, dict):
        lines = tuple(r for n, v in lock.items() if isinstance(v, dict) and (r := _from_constraint(n, v)))
        return _listed(lines, "Pipfile.lock")
    packages = facts.toml("Pipfile").get("packages")
    lines = tuple(r for n, v in packages.items() if (r := _from_constraint(n, v))) if isinstance(packages, dict) else ()
    return _listed(lines, "Pipfile")


def environment_key(facts: Facts, found: Dependencies, extras: tuple[str, ...], interpreter: str, content: str) -> str:
    """Return the key under which an environment is shared: equal keys hold equal packages.

    Args:
        facts: The folder.
        found: Its dependencies.
        extras: Packages that are added to them.
        interpreter: Path and version of the interpreter.
        content: Digest of the whole source, used only where the environment depends on it.
    """
    whole = hashlib.sha256(interpreter.encode())
    for path in sorted(found.said_in):
        whole.update(f"\0{path}\0{facts.texts.get(path, '')}".encode("utf-8", "surrogateescape"))
    for line in (*found.listing, *extras):
        whole.update(f"\n{line}".encode())
    if found.whole_source:
        whole.update(content.encode())
    return whole.hexdigest()[:24]
