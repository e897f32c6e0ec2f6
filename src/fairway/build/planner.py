"""Decides what a folder is and how it starts, for all languages; pure: facts and tools in, commands out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairway.build import docker, dotnet, golang, node, python
from fairway.build.facts import Facts
from fairway.build.plan import Built, Kind, Layout, Needs, PlanError, StartPlan, Step, Tool, ToolName
from fairway.build.python_dependencies import read_dependencies
from fairway.build.python_entry import find_entry
from fairway.build.words import Line
from fairway.command import Command

BEFORE = "release"  # the Procfile process that runs once before a release takes traffic, as on Heroku
_LANGUAGE_WORDS: dict[str, Kind] = {
    "gunicorn": "python", "uvicorn": "python", "hypercorn": "python", "daphne": "python", "granian": "python",
    "waitress-serve": "python", "python": "python", "python3": "python", "flask": "python", "fastapi": "python",
    "node": "node", "npm": "node", "yarn": "node", "pnpm": "node", "npx": "node", "next": "node",
    "dotnet": "dotnet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the registry entry says itself; it wins over everything that is detected.

    Attributes:
        runtime: ``auto``, ``process`` or ``compose``.
        compose_file: Compose file named by the entry, or None.
        command: Start command of ``web``, or None.
        build: Build commands that replace the detected ones, or None.
        processes: Further start commands by name.
        env: Names of the app's variables.
    """

    runtime: str = "auto"
    compose_file: Path | None = None
    command: tuple[str, ...] | None = None
    build: tuple[tuple[str, ...], ...] | None = None
    processes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    env: tuple[str, ...] = ()


def detect(facts: Facts, wishes: Wishes) -> Kind:
    """Return what a folder is.

    The order: the runtime that the entry forces; the language of the Procfile's ``web``; Go, C#, Python, Node by their
    files (a Python app with a package.json for its front end is Python, unless only the package is a server); a
    command in the entry; a Dockerfile; a Compose file.

    Raises:
        PlanError: Nothing tells.
    """
    if wishes.runtime == "compose":
        return "compose" if wishes.compose_file or docker.compose_file(facts) else _image(facts)
    language = _language(facts, wishes)
    if language is not None:
        return language
    if wishes.command or "web" in wishes.processes or "web" in facts.procfile:
        return "command"
    if wishes.runtime == "auto" and wishes.compose_file:
        return "compose"
    if wishes.runtime == "auto" and facts.has("Dockerfile"):
        return "docker"
    if wishes.runtime == "auto" and docker.compose_file(facts):
        return "compose"
    raise PlanError(
        f"expected go.mod, pyproject.toml, requirements.txt, package.json, a .csproj file, a Procfile or a Dockerfile "
        f"in the source folder of {facts.app}, found none among {len(facts.files)} files"
    )


def _image(facts: Facts) -> Kind:
    if facts.has("Dockerfile"):
        return "docker"
    raise PlanError(f"expected a Dockerfile or a Compose file in the source folder of {facts.app}, found neither")


def _language(facts: Facts, wishes: Wishes) -> Kind | None:
    present: dict[Kind, bool] = {
        "go": facts.has("go.mod"),
        "dotnet": any(t.endswith((".csproj", ".fsproj")) for t in facts.texts),
        "python": python.is_python(facts),
        "node": facts.has("package.json"),
    }
    first = (wishes.command or wishes.processes.get("web") or ())[:1]
    if not first and "web" in facts.procfile:
        line = facts.procfile["web"]
        first = line.words[:1] or tuple(re.findall(r"[\w.-]+", line.shell.rpartition("exec ")[2])[:1])
    named = _LANGUAGE_WORDS.get(Path(first[0]).name) if first else None
    if named and present[named]:
        return named
    if present["python"] and present["node"] and not facts.has("manage.py") and node.is_server(facts):
        found = read_dependencies(facts)
        present["python"] = find_entry(facts, found.names) is not None
    return next((kind for kind, there in present.items() if there), None)


def without_toolchain(kind: Kind, facts: Facts, wishes: Wishes) -> Kind | None:
    """Return the engine that can build and run a folder whose toolchain cannot be had, or None."""
    if wishes.runtime != "auto" or kind in ("docker", "compose", "command"):
        return None
    if wishes.compose_file or docker.compose_file(facts):
        return "compose"
    return "docker" if facts.has("Dockerfile") else None


def needs(kind: Kind, facts: Facts) -> tuple[Needs, ...]:
    """Return the toolchains that a build of this kind wants."""
    if kind == "go":
        return (golang.needs(facts),)
    if kind == "node":
        manager = node.lock_manager(facts)
        extra: tuple[ToolName, ...] = ("yarn",) if manager == "yarn" else ("pnpm",) if manager == "pnpm" else ()
        return (node.needs(facts), *(Needs(name) for name in extra))
    if kind == "python":
        return (Needs("python"), Needs("uv"))
    if kind == "dotnet":
        return (Needs("dotnet"),)
    if kind == "compose":
        return (Needs("docker"), Needs("compose", (2,)))
    return (Needs("docker"),) if kind == "docker" else ()


@dataclass(frozen=True, slots=True)
class Resolution:
    """All that `plan_steps` and `plan_start` decide from.

    Attributes:
        kind: From `detect`.
        facts: The folder.
        wishes: The registry entry's own words.
        layout: Where it is built.
        tools: Toolchains by name; those that are missing are left out.
        search_path: ``PATH`` of the machine, for programs that no toolchain brings.
        find_program: Looks a name up on `search_path` and gives the absolute path, or None.
        digest: Digest of the build, for an image's tag.
        compose: The Compose file of this release, or None for the one that lies in the folder.
    """

    kind: Kind
    facts: Facts
    wishes: Wishes
    layout: Layout
    tools: Mapping[str, Tool]
    search_path: str
    find_program: Callable[[str], str | None]
    digest: str
    compose: docker.ComposeProject | None = None


def plan_steps(about: Resolution, built: Built) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Return the build's commands and notes; the entry's own ``build`` replaces what would be detected.

    Args:
        about: What is to be built.
        built: Programs of the Python environment, where there is one already.
    """
    if about.wishes.build is not None:
        steps = tuple(
            Step(" ".join(words)[:80], _resolved(about, built, Line(words))) for words in about.wishes.build if words
        )
        return steps, ()
    facts, layout, tools = about.facts, about.layout, about.tools
    if about.kind == "go":
        plan = golang.plan_build(facts, layout, tools["go"])
    elif about.kind == "python":
        plan = python.plan_build(facts, layout)
    elif about.kind == "node":
        manager = tools.get(node.lock_manager(facts))
        plan = node.plan_build(facts, layout, tools["node"], manager)
    elif about.kind == "dotnet":
        plan = dotnet.plan_build(facts, layout, tools["dotnet"])
    elif about.kind == "docker":
        plan = docker.plan_image(facts, layout, tools["docker"], about.digest)
    elif about.kind == "compose":
        plan = docker.plan_compose(about.compose or compose_project(facts, about.wishes, layout), tools["docker"])
    else:
        return (), ()
    return plan.steps, plan.notes


def compose_project(facts: Facts, wishes: Wishes, layout: Layout) -> docker.ComposeProject:
    """Return the Compose file of the entry, else of the source folder, as it lies there."""
    file = wishes.compose_file or layout.source / (docker.compose_file(facts) or "compose.yaml")
    return docker.ComposeProject(facts.app, file.parent, (file,))


def plan_start(about: Resolution, built: Built) -> StartPlan:
    """Return how to start what was built: the entry's commands, then the Procfile's, then what is detected.

    Raises:
        PlanError: Nothing says how to start, or a start command names a program that is nowhere.
    """
    if about.kind == "docker":
        return docker.start_image(about.facts, about.layout, about.tools["docker"], about.digest, about.wishes.env)
    if about.kind == "compose":
        project = about.compose or compose_project(about.facts, about.wishes, about.layout)
        return docker.start_compose(project, about.tools["docker"])
    lines = dict(about.facts.procfile)
    lines.update({name: Line(words) for name, words in about.wishes.processes.items()})
    if about.wishes.command:
        lines["web"] = Line(about.wishes.command)
    before_line = lines.pop(BEFORE, None)
    processes: dict[str, Command] = {}
    env = _conventions(about)
    notes: tuple[str, ...] = ()
    if "web" not in lines:
        try:
            plan = _default_start(about, built)
        except PlanError:
            if not lines:
                raise
        else:
            processes.update(plan.processes)
            env, notes = {**env, **plan.env}, plan.notes
    for name in sorted(lines, key=lambda n: (n != "web", n)):
        processes[name] = _resolved(about, built, lines[name])
    before = _resolved(about, built, before_line) if before_line else None
    return StartPlan(
        {n: _with_path(about, c) for n, c in processes.items()},
        env,
        _with_path(about, before) if before else None,
        notes,
    )


def _conventions(about: Resolution) -> dict[str, str]:
    base = {"HOST": "127.0.0.1"}
    if about.kind == "python":
        return {**base, **python.ENV}
    if about.kind == "node":
        return {**base, **node.ENV}
    if about.kind == "dotnet":
        return {**base, **dotnet.ENV, **about.tools["dotnet"].env}
    return base


def _default_start(about: Resolution, built: Built) -> StartPlan:
    facts, layout, tools = about.facts, about.layout, about.tools
    if about.kind == "go":
        return StartPlan({"web": golang.default_start(facts, layout)})
    if about.kind == "python":
        return python.default_start(facts, layout, built)
    if about.kind == "node":
        return node.default_start(facts, layout, tools["node"], built)
    if about.kind == "dotnet":
        return dotnet.default_start(facts, layout, tools["dotnet"], built)
    raise PlanError(
        f"expected a `command` in the registry entry of {facts.app} or `web:` in its Procfile, found neither"
    )


def _resolved(about: Resolution, built: Built, line: Line) -> Command:
    """Return a command line with its program found: of the build, the environment, the toolchain or the machine."""
    facts, layout, tools = about.facts, about.layout, about.tools
    if about.kind == "node" and "node" in tools:
        command = node.line_command(facts, layout, tools["node"], built, line)
        return Command((_program(about, built, command.argv[0]), *command.argv[1:]), command.env, layout.source)
    if line.shell or not line.words:
        return Command(("/bin/sh", "-c", line.shell), line.env, layout.source)
    return Command((_program(about, built, line.words[0]), *line.words[1:]), line.env, layout.source)


def _program(about: Resolution, built: Built, word: str) -> str:
    facts, layout, tools = about.facts, about.layout, about.tools
    if word.startswith("/"):
        return word
    found: str | None = None
    beside_source = layout.source / word
    if "/" in word and beside_source.is_file():
        return str(beside_source)
    if about.kind == "go" and about.wishes.build is None:
        found = golang.program(facts, layout, word)
    elif about.kind == "python":
        found = python.program(layout, built, word)
    if found is None and word in tools:
        found = tools[word].path
    if found is None and word in ("npm", "npx", "corepack") and "node" in tools:
        found = str(Path(tools["node"].path).parent / word)
    found = found or about.find_program(word)
    if found is None:
        raise PlanError(f"expected the program {word!r} of a command of {facts.app} to be there, it is not")
    return found


def _with_path(about: Resolution, command: Command) -> Command:
    """Put the toolchain's and the app's own programs in front of ``PATH``, for what a program starts by itself."""
    folders: list[str] = []
    env: dict[str, str] = {}
    if about.layout.environment is not None:
        folders.append(str(about.layout.environment / "bin"))
        env["VIRTUAL_ENV"] = str(about.layout.environment)
    if about.kind == "go":
        folders.append(str(about.layout.output))
    if about.kind == "node":
        folders.append(str(about.layout.source / "node_modules" / ".bin"))
    folders += [str(Path(t.path).parent) for n, t in about.tools.items() if n in ("node", "dotnet")]
    env["PATH"] = ":".join(dict.fromkeys([*folders, *about.search_path.split(":")]))
    return Command(command.argv, {**env, **{k: v for k, v in command.env.items() if k != "PATH"}}, command.cwd)
