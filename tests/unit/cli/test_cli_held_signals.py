"""A signal that meets the opening of the daemon waits until nothing is half done, and then ends what was started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.cli import foreground
from fairway.cli.project import Project
from fairway.platform.config import DaemonConfig

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was done; no daemon runs, and the signals of this process are put back afterwards."""
    done: list[str] = []
    monkeypatch.setattr("fairway.telemetry.log.configure", lambda **_: None)
    monkeypatch.setattr("fairway.platform.daemon.run", lambda *_: done.append("run"))
    monkeypatch.setattr(foreground, "_end_leftovers", lambda _: 0)
    earlier = {number: signal.getsignal(number) for number in BOTH}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield done
    for number, handler in earlier.items():
        signal.signal(number, handler)


def run(monkeypatch: pytest.MonkeyPatch, steps: list[str], folder: Path, *numbers: signal.Signals) -> int:
    """Run a daemon whose opening is met by the signals `numbers`."""

    @contextlib.contextmanager
    def opened(*_: object) -> Iterator[None]:
        try:
            for number in numbers:
                os.kill(os.getpid(), number)
            steps.append("opened")
            yield
        finally:
            steps.append("given up")

    monkeypatch.setattr("fairway.platform.opening.opened", opened)
    return foreground.run(Project(folder, found=True), DaemonConfig(folder, folder), background=True)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_one_waits_for_the_opening(
    monkeypatch: pytest.MonkeyPatch, steps: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    assert run(monkeypatch, steps, tmp_path, number) == 0
    assert steps == ["opened", "given up"]


def test_a_second_one_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, steps: list[str], tmp_path: Path) -> None:
    assert run(monkeypatch, steps, tmp_path, *BOTH) == 0
    assert steps == ["given up"]


def test_the_daemon_finds_the_handlers_that_asyncio_knows(
    monkeypatch: pytest.MonkeyPatch, steps: list[str], tmp_path: Path
) -> None:
    found: list[object] = []
    monkeypatch.setattr("fairway.platform.daemon.run", lambda *_: found.extend(map(signal.getsignal, BOTH)))
    assert run(monkeypatch, steps, tmp_path) == 0
    assert found == [signal.default_int_handler, foreground._interrupt]


def test_an_interrupt_that_is_ignored_stays_so(
    monkeypatch: pytest.MonkeyPatch, steps: list[str], tmp_path: Path
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(monkeypatch, steps, tmp_path, signal.SIGINT) == 0
    assert steps == ["opened", "run", "given up"]
