"""Python environments below the state folder, shared by apps and releases with equal dependency files."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fairway.build import python
from fairway.build.facts import Facts
from fairway.build.plan import Layout, Step, Tool
from fairway.build.python_dependencies import environment_key, read_dependencies
from fairway.run.artifact import COMPLETE, is_complete
from fairway.run.lock import locked
from fairway.run.toolchain import ToolchainError, Toolchains, how_to_get, numbers, own_python

_LISTING = "fairway-requirements.txt"


@dataclass(frozen=True, slots=True)
class EnvironmentWish:
    """What an environment is made from.

    Attributes:
        facts: The folder.
        content: Digest of its source.
        source: Copy of the source, in which relative requirements are read.
        named: The app's start command is given, so no server has to be added.
    """

    facts: Facts
    content: str
    source: Path
    named: bool


async def ensure_environment(
    state: Path,
    wish: EnvironmentWish,
    toolchains: Toolchains,
    run: Callable[[Step], Awaitable[None]],
    say: Callable[[str], None],
) -> Path:
    """Return the folder of an environment with the app's dependencies, made where there is none yet.

    Args:
        state: The state folder.
        wish: What it is made from.
        toolchains: Where uv and other interpreters are looked for.
        run: Executes one command; raises where it fails.
        say: Told what happens.

    Raises:
        ToolchainError: No interpreter fits what the app asks for.
    """
    # Parsing may take a moment (lock files, syntax trees): never on the event loop.
    found = await asyncio.to_thread(read_dependencies, wish.facts)
    extras = await asyncio.to_thread(python.added_servers, wish.facts, found, named=wish.named)
    uv = await toolchains.find("uv")
    interpreter = await _interpreter(wish.facts, toolchains, uv, say)
    identity = f"{interpreter.path} {interpreter.version_text}"
    key = environment_key(wish.facts, found, extras, identity, wish.content)
    folder = state / "venvs" / key
    if is_complete(folder):
        (folder / COMPLETE).touch()  # it is in use, or will be soon: pruning looks at the time
        return folder
    async with locked(state / "venvs", key):
        if is_complete(folder):
            return folder
        await asyncio.to_thread(shutil.rmtree, folder, True)
        if extras:
            say(f"{extras[0]} is added: the app names no server of its own")
        listing = wish.source.parent / _LISTING
        listing.write_text("".join(f"{line}\n" for line in (*found.listing, *extras)), encoding="utf-8")
        python.locked_file(listing).write_text("".join(f"{line}\n" for line in found.locked), encoding="utf-8")
        layout = Layout(wish.source, wish.source.parent / "output", folder)
        plan = python.plan_environment(layout, interpreter, uv, found, extras=extras, listing=listing)
        try:
            for step in plan.steps:
                await run(step)
            (folder / COMPLETE).touch(mode=0o600)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, True))
            raise
    return folder


async def _interpreter(facts: Facts, toolchains: Toolchains, uv: Tool | None, say: Callable[[str], None]) -> Tool:
    """Return the interpreter for an app: Fairway's own where it fits, else one of the search path, else one of uv's."""
    own = own_python()
    lower, upper, said_in = wanted_python(facts)
    if lower <= own.version and (not upper or own.version < upper):
        return own
    there = sorted(_installed(toolchains), key=lambda tool: tool.version)
    fitting = [t for t in there if t.version >= lower[:2] and (not upper or t.version < upper)]
    if fitting:
        return fitting[-1]
    wanted = f">={'.'.join(map(str, lower))}" + (f",<{'.'.join(map(str, upper))}" if upper else "")
    if uv is not None:
        # uv takes a version for --python and fetches an interpreter where none is there.
        return Tool(".".join(map(str, lower[:2])), lower)
    if said_in in ("runtime.txt", ".python-version"):
        # A pin of one release by a hosting service's file: the nearest interpreter mostly does.
        nearest = min([own, *there], key=lambda t: abs(t.version[1] - lower[1]))
        say(f"{said_in} asks for Python {wanted}, going on with {nearest.version_text}")
        return nearest
    raise ToolchainError(
        f"expected Python {wanted} as {said_in} of {facts.app} asks for, found {own.version_text}",
        hint=how_to_get("python"),
    )


def _installed(toolchains: Toolchains) -> list[Tool]:
    """Return the interpreters of the search path and of pyenv, by their names."""
    found = []
    for minor in range(8, 21):
        path = toolchains.which(f"python3.{minor}")
        # pyenv's shims stand for every version and fail for those that are not chosen.
        if path and "/shims/" not in path:
            found.append(Tool(path, (3, minor)))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for program in root.glob("versions/3.*/bin/python3"):
        version = numbers(program.parent.parent.name)
        if len(version) == 3:
            found.append(Tool(str(program), version))
    return found


def wanted_python(facts: Facts) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Return the least and the first too new Python version that a folder asks for, and the file that says so."""
    project = facts.toml("pyproject.toml")
    table, tool = project.get("project"), project.get("tool")
    text = str(table.get("requires-python", "")) if isinstance(table, dict) else ""
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    if not text and isinstance(poetry, dict) and isinstance(poetry.get("dependencies"), dict):
        text = str(poetry["dependencies"].get("python", ""))
        text = re.sub(r"\^(\d+)(\.[\d.]+)", lambda m: f">={m[1]}{m[2]},<{int(m[1]) + 1}", text)
    if text:
        lower = max((numbers(v) for v in re.findall(r"(?:>=|~=|==)\s*([\d.]+)", text)), default=())
        upper = min((numbers(v) for v in re.findall(r"<\s*([\d.]+)", text)), default=())
        return lower, upper, "pyproject.toml"
    for path in (".python-version", "runtime.txt"):
        version = numbers(facts.texts.get(path, ""))
        if len(version) >= 2:
            return version[:2], (version[0], version[1] + 1), path
    return (), (), ""
