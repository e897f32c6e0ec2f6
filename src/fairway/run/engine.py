"""Short conversations with a container engine through its client: does an image exist, clear away a container."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.command import Command
from fairway.run import compose
from fairway.run.buildlog import BuildLog
from fairway.run.executor import execute

if TYPE_CHECKING:
    from fairway.run.release import Release

_ASK_TIMEOUT = 20.0


async def converse(command: Command, environment: Mapping[str, str], timeout: float = _ASK_TIMEOUT) -> str:
    """Run one command of the engine's client and return why it failed, or an empty string where it did not.

    Cancelling it ends the client; what the engine has been asked for by then may still happen.

    Args:
        command: What to run; its `env` comes over `environment`.
        environment: The rest of its environment.
        timeout: Seconds it may take, > 0.
    """
    try:
        folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="fairway-engine-")
        try:
            with BuildLog(Path(folder.name) / "answer.log") as log:
                outcome = await execute(command, log, environment=environment, timeout=timeout)
                if outcome.ok:
                    return ""
                return f"{outcome}: {log.tail[-1]}" if log.tail else str(outcome)
        finally:
            await asyncio.to_thread(folder.cleanup)
    except OSError as error:  # no such program, or no room for its answer: the caller still has an instance to end
        return f"{command.argv[0]}: {error.strerror or error}"


def images_of(release: Release) -> tuple[tuple[str, str], ...]:
    """Return the images that were made for a release alone, each after the engine's client that made it."""
    if not release.in_container:
        return ()
    client, *_, last = release.processes["web"].argv
    images = (last,) if release.kind == "docker" else compose.images_of(release.build_directory)
    return tuple((client, image) for image in images)


async def remove_image(docker: str, image: str, environment: Mapping[str, str]) -> None:
    """Remove an image that nobody needs any more; one that is gone, or in use, is left as it is."""
    await converse(Command((docker, "image", "rm", image)), environment)


async def has_image(docker: str, image: str, environment: Mapping[str, str]) -> bool:
    """Say whether the engine has an image; False too where no engine answers."""
    return not await converse(Command((docker, "image", "inspect", "--format", "{{.Id}}", image)), environment)
