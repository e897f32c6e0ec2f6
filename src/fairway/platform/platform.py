"""The platform's one face: what the API, the command line and the daemon ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fairway.concurrency import Context, RecvChan
    from fairway.platform.status import AppStatus, DeployResult, Progress, ReleaseStatus


class Platform(Protocol):
    """Apps as they run: every method but `apps`, `app` and `releases` changes something.

    Names of apps that are not in the registry raise `UnknownApp`, which names the nearest. Work on one app is serial:
    a second call waits for the first. Cancelling a call cancels the work up to the swap of routes; from then on it is
    finished in the background.
    """

    async def start(self, ctx: Context) -> None:
        """Adopt what runs, then bring every app to its wanted state; returns when each has come up or failed."""
        ...

    def apps(self) -> list[AppStatus]:
        """Every app of the registry, ascending by name. Never blocks."""
        ...

    def pending(self) -> list[str]:
        """Apps that `start` has not brought up or given up yet, ascending; all of them before it was called.

        ``/readyz`` is 200, `fairway up` prints its table and ``up -d`` returns once this is empty.
        """
        ...

    def app(self, name: str) -> AppStatus:
        """One app. Raises `UnknownApp`."""
        ...

    async def deploy(self, name: str, *, plan: bool = False) -> DeployResult:
        """Build and bring up what the sources and the registry say now, with no failed request.

        Args:
            name: Name of the app.
            plan: Only say what would be done.

        Raises:
            UnknownApp: No such app.
            DeployFailed: Build or health check failed; the old release goes on serving.
        """
        ...

    async def restart(self, name: str) -> DeployResult:
        """Replace every instance by a new one of the same release, with no failed request."""
        ...

    async def scale(self, name: str, n: int) -> DeployResult:
        """Run `n` (0 to 100) instances of ``web``; kept over restarts of the daemon until the registry file changes."""
        ...

    async def rollback(self, name: str, release: str | None = None) -> DeployResult:
        """Deploy an earlier release again: the one named, or the one before the current. Raises `UnknownRelease`."""
        ...

    async def stop(self, name: str) -> DeployResult:
        """Drain and stop the app; it stays stopped until `start_app` or `deploy`."""
        ...

    async def start_app(self, name: str) -> DeployResult:
        """Start an app that was stopped."""
        ...

    def releases(self, name: str) -> list[ReleaseStatus]:
        """Releases of one app, newest first. Raises `UnknownApp`."""
        ...

    def subscribe(self) -> RecvChan[Progress]:
        """Every progress event from now on; a reader that falls behind by more than 1,024 events loses the oldest."""
        ...

    def unsubscribe(self, chan: RecvChan[Progress]) -> None:
        """End a subscription and close its channel; unknown ones are ignored."""
        ...

    async def reload(self) -> None:
        """Read the registry again: new apps start, removed ones stop, changed ones are deployed, bad ones reported."""
        ...
