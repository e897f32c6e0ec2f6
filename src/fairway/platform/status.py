"""What the platform reports: plain values that the API, the command line and the dashboard print as they are."""

from __future__ import annotations

from typing import Literal

import msgspec

AppState = Literal["stopped", "blocked", "building", "starting", "running", "degraded", "failed"]
InstanceState = Literal["starting", "running", "healthy", "unhealthy", "backoff", "stopping", "stopped", "exited"]
Phase = Literal["queued", "detect", "toolchain", "build", "start", "probe", "route", "drain", "done", "failed"]


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One instance: a process group of one app's process.

    Attributes:
        id: ``<process>.<number>``, unique within the app for ever.
        app: Name of the app.
        process: ``web`` or the name of another entry of ``processes``.
        number: Number of the instance within app and process; also in the log file's name.
        state: ``running`` is alive without (or before) a health verdict; ``backoff`` waits for its next start.
        release: Id of the release it runs.
        pid: Leader's process id while it lives.
        port: Port told in ``$PORT``; None for processes that get no traffic.
        restarts: Unplanned restarts since the instance was created.
        started_at: Unix time of the last start.
        next_start_at: Unix time of the next start while in ``backoff``.
        exit: How it ended last (``exit 1``, ``SIGKILL``), or None.
        memory: Resident bytes of the whole process tree, or None where unknown.
        members: Live processes of the tree.
        limits: How its limits are enforced, in words: ``cgroup v2``, ``cgroup v1``, ``rlimit``, ``none``.
        log: Path of its log file.
    """

    id: str
    app: str
    process: str
    number: int
    state: InstanceState
    release: str
    pid: int | None = None
    port: int | None = None
    restarts: int = 0
    started_at: float | None = None
    next_start_at: float | None = None
    exit: str | None = None
    memory: int | None = None
    members: int = 0
    limits: str = "none"
    log: str = ""


class ReleaseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One release of an app: ``current`` serves now; ``available`` says that its files still exist for a rollback."""

    id: str
    app: str
    created_at: float
    current: bool = False
    available: bool = True
    digest: str = ""


class AppStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One app of the registry, as wanted and as it is.

    Attributes:
        name: Name of the app.
        state: ``blocked`` waits for `depends_on`; ``degraded`` serves with fewer instances than wanted or after
            the deploy of a newer release failed; ``failed`` serves nothing though it should.
        url: Where the door serves it, such as ``http://go-api.localhost:8080``.
        domain: Host name that the door routes here.
        runtime: ``process`` or ``compose``.
        release: Id of the release that serves, or None.
        replicas: Instances of ``web`` wanted.
        ready: Instances of ``web`` that serve.
        instances: Every instance, other processes too.
        message: Why the state is what it is, for a person; empty when all is well.
        file: Registry file.
        depends_on: Apps that have to be healthy first.
    """

    name: str
    state: AppState
    url: str = ""
    domain: str = ""
    runtime: str = "process"
    release: str | None = None
    replicas: int = 1
    ready: int = 0
    instances: tuple[InstanceStatus, ...] = ()
    message: str = ""
    file: str = ""
    depends_on: tuple[str, ...] = ()


class DeployResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a deploy, restart, scale or rollback did; a failure is raised, not returned.

    Attributes:
        app: Name of the app.
        action: ``deploy``, ``restart``, ``scale``, ``rollback``, ``start`` or ``stop``.
        release: Id of the release that serves now, or None after a stop.
        previous: Id of the release that served before, or None.
        changed: False when the wanted state was there already, or when only a plan was asked for.
        steps: What was done, or what would be done (``plan``), one sentence each.
        planned: True for ``deploy --plan``: nothing was touched.
        seconds: How long it took.
        message: One sentence that sums up.
    """

    app: str
    action: str
    release: str | None = None
    previous: str | None = None
    changed: bool = True
    steps: tuple[str, ...] = ()
    planned: bool = False
    seconds: float = 0.0
    message: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One step of long work on one app.

    Attributes:
        app: Name of the app.
        phase: Which step; ``done`` and ``failed`` end it.
        message: One line for a person.
        at: Unix time.
    """

    app: str
    phase: Phase
    message: str = ""
    at: float = 0.0
