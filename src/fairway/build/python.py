"""Plans for Python apps: an environment shared by equal dependencies, and the server that the app names."""

from __future__ import annotations

import re
from pathlib import Path

from fairway.build.facts import Facts
from fairway.build.plan import BuildPlan, Built, Layout, PlanError, StartPlan, Step, Tool
from fairway.build.python_dependencies import Dependencies, read_dependencies
from fairway.build.python_entry import Entry, find_entry
from fairway.command import Command

SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "waitress")
_ASGI_ORDER = ("uvicorn", "granian", "hypercorn", "daphne")
_WSGI_ORDER = ("gunicorn", "waitress", "granian")
_SCRIPTS = ("main.py", "app.py", "server.py", "run.py", "__main__.py", "src/main.py", "api.py", "index.py")
_STATIC_ROOT = re.compile(r"^\s*STATIC_ROOT\s*=", re.MULTILINE)
ENV = {
    "PYTHONUNBUFFERED": "1",
    "FLASK_RUN_HOST": "127.0.0.1",
    "FLASK_RUN_PORT": "$PORT",
    "UVICORN_HOST": "127.0.0.1",
    "UVICORN_PORT": "$PORT",
    # Over a configuration file that binds a fixed port, under the command line.
    "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:$PORT",
    "GRANIAN_HOST": "127.0.0.1",
    "GRANIAN_PORT": "$PORT",
}


def is_python(facts: Facts) -> bool:
    """Say whether the folder is a Python app by its files."""
    marks = ("pyproject.toml", "requirements.txt", "Pipfile", "setup.py", "manage.py", "requirements/production.txt")
    return any(facts.has(m) for m in marks) or any(facts.has(s) for s in _SCRIPTS)


def added_servers(facts: Facts, found: Dependencies, *, named: bool) -> tuple[str, ...]:
    """Return the server package to add where the app has an application object and names no server for it.

    Args:
        facts: The folder.
        found: Its dependencies.
        named: The start command is given, so nothing is added.
    """
    if named or found.whole_source:
        return ()
    entry = find_entry(facts, found.names)
    if entry is None:
        return ()
    order = _ASGI_ORDER if entry.interface == "asgi" else _WSGI_ORDER
    return () if found.names & set(order) else (order[0],)


def plan_environment(
    layout: Layout, python: Tool, uv: Tool | None, found: Dependencies, *, extras: tuple[str, ...], listing: Path
) -> BuildPlan:
    """Return the commands that make the environment: with uv where it is there, else with venv and pip.

    Args:
        layout: `layout.environment` is the folder to make.
        python: Interpreter that the environment is for.
        uv: The faster installer, or None.
        found: What to install.
        extras: Packages to add.
        listing: File that `found.listing` and `extras` are written to before the commands run; `found.locked` is in
            the file beside it that `locked_file` names. Where the locked versions cannot be installed, the others are.
    """
    assert layout.environment is not None, "a Python app has an environment"
    folder = str(layout.environment)
    arguments = [*found.arguments]
    if found.listing or extras:
        arguments += ["-r", str(listing)]
    program = str(layout.environment / "bin" / "python")
    if uv is not None:
        make = Command((uv.path, "venv", "--quiet", "--python", python.path, folder), {}, layout.source)
        argv = (uv.path, "pip", "install", "--compile-bytecode", "--python", program, *arguments)
    else:
        make = Command((python.path, "-m", "venv", folder), {}, layout.source)
        argv = (
            program,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
            *arguments,
        )
    steps = [Step("create the Python environment", make)]
    if arguments:
        install = Command(argv, {}, layout.source)
        exact = Command((*argv, "-c", str(locked_file(listing))), {}, layout.source)
        title = f"install {_counted(found, extras)}"
        steps.append(Step(title, exact, otherwise=install) if found.locked else Step(title, install))
    return BuildPlan("python", tuple(steps))


def locked_file(listing: Path) -> Path:
    """Return the file of exact versions that goes with a listing."""
    return listing.with_name("fairway-constraints.txt")


def _counted(found: Dependencies, extras: tuple[str, ...]) -> str:
    count = len(found.names | set(extras))
    return f"{count} package{'s' * (count != 1)}" if count else "the dependencies"


def plan_build(facts: Facts, layout: Layout) -> BuildPlan:
    """Return what is left to do once the environment is there: Django's static files, where it collects any."""
    if not facts.has("manage.py") or layout.environment is None:
        return BuildPlan("python")
    if any(_STATIC_ROOT.search(text) for path, text in facts.texts.items() if path.endswith(".py")):
        argv = (
            str(layout.environment / "bin" / "python"),
            "manage.py",
            "collectstatic",
            "--noinput",
            "--verbosity",
            "0",
        )
        return BuildPlan("python", (Step("collect static files", Command(argv, {}, layout.source), optional=True),))
    return BuildPlan("python")


def program(layout: Layout, built: Built, word: str) -> str | None:
    """Return the absolute program for the first word of a start command, or None where the environment has none."""
    assert layout.environment is not None, "a Python app has an environment"
    if word in ("python", "python3") or re.fullmatch(r"python3\.\d+", word):
        return str(layout.environment / "bin" / "python")
    found = built.programs.get(Path(word).name) if "/" not in word else None
    return str(found) if found else None


def default_start(facts: Facts, layout: Layout, built: Built) -> StartPlan:
    """Return the start of an app that says nothing itself: its server with its application object, else its script.

    Raises:
        PlanError: There is neither.
    """
    assert layout.environment is not None, "a Python app has an environment"
    found = read_dependencies(facts)
    entry = find_entry(facts, found.names)
    python = str(layout.environment / "bin" / "python")
    if entry is not None:
        server = _server_for(entry, found, built)
        if server is not None:
            env = {} if entry.folder == "." else {"PYTHONPATH": str(layout.source / entry.folder)}
            cwd = layout.source
            if entry.folder not in (".", "src"):
                cwd = layout.source / entry.folder
            return StartPlan({"web": Command(_server_argv(server, entry, layout), env, cwd)}, dict(ENV))
    script = _project_script(facts, python)
    if script is not None:
        return StartPlan({"web": Command(script, _src_path(facts, layout), layout.source)}, dict(ENV))
    for path in _SCRIPTS:
        if facts.has(path):
            return StartPlan({"web": Command((python, path), {}, layout.source)}, dict(ENV))
    raise PlanError(
        f"expected an application object (FastAPI, Flask, Starlette, Django, …), a script in pyproject.toml or one of "
        f"{', '.join(_SCRIPTS[:4])} in {facts.app}, found none"
    )


def _src_path(facts: Facts, layout: Layout) -> dict[str, str]:
    folder = layout.source / "src"
    return {"PYTHONPATH": str(folder)} if any(f.startswith("src/") for f in facts.files) else {}


def _server_for(entry: Entry, found: Dependencies, built: Built) -> str | None:
    order = _ASGI_ORDER if entry.interface == "asgi" else _WSGI_ORDER
    binary = {"waitress": "waitress-serve"}
    named = [s for s in order if s in found.names and binary.get(s, s) in built.programs]
    present = [s for s in order if binary.get(s, s) in built.programs]
    return next(iter(named or present), None)


def _server_argv(server: str, entry: Entry, layout: Layout) -> tuple[str, ...]:
    assert layout.environment is not None, "a Python app has an environment"
    binary = str(layout.environment / "bin" / server)
    target = f"{entry.module}:{entry.attribute}"
    called = f"{target}()" if entry.factory else target
    factory = ("--factory",) if entry.factory else ()
    if server == "uvicorn":
        return (binary, target, "--host", "127.0.0.1", "--port", "$PORT", *factory)
    if server == "gunicorn":
        return (binary, called, "--bind", "127.0.0.1:$PORT")
    if server == "hypercorn":
        return (binary, called, "--bind", "127.0.0.1:$PORT")
    if server == "granian":
        return (binary, "--interface", entry.interface, "--host", "127.0.0.1", "--port", "$PORT", *factory, target)
    if server == "daphne":
        return (binary, "-b", "127.0.0.1", "-p", "$PORT", target)
    call = ("--call",) if entry.factory else ()
    return (f"{binary}-serve", "--host", "127.0.0.1", "--port", "$PORT", *call, target)


def _project_script(facts: Facts, python: str) -> tuple[str, ...] | None:
    """Return how to run the script that ``pyproject.toml`` names, without installing the project."""
    document = facts.toml("pyproject.toml")
    project, tool = document.get("project"), document.get("tool")
    scripts: dict[str, object] = {}
    for table in (project, tool.get("poetry") if isinstance(tool, dict) else None):
        if isinstance(table, dict) and isinstance(table.get("scripts"), dict):
            scripts.update(table["scripts"])
    wanted = [n for n in (facts.app, "web", "start", "serve", "server", "run", "api", "app") if n in scripts]
    chosen = wanted[0] if wanted else (next(iter(scripts)) if len(scripts) == 1 else None)
    match = re.fullmatch(r"([\w.]+):([\w.]+)", str(scripts[chosen])) if chosen else None
    if match is None:
        return None
    return (python, "-c", f"import sys; from {match[1]} import {match[2]} as run; sys.exit(run())")
