"""Why an app could not be built."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from fairway.errors import FairwayError


class Evidence(msgspec.Struct, frozen=True):
    """What a failed build leaves to look at; the fields of `BuildError` of the same names."""

    command: str = ""
    status: int | None = None
    tail: tuple[str, ...] = ()
    log_path: Path | None = None


class BuildError(FairwayError):
    """An app could not be built; its earlier release, if any, is untouched.

    Codes: ``build.failed`` (a command failed), ``build.timeout``, ``build.before``
    (the Procfile's ``release`` failed), ``build.undetected`` (nothing says how to build
    it), ``build.toolchain_missing``, ``build.engine_missing`` (needs Docker), ``build.source`` (source folder
    missing, too large or unreadable), ``build.config`` (env_file or secret missing).

    Attributes:
        app: Name of the app.
        command: The failing command as a shell would show it, or an empty string.
        status: Its exit status (negative: the signal that ended it), or None where no command failed.
        tail: Last lines of the build log, without secrets and control characters.
        log_path: The whole build log, or None where there is none.
    """

    code = "build.failed"
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        app: str,
        code: str | None = None,
        hint: str | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        evidence = evidence or Evidence()
        self.app = app
        self.command = evidence.command
        self.status = evidence.status
        self.tail = evidence.tail
        self.log_path = evidence.log_path
