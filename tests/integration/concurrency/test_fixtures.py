"""The fixtures of the pytest plugin, in a pytest of their own: what they do to a bad test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

BAD = """
import asyncio
from fairway.concurrency import Chan

tasks = []

async def wait(ch):
    await ch.recv()

async def test_leak(no_leaks):
    tasks.append(asyncio.create_task(wait(Chan())))

async def test_deadlock(no_deadlocks):
    await wait(Chan())
"""


def test_the_fixtures_fail_a_bad_test_and_say_where(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(BAD)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", str(tmp_path)]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 1, outcome.stdout
    assert "1 failed, 1 passed, 1 error" in outcome.stdout
    assert "Leaked: 1 left behind:" in outcome.stdout
    assert "all tasks are asleep - deadlock!" in outcome.stdout
    assert "test_bad.py:8 (wait) in Chan.recv" in outcome.stdout
