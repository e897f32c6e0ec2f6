"""Rules that other programs check: the layers, and the Go modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest


def test_layers_hold(repository: Any) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=repository.root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(
            f"{done.stdout}{done.stderr}\nfix: see the layers in pyproject.toml, [tool.importlinter]", pytrace=False
        )


def test_go_modules_are_vetted_and_formatted(
    repository: Any, toolchain_env: Callable[[Literal["go", "node"]], Mapping[str, str]]
) -> None:
    env = {**os.environ, **toolchain_env("go"), "GOFLAGS": "-mod=readonly"}
    go = shutil.which("go", path=env["PATH"])
    assert go is not None
    modules = [repository.root / Path(p).parent for p in repository.files if Path(p).name == "go.mod"]
    assert modules, "expected Go modules in apps/ and pkg/, found none"
    gofmt = shutil.which("gofmt", path=env["PATH"]) or str(Path(go).resolve().with_name("gofmt"))
    for module in modules:
        vetted = subprocess.run([go, "vet", "./..."], cwd=module, env=env, capture_output=True, text=True, check=False)
        assert vetted.returncode == 0, f"go vet ./... in {module}:\n{vetted.stderr}"
        unformatted = subprocess.run([gofmt, "-l", "."], cwd=module, capture_output=True, text=True, check=True).stdout
        assert not unformatted, f"gofmt -w in {module}:\n{unformatted}"
