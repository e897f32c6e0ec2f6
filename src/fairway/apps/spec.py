"""An app as the registry describes it, after defaults: plain typed values, no behaviour.

Units: seconds are floats, memory is bytes, cpus are cores. The YAML form takes ``5s`` and ``256M``; `fairway.apps`
turns those into these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Runtime = Literal["auto", "process", "compose"]
Strategy = Literal["rolling", "recreate"]
Balance = Literal["round_robin", "least_connections", "consistent_hash"]
RateBy = Literal["client", "route"]
DoorRedirect = Literal["https", "aliases"]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one face of an app is reached.

    Attributes:
        domain: Host name that the door routes here, lower case, or None for ``NAME.localhost``.
        port: Port that a Compose file publishes, or that an app which ignores ``PORT`` insists on; None for a fresh
            port an instance, told in ``$PORT``.
        path: Path prefix under the domain, starting with a slash; the longest match wins.
    """

    domain: str | None = None
    port: int | None = None
    path: str = "/"


class HealthSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an instance is checked.

    Attributes:
        path: HTTP path to GET, or None to accept any TCP connection as health.
        interval: Seconds between two checks, > 0.
        timeout: Seconds that one check may take, > 0.
        rise: Passes in a row that make an instance healthy, >= 1.
        fall: Failures in a row that make it unhealthy, >= 1.
        start_timeout: Seconds that a new instance has to become healthy in a deploy, > 0.
        conditions: Expressions such as ``[STATUS] == 200``; empty means any status below 400.
    """

    path: str | None = None
    interval: float = 10.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    start_timeout: float = 60.0
    conditions: tuple[str, ...] = ()


class CanarySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A first share of the traffic for a new release, watched before the rest follows.

    Attributes:
        weight: Share of requests in percent, 1 to 99.
        watch: Seconds to watch, > 0.
        max_error_rate: Share of 5xx answers in the window above which the release is rolled back, 0.0 to 1.0.
        max_latency: Mean seconds a request above which it is rolled back, or None.
    """

    weight: int = 10
    watch: float = 30.0
    max_error_rate: float = 0.05
    max_latency: float | None = None


class DeploySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a new release replaces the old one.

    Attributes:
        strategy: ``rolling`` starts the new instances beside the old; ``recreate`` holds requests, stops, starts.
        grace: Seconds between SIGTERM and SIGKILL, >= 0.
        drain: Seconds that requests in flight may take to finish in the door before SIGTERM, >= 0.
        keep: Releases kept for rollback, >= 1.
        canary: Watched first share, or None.
    """

    strategy: Strategy = "rolling"
    grace: float = 10.0
    drain: float = 10.0
    keep: int = 5
    canary: CanarySpec | None = None


class LimitSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one instance: ``memory`` in bytes, ``cpus`` in cores; None means unbounded."""

    memory: int | None = None
    cpus: float | None = None


class DoorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the door does with requests for an app; it holds for each of its faces and domains by itself.

    Attributes:
        body_limit: Largest request body in bytes, 413 beyond it; None for the door's own bound.
        header_limit: Largest request head in bytes, 431 beyond it; may only be smaller than the door's own.
        body_timeout: Seconds without a byte of a request body, 408 beyond it; at most a day.
        upstream_timeout: Seconds to connect, to the first byte and between two reads, 504 beyond it; at most a day.
        rate: Requests a second, 429 beyond it; None for any number.
        burst: Requests that may come at once, >= 1; None for one second's worth.
        rate_by: Whether `rate` counts by client address or all together.
        max_requests: Requests in flight at once, 503 beyond it; None for any number.
        balance: How an instance is chosen; ``consistent_hash`` hashes the client's address.
        sticky: Name of the cookie that keeps a client on the release that it met first, or None.
        strip: Remove the face's `path` before forwarding.
        methods: Methods that are served; empty means all.
        headers: Headers that a request must carry, by name; None for any value.
        redirect: ``https`` sends plain requests to HTTPS where the door serves it; ``aliases`` sends those for an
            alias to the app's own domain.
        basic_auth: Password hashes (``scrypt$…``) by user; empty asks nobody.
        allow: Networks (CIDR) that may enter; empty means all.
        aliases: Further domains, lower case.
    """

    body_limit: int | None = None
    header_limit: int | None = None
    body_timeout: float | None = None
    upstream_timeout: float | None = None
    rate: float | None = None
    burst: int | None = None
    rate_by: RateBy = "client"
    max_requests: int | None = None
    balance: Balance = "round_robin"
    sticky: str | None = None
    strip: bool = False
    methods: tuple[str, ...] = ()
    headers: dict[str, str | None] = {}
    redirect: tuple[DoorRedirect, ...] = ()
    basic_auth: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class AppSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app of the registry.

    Attributes:
        name: ``[a-z0-9]([a-z0-9-]*[a-z0-9])?``, at most 40 characters, unique in the registry.
        file: Registry file it came from.
        source: Absolute source folder, or None where only a Compose file is given.
        compose_file: Absolute Compose file, or None.
        runtime: ``process`` and ``compose`` force one; ``auto`` takes ``process`` where a builder knows the folder.
        backend: The face that the door serves.
        frontend: A second face on another domain, or None.
        grpc: Face that NGINX serves with ``grpc_pass``, or None.
        command: Start command of the ``web`` process as words, or None to detect it.
        build: Build commands as words that replace the detected ones, or None.
        processes: Further start commands by name, from the file or a Procfile; ``web`` gets the traffic.
        env: Variables, not secret. ``env_file``: absolute file of more. ``secrets``: names taken from the daemon's
            own environment or ``.fairway/secrets.env``; never printed.
        replicas: Instances of ``web``, >= 0.
        depends_on: Apps that have to be healthy before this one starts.
        door: What the door asks of requests and does with them.
    """

    name: str
    file: Path
    source: Path | None = None
    compose_file: Path | None = None
    runtime: Runtime = "auto"
    backend: Endpoint = Endpoint()
    frontend: Endpoint | None = None
    grpc: Endpoint | None = None
    command: tuple[str, ...] | None = None
    build: tuple[tuple[str, ...], ...] | None = None
    processes: dict[str, tuple[str, ...]] = {}
    env: dict[str, str] = {}
    env_file: Path | None = None
    secrets: tuple[str, ...] = ()
    replicas: int = 1
    depends_on: tuple[str, ...] = ()
    health: HealthSpec = HealthSpec()
    deploy: DeploySpec = DeploySpec()
    limits: LimitSpec = LimitSpec()
    door: DoorSpec = DoorSpec()

    @property
    def domain(self) -> str:
        """Host name that the door routes to this app."""
        return self.backend.domain or f"{self.name}.localhost"
