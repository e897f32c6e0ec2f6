"""What is installed, what is missing, what for, and how to get it: the data behind `fairway doctor`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Literal

import msgspec

from fairway.build.plan import ToolName
from fairway.run.toolchain import Toolchains, how_to_get, own_python

State = Literal["ok", "fetched", "fetchable", "missing"]

# What a toolchain is needed for; the order is the order of the table.
_TOOLS: tuple[tuple[ToolName, str], ...] = (
    ("go", "apps with go.mod"),
    ("node", "apps with package.json"),
    ("dotnet", "apps with a .csproj or .fsproj file"),
    ("uv", "faster Python environments, and Python versions that are not installed"),
    ("yarn", "apps with yarn.lock; without it npm brings one for each build"),
    ("pnpm", "apps with pnpm-lock.yaml; without it npm brings one for each build"),
    ("docker", "apps with `runtime: compose` or nothing but a Dockerfile"),
    ("compose", "apps with a Compose file that run by it: the plugin of docker"),
)
_SERVERS: tuple[tuple[str, str, str], ...] = (
    ("nginx", "`fairway nginx`, and gRPC faces", "apt install nginx, or brew install nginx"),
    ("redis-server", "jobs and events on more than one machine", "apt install redis-server, or brew install redis"),
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One tool.

    Attributes:
        tool: Its name.
        state: ``ok`` (installed), ``fetched`` (in Fairway's cache), ``fetchable`` (is fetched when an app needs it) or
            ``missing``.
        version: Its version, or an empty string.
        needed_for: Which apps or commands need it.
        how_to_get: What to do; an empty string where nothing has to be done.
    """

    tool: str
    state: State
    version: str
    needed_for: str
    how_to_get: str


def findings(toolchains: Toolchains | None = None) -> list[Finding]:
    """Look at the machine and return what there is; starts each tool once to ask its version.

    Must not be called from a running event loop; `look` is the form for that.
    """
    return asyncio.run(look(toolchains))


async def look(toolchains: Toolchains | None = None) -> list[Finding]:
    """Return what `findings` returns; the tools are asked at the same time."""
    toolchains = toolchains or Toolchains()
    python = own_python()
    own = "Fairway itself, and apps in Python"
    rows = [Finding(tool="python", state="ok", version=python.version_text, needed_for=own, how_to_get="")]
    rows += await asyncio.gather(*(_tool(toolchains, name, needed_for) for name, needed_for in _TOOLS))
    rows += [_server(toolchains, *row) for row in _SERVERS]
    if sys.platform == "linux":
        rows.append(_cgroups())
    return rows


async def _tool(toolchains: Toolchains, name: ToolName, needed_for: str) -> Finding:
    tool = await toolchains.find(name)
    if tool is not None:
        fetched = tool.path.startswith(str(toolchains.cache))
        state: State = "fetched" if fetched else "ok"
        return Finding(tool=name, state=state, version=tool.version_text, needed_for=needed_for, how_to_get="")
    if name in ("go", "node"):
        how = "Nothing: it is fetched from the Python package index when an app needs it."
        return Finding(tool=name, state="fetchable", version="", needed_for=needed_for, how_to_get=how)
    how = how_to_get(name)
    if name == "docker" and toolchains.which("docker"):
        how = "Start the engine: the client is here, nothing answers it."
    return Finding(tool=name, state="missing", version="", needed_for=needed_for, how_to_get=how)


def _server(toolchains: Toolchains, name: str, needed_for: str, how: str) -> Finding:
    path = toolchains.which(name)
    state: State = "ok" if path else "missing"
    return Finding(tool=name, state=state, version="", needed_for=needed_for, how_to_get="" if path else how)


def _cgroups() -> Finding:
    from fairway.run.cgroup import discover, remove_base

    where = discover(f"fairway-doctor-{os.getpid()}")
    there = bool({"memory", "cpu"} & where.controllers or where.memory or where.cpu)
    remove_base(where)
    return Finding(
        tool="cgroups", state="ok" if there else "missing", version="", needed_for="`limits: {memory, cpus}`",
        how_to_get="" if there else "Start the daemon as a systemd service with Delegate=yes, or as root.",
    )  # fmt: skip
