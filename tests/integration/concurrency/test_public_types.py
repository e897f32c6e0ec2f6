"""The public types of `fairway.concurrency` are complete: pyright finds no unknown and no inferred one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
def test_verifytypes_is_at_one_hundred_percent() -> None:
    # pyright finds an editable package by the interpreter on the path.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    arguments = ["--verifytypes", "fairway.concurrency", "--ignoreexternal", "--outputjson"]
    command = [sys.executable, "-m", "pyright", *arguments, "--pythonpath", sys.executable]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    report = json.loads(outcome.stdout)["typeCompleteness"]
    incomplete = [symbol["name"] for symbol in report["symbols"] if not symbol["isTypeKnown"]]
    assert incomplete == []
    assert report["completenessScore"] == 1
