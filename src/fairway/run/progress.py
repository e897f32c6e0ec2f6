"""What a build tells whoever watches it."""

from __future__ import annotations

from typing import Literal

import msgspec

BuildPhase = Literal["check", "toolchain", "copy", "build", "finish", "cached", "failed"]


class BuildProgress(msgspec.Struct, frozen=True):
    """One step forward of one app's build, for a terminal or a log.

    Attributes:
        app: Name of the app.
        phase: Which part of the build this is; ``cached``, ``finish`` and ``failed`` are the last of a build.
        message: One line for a person, without control characters; never a secret.
        fraction: Share of the build that is done, 0.0 to 1.0, or None where nobody can know.
    """

    app: str
    phase: BuildPhase
    message: str
    fraction: float | None = None
