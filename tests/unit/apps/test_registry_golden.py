"""Every registry file of tests/golden/registry gives exactly the problems that stand in the .txt beside it.

``FAIRWAY_UPDATE_GOLDEN=1`` writes the .txt files anew; read the diff.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fairway.apps.registry import load

GOLDEN = Path(__file__).parents[2] / "golden" / "registry"
CASES = sorted(p for p in GOLDEN.iterdir() if p.suffix == ".yaml" or p.is_dir())


def check_condition(expression: str) -> str | None:
    return None if expression.startswith("[STATUS]") else f"expected a known placeholder, got {expression!r}"


def render(case: Path, tree: Path) -> str:
    folder = tree / "compose" / "app-registry"
    (tree / "app").mkdir(parents=True)
    (tree / "app" / "docker-compose.yml").write_text("services: {}\n")
    (tree / "way-out").symlink_to("/usr")
    (tree / ".git").mkdir()
    if case.is_dir():
        shutil.copytree(case, folder)
    else:
        folder.mkdir(parents=True)
        shutil.copy(case, folder / "shop.yaml")
    registry = load(folder, check_condition=check_condition, trusted=())
    lines = [problem.render(folder) for problem in registry.problems]
    lines += [f"app {name}" for name in registry.apps]
    return "".join(f"{line.replace(str(tree), 'TREE')}\n" for line in lines)


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.stem)
def test_problems_are_as_written(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    got = render(case, tmp_path.resolve() / "tree")
    expected = case.with_suffix(".txt")
    if os.environ.get("FAIRWAY_UPDATE_GOLDEN"):
        expected.write_text(got)
    assert got == expected.read_text()


def test_what_may_be_a_password_is_not_repeated() -> None:
    told = [(case.read_text(), case.with_suffix(".txt").read_text()) for case in GOLDEN.glob("door*.yaml")]
    assert len(told) == 2
    assert all("hunter2" in written and "hunter2" not in problems for written, problems in told)
