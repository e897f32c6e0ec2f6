"""Sources made to hurt the detection: every pattern reads them in linear time, and what cannot be read is an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairway.build import dotnet, golang, node
from fairway.build.facts import Facts, gather
from fairway.build.plan import PlanError
from fairway.build.python_dependencies import read_dependencies
from fairway.build.python_entry import find_entry
from fairway.build.references import find_references
from fairway.build.words import parse_line

LARGE = 250_000


@contextmanager
def quickly(seconds: float = 1.0) -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


@pytest.mark.parametrize(
    "text",
    [
        "\n" * LARGE, "/*" * (LARGE // 2), "//" * (LARGE // 2), " " * LARGE + "package main",
        "/* */" * (LARGE // 5), "// x\n" * (LARGE // 5),
    ],
    ids=["newlines", "open comments", "slashes", "blanks", "comments", "lines"],
)  # fmt: skip
def test_go_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n")
    (tmp_path / "a.go").write_text(text)
    with quickly():
        assert gather("x", tmp_path).go_mains == ()


@pytest.mark.parametrize(
    "text", ["\n" * LARGE, " " * LARGE, "-e" + " " * LARGE, "=> " * 80_000, '"file:../' * 25_000, "path = " * 30_000]
)
def test_files_with_references(text: str, tmp_path: Path) -> None:
    for name in ("go.mod", "package.json", "requirements.txt", "pyproject.toml", "a.csproj"):
        (tmp_path / name).write_text(text)
    with quickly(2.0):
        assert find_references(tmp_path) == ()


@pytest.mark.parametrize("written", ["../lib\0", "../" + "x" * 400])
def test_a_reference_that_no_path_can_be_leads_nowhere(tmp_path: Path, written: str) -> None:
    (tmp_path / "go.mod").write_text(f"replace lib => {written}\n")
    assert find_references(tmp_path) == ()


@pytest.mark.parametrize(
    "text",
    ["<TargetFramework>" + " " * LARGE, "<TargetFramework>" * 15_000, "<AssemblyName>" * 15_000, "Sdk" + " " * LARGE],
)
def test_project_files(text: str) -> None:
    with quickly():
        assert dotnet.framework_override(text, (8, 0)) is None
        assert dotnet.choose_project(Facts("x", ("a.csproj",), {"a.csproj": text})) == "a.csproj"


@pytest.mark.parametrize("text", [" " * LARGE, ";" * LARGE, "'" * LARGE, "a && " * 50_000])
def test_command_lines(text: str) -> None:
    with quickly(), pytest.raises(PlanError, match="at most 4096"):
        parse_line(text)
    with quickly():
        parse_line(text[:4000])


def test_versions_of_endless_digits() -> None:
    digits = "9" * 6000
    with quickly():
        golang.needs(Facts("x", (), {"go.mod": f"module x\ngo 1.{digits}\n"}))
        node.needs(Facts("x", (), {"package.json": f'{{"engines": {{"node": "{digits}"}}}}'}))
        read_dependencies(Facts("x", (), {"pyproject.toml": f'[tool.poetry.dependencies]\na = "^{digits}"\n'}))


@pytest.mark.parametrize(
    "text",
    ["FastAPI(" + "-" * 100_000, "FastAPI" + "\n" * LARGE, "app = FastAPI()\n" * 15_000, "x = FastAPI" + ".a" * 50_000],
)
def test_python_files(text: str) -> None:
    facts = Facts("x", ("main.py",), {"main.py": text, "requirements.txt": ""})
    with quickly(5.0):
        find_entry(facts, frozenset())


def test_code_is_read_up_to_a_bound(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"m{number}.py").write_text("#" * 200_000)
    assert sum(map(len, gather("x", tmp_path).texts.values())) <= 4 << 20
