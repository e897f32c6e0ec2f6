"""Errors of the platform: what a person asked for that cannot be done, and why."""

from __future__ import annotations

from collections.abc import Iterable

from fairway.errors import FairwayError


class PlatformError(FairwayError):
    """Base of the platform's errors."""

    code = "platform.error"


def explain(error: FairwayError) -> str:
    """Return an error's message and, on a line of its own, what to do about it: what `AppStatus.message` carries."""
    return f"{error}\nfix: {error.hint}" if error.hint else str(error)


class UnknownApp(PlatformError):
    """No app of that name is in the registry.

    Args:
        name: What was asked for.
        known: Names that exist.
    """

    code = "app.unknown"
    field = "app"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        import difflib

        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known apps: {', '.join(names) or 'none'}."
        super().__init__(f"expected the name of an app in the registry, got {name!r}", hint=hint)
        self.name = name


class UnknownRelease(PlatformError):
    """The app has no such release, or none to go back to."""

    code = "release.unknown"


class DeployFailed(PlatformError):
    """A new release did not come up; the old one goes on serving.

    Attributes:
        app: Name of the app.
        log_lines: Last lines of the instance or build that failed, oldest first.
        log_path: File they come from, or an empty string.
    """

    code = "deploy.failed"

    def __init__(
        self,
        app: str,
        message: str,
        *,
        code: str | None = None,
        log_lines: Iterable[str] = (),
        log_path: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.app = app
        self.log_lines = tuple(log_lines)
        self.log_path = log_path


class AppStopped(PlatformError):
    """The action needs an app that runs; this one was stopped."""

    code = "app.stopped"


class InvalidRequest(PlatformError):
    """An argument is out of its bounds."""

    code = "platform.invalid"


class AlreadyRunning(PlatformError):
    """Another daemon holds this state folder."""

    code = "daemon.already_running"


class PortTaken(PlatformError):
    """A port that Fairway has to listen on is in use."""

    code = "daemon.port_taken"


class StateDirError(PlatformError):
    """The state folder cannot be created or written."""

    code = "daemon.state_dir"
