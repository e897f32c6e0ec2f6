"""Fixtures of the door's tests: a door as a process of its own and a scripted upstream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported by path; the peers they share are a module

from door_peers import BODY_LIMIT, HEADER_TIMEOUT, DoorProcess, ScriptedUpstream  # needs the line above


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    yield server
    server.close()


@pytest.fixture(scope="session")
def door(upstream: ScriptedUpstream) -> Iterator[DoorProcess]:
    """The door that most tests share: short timeouts, a small body limit, nobody trusted."""
    process = DoorProcess(
        *("--route", f"app.test=127.0.0.1:{upstream.port}"),
        *("--route", "refused.test=127.0.0.1:1"),
        *("--body-limit", str(BODY_LIMIT)),
        *("--header-timeout", str(HEADER_TIMEOUT), "--body-timeout", "1", "--upstream-timeout", "1"),
    )
    yield process
    status = process.stop()
    assert "Traceback" not in process.errors(), process.errors()
    assert status in {0, 1}


@pytest.fixture(scope="session")
def trusting_door(upstream: ScriptedUpstream) -> Iterator[DoorProcess]:
    """A door that believes X-Forwarded-* of this machine."""
    process = DoorProcess("--route", f"app.test=127.0.0.1:{upstream.port}", "--trusted", "127.0.0.0/8")
    yield process
    process.stop()
    assert "Traceback" not in process.errors(), process.errors()


_paths = iter(range(1_000_000))


@pytest.fixture
def path() -> str:
    """A path of this test's own, so that what the upstream saw can be told apart."""
    return f"/t{next(_paths)}"
