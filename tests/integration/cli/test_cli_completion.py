"""The completion of a real bash on a terminal: commands, options and the names of apps."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")]

_PATIENCE = 30.0


class Terminal:
    """A bash on a terminal of its own, in a project with the apps go-api and gopher."""

    def __init__(self, root: Path) -> None:
        registry = root / "compose" / "app-registry"
        registry.mkdir(parents=True)
        for name in ("go-api", "gopher", "other"):
            (registry / f"{name}.yaml").write_text(f"name: {name}\nsource: ../..\n")
        (root / "bin").mkdir()
        launcher = root / "bin" / "fairway"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fairway "$@"\n')
        launcher.chmod(0o755)
        self._end, child = pty.openpty()
        env = {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "> ", "HOME": str(root)}
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=root, env=env, stdin=child, stdout=child, stderr=child, start_new_session=True,
        )  # fmt: skip
        os.close(child)
        self.type('eval "$(fairway completion bash)"; bind "set bell-style none"; echo lo""aded\n', "loaded")

    def type(self, keys: str, wanted: str) -> str:
        """Type `keys` and return what came until `wanted` was part of it."""
        os.write(self._end, keys.encode())
        said, until = "", time.monotonic() + _PATIENCE
        while wanted not in said:
            ready, _, _ = select.select([self._end], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"expected {wanted!r} after {keys!r}, got {said!r}"
            said += os.read(self._end, 4096).decode()
        return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._end)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path)
    try:
        yield found
    finally:
        found.close()


def test_bash_completes_commands_options_and_apps(terminal: Terminal) -> None:
    terminal.type("fairway dep\t", "fairway deploy ")
    terminal.type("go-\t", "go-api ")
    terminal.type("--pl\t", "--plan ")
    terminal.type("\x15fairway restart g\t", "fairway restart go")
    shown = terminal.type("\t\t", "gopher")
    assert "go-api" in shown
    assert "other" not in shown
    terminal.type("\x15fairway up oth\t", "other ")
    terminal.type("go-\t", "go-api ")
