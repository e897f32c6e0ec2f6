"""Plans for Node.js apps: install by the lock file, build, and start the real program, never ``npm run``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fairway.build.facts import Facts
from fairway.build.plan import BuildPlan, Built, Layout, Needs, PlanError, StartPlan, Step, Tool
from fairway.build.words import Line, parse_line
from fairway.command import Command

ENV = {"NODE_ENV": "production"}
_BUILD_ENV = {
    "CI": "1",
    "HUSKY": "0",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
    "YARN_NODE_LINKER": "node-modules",
    "YARN_ENABLE_TELEMETRY": "0",
    "NEXT_TELEMETRY_DISABLED": "1",
}
_DEFAULT_FILES = (
    "server.js", "index.js", "app.js", "main.js", "bin/www", "server.mjs", "index.mjs", "src/server.js", "src/index.js",
    "src/app.js", "src/main.js", "dist/main.js", "dist/index.js", "dist/server.js", "build/index.js",
)  # fmt: skip
_SERVER_FRAMEWORKS = frozenset(
    {"express", "koa", "fastify", "@nestjs/core", "@hapi/hapi", "hapi", "next", "restify", "hono"}
)
# A release runs in production: where a package tells that apart from `start`, this is the one.
_START_SCRIPTS = ("start:prod", "start:production", "start")
_RUNNERS = ("npm", "yarn", "pnpm")
_MAX_SCRIPT_DEPTH = 5
# Flags of nodemon that take a value.
_VALUED = [
    [f]
    for f in ("-w", "--watch", "-e", "--ext", "-i", "--ignore", "-d", "--delay", "-s", "--signal", "--config", "--cwd")
]


def needs(facts: Facts) -> Needs:
    """Return the Node version that ``engines`` asks for; it only ever warns, as npm does."""
    engines = _object(facts.json("package.json").get("engines"))
    numbers = re.findall(r"\d{1,9}", str(engines.get("node", "")))
    return Needs("node", (int(numbers[0]),) if numbers else (), "package.json")


def is_server(facts: Facts) -> bool:
    """Say whether the package looks like a server rather than a front end's build tools."""
    package = facts.json("package.json")
    dependencies = _object(package.get("dependencies"))
    return bool(_SERVER_FRAMEWORKS & dependencies.keys()) or "start" in _scripts(facts) or facts.has("server.js")


def lock_manager(facts: Facts) -> str:
    """Return ``npm``, ``yarn`` or ``pnpm``, by the lock file."""
    if facts.has("package-lock.json") or facts.has("npm-shrinkwrap.json"):
        return "npm"
    if facts.has("pnpm-lock.yaml"):
        return "pnpm"
    return "yarn" if facts.has("yarn.lock") else "npm"


def plan_build(facts: Facts, layout: Layout, node: Tool, manager: Tool | None = None) -> BuildPlan:
    """Return the install command by the lock file that is there, then the build script, if there is one.

    Args:
        facts: The folder.
        layout: Where it is built.
        node: Node; npm stands beside it.
        manager: An installed yarn or pnpm, where the lock file is theirs; else the package index brings one.
    """
    npm = str(Path(node.path).parent / "npm")
    env = {**_BUILD_ENV, **node.env}
    kind = lock_manager(facts)
    notes = []
    if kind == "npm":
        install = Command((npm, "install"), env, layout.source)
        if facts.has("package-lock.json") or facts.has("npm-shrinkwrap.json"):
            steps = [Step("npm ci", Command((npm, "ci"), env, layout.source), otherwise=install)]
        else:
            steps = [Step("npm install", install)]
            notes.append("no lock file: the next build may install other versions; commit a package-lock.json")
        runner: tuple[str, ...] = (npm,)
    else:
        runner = (
            (manager.path,) if manager else (npm, "exec", "--yes", f"--package={_fetched(facts, kind)}", "--", kind)
        )
        frozen = Command((*runner, "install", _frozen_flag(facts, kind)), env, layout.source)
        steps = [Step(f"{kind} install", frozen, otherwise=Command((*runner, "install"), env, layout.source))]
    if "build" in _scripts(facts):
        steps.append(Step(f"{kind} run build", Command((*runner, "run", "build"), env, layout.source)))
    elif "heroku-postbuild" in _scripts(facts):
        steps.append(Step("heroku-postbuild", Command((*runner, "run", "heroku-postbuild"), env, layout.source)))
    return BuildPlan("node", tuple(steps), tuple(notes))


def _fetched(facts: Facts, kind: str) -> str:
    """Return the package that brings yarn or pnpm, in the version that ``packageManager`` or the lock file asks for."""
    named = re.match(r"(yarn|pnpm)@([0-9]+(?:\.[0-9]+)*)", str(facts.json("package.json").get("packageManager", "")))
    if kind == "pnpm":
        return f"pnpm@{named[2]}" if named and named[1] == "pnpm" else "pnpm@9"
    if named and named[1] == "yarn" and not named[2].startswith("1"):
        return f"@yarnpkg/cli-dist@{named[2]}"
    return "yarn@1"


def _frozen_flag(facts: Facts, kind: str) -> str:
    berry = kind == "yarn" and _fetched(facts, kind).startswith("@yarnpkg")
    return "--immutable" if berry else "--frozen-lockfile"


def default_start(facts: Facts, layout: Layout, node: Tool, built: Built) -> StartPlan:
    """Return the start that ``scripts.start``, ``main`` or the usual file names give.

    Raises:
        PlanError: None of them is there.
    """
    for script in _START_SCRIPTS:
        if script in _scripts(facts):
            return StartPlan({"web": script_command(facts, layout, node, built, script)}, dict(ENV))
    main = facts.json("package.json").get("main")
    candidates = [str(main)] if isinstance(main, str) else []
    for path in (*candidates, *_DEFAULT_FILES):
        clean = path.removeprefix("./")
        for file in (clean, f"{clean}.js", f"{clean}/index.js"):
            if facts.has(file) or (layout.source / file).is_file():
                return StartPlan({"web": Command((node.path, file), {}, layout.source)}, dict(ENV))
    raise PlanError(
        f"expected `scripts.start` or `main` in package.json of {facts.app}, or a server.js or index.js, found none"
    )


def script_command(facts: Facts, layout: Layout, node: Tool, built: Built, script: str, *, depth: int = 0) -> Command:
    """Return what a script of package.json really starts.

    ``node x``, programs of ``node_modules/.bin``, ``NAME=value`` and cross-env in front, ``nodemon`` and one script
    calling another are taken apart; what needs a shell runs in one, as an ``exec``.

    Raises:
        PlanError: There is no such script, or scripts call each other in a circle.
    """
    text = _scripts(facts).get(script)
    if text is None:
        raise PlanError(f"expected a script {script!r} in package.json of {facts.app}, found: {_names(facts)}")
    if depth > _MAX_SCRIPT_DEPTH:
        raise PlanError(f"expected the script {script!r} of {facts.app} to start a program, got scripts in a circle")
    return line_command(facts, layout, node, built, _without_build(text), depth=depth)


def line_command(facts: Facts, layout: Layout, node: Tool, built: Built, line: Line, *, depth: int = 0) -> Command:
    """Return the command behind a command line of a Node app (of a Procfile, the registry entry or a script).

    Raises:
        PlanError: As in `script_command`.
    """
    path = f"{layout.source / 'node_modules' / '.bin'}:{Path(node.path).parent}"
    if line.shell or not line.words:
        return Command(("/bin/sh", "-c", line.shell), {"PATH": f"{path}:/usr/local/bin:/usr/bin:/bin"}, layout.source)
    words, env = list(line.words), dict(line.env)
    while words[0] in ("cross-env", "cross-env-shell", "env", "npx", "dotenv", "--"):
        words.pop(0)
        while words and "=" in words[0] and not words[0].startswith("-"):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if not words:
            raise PlanError(f"expected a program after {line.words[0]} in a script of {facts.app}, got none")
    called = _called_script(words)
    if called is not None and called in _scripts(facts):
        inner = script_command(facts, layout, node, built, called, depth=depth + 1)
        rest = words[words.index(called) + 1 :] if called in words else []
        extra = tuple(w for w in rest if w != "--")
        return Command((*inner.argv, *extra), {**env, **inner.env}, layout.source)
    return Command((*_program(node, built, words),), env, layout.source)


def _called_script(words: list[str]) -> str | None:
    if words[0] not in _RUNNERS or len(words) < 2:
        return None
    rest = [w for w in words[1:] if not w.startswith("-")]
    if rest and rest[0] in ("run", "run-script"):
        return rest[1] if len(rest) > 1 else None
    return rest[0] if rest else None


def _program(node: Tool, built: Built, words: list[str]) -> tuple[str, ...]:
    name, *arguments = words
    if name in ("node", "nodejs"):
        return (node.path, *arguments)
    if name == "nodemon":
        # A watcher has no place in a release, where no file changes: what it watches is started.
        executed = _after_flag(arguments, ("--exec", "-x"))
        if executed:
            return _program(node, built, executed.split())
        files = [a for at, a in enumerate(arguments) if not a.startswith("-") and arguments[at - 1 : at] not in _VALUED]
        return (node.path, *files) if files else (node.path, ".")
    found = built.programs.get(Path(name).name) if "/" not in name or ".bin/" in name else None
    if found is None:
        return (node.path, *words) if re.fullmatch(r".+\.[cm]?js", name) else tuple(words)
    return (node.path, str(found), *arguments) if Path(name).name in built.scripts else (str(found), *arguments)


def _after_flag(arguments: list[str], flags: tuple[str, ...]) -> str | None:
    for at, word in enumerate(arguments[:-1]):
        if word in flags:
            return arguments[at + 1]
    return None


def _without_build(text: str) -> Line:
    """Parse a script; building again in front of the start (``npm run build && node x``) is dropped, it was done."""
    return parse_line(re.sub(r"^\s*(?:npm|yarn|pnpm)\s+(?:run\s+)?(?:build|compile)\s*&&\s*", "", text))


def _scripts(facts: Facts) -> dict[str, str]:
    scripts = _object(facts.json("package.json").get("scripts"))
    return {str(name): text for name, text in scripts.items() if isinstance(text, str)}


def _names(facts: Facts) -> str:
    return ", ".join(sorted(_scripts(facts))) or "no scripts"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
