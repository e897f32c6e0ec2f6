"""The opening of the daemon costs no event loop, and its first lines cost nearly nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fairway.platform.lock import DaemonLock
from fairway.platform.machine import launch_digest

OPENING = """
import fairway.cli.plain, fairway.cli.starting, fairway.cli.foreground
import fairway.platform.opening, fairway.platform.config
import fairway.apps.registry, fairway.apps.memory, fairway.platform.starts, fairway.platform.loglines
import fairway.platform.recipe, fairway.run.sources, fairway.run.unchanged
"""
AHEAD = "import fairway.cli.ahead, fairway.cli.places, fairway.platform.owner, fairway.run.spare"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (OPENING, {"asyncio", "uvloop", "click", "logging", "fairway.concurrency", "yaml", "fairway.run.builder"}),
        (AHEAD, {"typing", "re", "click", "msgspec", "pathlib", "subprocess", "dataclasses"}),
    ],
)
def test_what_comes_first_imports_nothing_heavy(code: str, heavy: set[str]) -> None:
    lines = f"import sys; sys.path[:0] = {sys.path!r}\n{code}\nprint(*sorted(sys.modules))"
    argv = [sys.executable, "-I", "-S", "-c", lines]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert heavy & set(done.stdout.split()) == set()


def test_a_lock_tells_how_the_daemon_before_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    with DaemonLock(path) as lock:
        assert lock.clean, "there was none"
        lock.write("http://127.0.0.1:7070")
        left = path.read_text()
    with DaemonLock(path) as lock:
        assert lock.clean, "that one has ended in order"
    path.write_text(left)  # what is there when it is killed
    with DaemonLock(path) as lock:
        assert not lock.clean


@pytest.mark.parametrize(("memory", "cpus", "port"), [(None, None, None), (268435456, 0.5, 8080), (1, 2.0, None)])
def test_the_digest_of_a_launch_stays_what_it_was(memory: int | None, cpus: float | None, port: int | None) -> None:
    limits = SimpleNamespace(memory=memory, cpus=cpus)
    app = SimpleNamespace(limits=limits, compose_file=None, backend=SimpleNamespace(port=port))
    release = SimpleNamespace(id="20260131-142501337-9f86d081", kind="go")
    told = json.dumps([release.id, memory, cpus, port]).encode()
    assert launch_digest(cast(Any, app), cast(Any, release)) == hashlib.sha256(told).hexdigest()[:16]
