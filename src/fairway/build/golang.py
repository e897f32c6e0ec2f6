"""Plans for Go modules."""

from __future__ import annotations

import re
from pathlib import Path

from fairway.build.facts import Facts
from fairway.build.plan import BuildPlan, Layout, Needs, PlanError, Step, Tool
from fairway.command import Command

_GO_DIRECTIVE = re.compile(r"^go[ \t]{1,20}(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", re.MULTILINE)
_MODULE = re.compile(r"^module[ \t]{1,20}\"?([^\s\"]{1,500})", re.MULTILINE)
_SERVERS = ("server", "api", "web", "app", "http", "service", "main", "serve")


def needs(facts: Facts) -> Needs:
    """Return the Go version that ``go.mod`` asks for."""
    match = _GO_DIRECTIVE.search(facts.texts.get("go.mod", ""))
    minimum = tuple(int(part) for part in match.groups() if part is not None) if match else ()
    return Needs("go", minimum, "go.mod")


def module_name(facts: Facts) -> str:
    """Return the last element of the module path, without a ``/v2`` suffix: what ``go install`` calls the binary."""
    match = _MODULE.search(facts.texts.get("go.mod", ""))
    parts = match[1].split("/") if match else [facts.app]
    if len(parts) > 1 and re.fullmatch(r"v\d+", parts[-1]):
        parts.pop()
    return parts[-1]


def binary_name(facts: Facts, folder: str) -> str:
    """Return what the binary of a main package is called."""
    return module_name(facts) if folder == "." else folder.rpartition("/")[2]


def choose_mains(facts: Facts) -> tuple[str, ...]:
    """Return the folders of the main packages to build, the one of ``web`` first.

    The rule: the programs that a Procfile starts; else the module root; else the only ``cmd/*``; else the one of
    ``cmd/*`` named as the app or the module, or ``server``, ``api``, ``web``, …; else the only main package there is.

    Raises:
        PlanError: No main package, or several and nothing says which.
    """
    mains = facts.go_mains
    if not mains:
        raise PlanError(f"expected a Go `package main` in the module of {facts.app}, found none")
    by_name = {binary_name(facts, folder): folder for folder in reversed(mains)}
    lines = facts.procfile
    named = [by_name[Path(w).name] for n in sorted(lines, key=lambda n: n != "web") for w in lines[n].words[:1]
             if Path(w).name in by_name]  # fmt: skip
    if named:
        return tuple(dict.fromkeys(named))
    if "." in mains:
        return (".",)
    commands = [m for m in mains if re.fullmatch(r"cmd(?:/[^/]+)?", m)] or list(mains)
    if len(commands) == 1:
        return (commands[0],)
    for wanted in (facts.app, module_name(facts), *_SERVERS):
        for folder in commands:
            if folder.rpartition("/")[2] == wanted:
                return (folder,)
    raise PlanError(
        f"expected one Go program in {facts.app}, or one named as the app, "
        f"found {len(commands)}: {', '.join(commands)}",
        hint=f"Say which one: `build: [[go, build, -o, bin/{facts.app}, ./{commands[0]}]]` and "
        f"`command: bin/{facts.app}` in the registry entry, or `web: bin/NAME` in a Procfile.",
    )


def plan_build(facts: Facts, layout: Layout, go: Tool) -> BuildPlan:
    """Return the ``go build`` commands of a module: one a chosen main package, into the output folder."""
    env = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", **go.env}
    if facts.has("vendor/modules.txt"):
        env["GOFLAGS"] += " -mod=vendor"
    steps = []
    for folder in choose_mains(facts):
        package = "." if folder == "." else f"./{folder}"
        output = layout.output / binary_name(facts, folder)
        argv = (go.path, "build", "-trimpath", "-o", str(output), package)
        steps.append(Step(f"go build {package}", Command(argv, env, layout.source)))
    return BuildPlan("go", tuple(steps))


def program(facts: Facts, layout: Layout, word: str) -> str | None:
    """Return the built binary that a start command means by ``bin/NAME``, ``./NAME`` or ``NAME``, or None."""
    names = {binary_name(facts, folder) for folder in choose_mains(facts)}
    path = Path(word)
    if path.name in names and str(path.parent) in (".", "bin", "/app/bin"):
        return str(layout.output / path.name)
    return None


def default_start(facts: Facts, layout: Layout) -> Command:
    """Return the command of ``web`` where nothing else names it: the first chosen program."""
    return Command((str(layout.output / binary_name(facts, choose_mains(facts)[0])),), {}, layout.source)
