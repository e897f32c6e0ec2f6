"""A conversation with a container engine ends with an answer, whatever the machine lacks."""

from __future__ import annotations

import errno
import tempfile

import pytest

from fairway.command import Command
from fairway.run.engine import converse


async def test_a_disk_without_room_is_an_answer_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    assert await converse(Command(("docker", "rm", "x")), {}) == "docker: No space left on device"


async def test_a_client_that_is_not_there_is_an_answer() -> None:
    assert await converse(Command(("/nowhere/docker", "rm", "x")), {}) == "/nowhere/docker: No such file or directory"
