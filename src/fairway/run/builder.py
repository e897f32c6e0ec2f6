"""Builds apps: finds out what a folder is, plans, executes the plan, and keeps the result as a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fairway.run.failure import BuildError

if TYPE_CHECKING:
    from fairway.apps.spec import AppSpec
    from fairway.concurrency import Context, SendChan
    from fairway.run.progress import BuildProgress
    from fairway.run.release import Release

__all__ = ["BuildError", "Builder"]


class Builder:
    """Builds apps into releases below one state folder, a bounded number at a time.

    Args:
        state: The state folder (``.fairway``), created where missing, 0700.
        concurrency: Builds that run at once, >= 1; None means one a CPU.
        step_timeout: Seconds that one build command may take, > 0.
    """

    def __init__(self, state: Path, *, concurrency: int | None = None, step_timeout: float = 900.0) -> None:
        self.state = state

    async def build(
        self, ctx: Context, app: AppSpec, progress: SendChan[BuildProgress] | None = None, *, force: bool = False
    ) -> Release:
        """Build `app` and return its release; an unchanged app returns the release that exists, without building.

        Atomic: the release appears whole or not at all. Cancelling `ctx` (or the task) kills the build's process
        group and removes what was half built.

        Args:
            ctx: Ends the build when done.
            app: The app, from the registry.
            progress: Where to tell how it goes; sends never block the build (a full channel misses a line).
            force: Build again although nothing has changed.

        Raises:
            BuildError: It cannot be built; names the failing command, its exit status, the log's last lines and path.
        """
        raise BuildError("the builder is being written", app=app.name)
