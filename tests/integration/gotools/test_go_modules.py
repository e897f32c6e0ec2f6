"""`go test` over every Go module of the repository, with the race detector where a C compiler is there for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]


def modules() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*go.mod"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    return [str(Path(line).parent) for line in listed.splitlines() if (REPOSITORY / line).is_file()]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", modules())
def test_go_module(module: str, toolchain_env: Callable[[str], Mapping[str, str]]) -> None:
    # Without the variables of this test run: what a module tests against a Fairway has a test of its own.
    env = {key: value for key, value in os.environ.items() if not key.startswith("FAIRWAY_")}
    env.update(toolchain_env("go"))
    race = ["-race"] if shutil.which("gcc") or shutil.which("clang") else []
    done = subprocess.run(
        ["go", "test", *race, "./..."], cwd=REPOSITORY / module, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
