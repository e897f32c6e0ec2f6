"""What NGINX is to serve, as values: sites made from apps, each value checked before it may reach a template.

NGINX has no way to quote every value in every place (a ``$`` is expanded even inside quotes), so nothing is escaped
here: what is not made of known-safe characters is refused, with the app and the field named.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairway.apps.spec import AppSpec, Endpoint
from fairway.nginx.errors import NginxError, UnsafeValueError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\Z")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\Z")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?\Z")
_FILE = re.compile(r"[A-Za-z0-9._~/+@ -]+\Z")
_ADDRESS = re.compile(r"[0-9A-Fa-f:./]+\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])\Z")


@dataclass(frozen=True, slots=True)
class Server:
    """One address of an upstream."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not _HOST.match(self.host):
            raise UnsafeValueError(f"expected a host name or address of an upstream, got {self.host!r}")
        if not 1 <= self.port <= 65535:
            raise UnsafeValueError(f"expected a port from 1 to 65535 for {self.host}, got {self.port}")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Location:
    """A path prefix under a domain and the upstream behind it; ``grpc`` speaks HTTP/2 to it."""

    path: str
    upstream: str
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class Upstream:
    """A named group of servers with idle connections kept open."""

    name: str
    servers: tuple[Server, ...]
    keepalive: int = 32


@dataclass(frozen=True, slots=True)
class Site:
    """One app's file: its upstreams, and its locations by domain."""

    app: str
    upstreams: tuple[Upstream, ...]
    domains: Mapping[str, tuple[Location, ...]]


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and key that every site uses; the files have to cover the domains."""

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        for what, path in (("certificate", self.certificate), ("key", self.key)):
            if not _FILE.match(str(path)) or not path.is_absolute():
                raise UnsafeValueError(
                    f"expected an absolute path of letters, digits and ._~/+@- for the TLS {what}, got {str(path)!r}"
                )


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for the whole configuration.

    Attributes:
        listen: Port for HTTP. ``listen_tls``: port for HTTPS, used with `tls`.
        listen_grpc: Port for gRPC without TLS: HTTP/2 cannot share a plain port with HTTP/1.1 before NGINX 1.25.1.
        address: Address to listen on.
        body_limit: Largest request body in bytes; 0 means unlimited. gRPC locations are never limited: a stream has
            no end to measure.
        trusted: Networks whose ``X-Forwarded-For`` names the client.
        idle_timeout: Seconds between two reads or writes to an upstream before it counts as gone. Long streams need
            a heartbeat below it.
    """

    listen: int = 80
    listen_tls: int = 443
    listen_grpc: int = 50051
    address: str = "0.0.0.0"  # noqa: S104  # the public entrance; the door behind it stays on loopback
    body_limit: int = 10 * 1024 * 1024
    trusted: tuple[str, ...] = ()
    idle_timeout: int = 60
    tls: Tls | None = None
    worker_processes: str = "auto"

    def __post_init__(self) -> None:
        try:
            for text in (self.address, *self.trusted):
                if not _ADDRESS.match(text):  # an IPv6 zone (fe80::1%ANYTHING) may hold any character
                    raise ValueError(f"{text!r} has other characters than an address has")
            ipaddress.ip_address(self.address)
            for network in self.trusted:
                ipaddress.ip_network(network)
        except ValueError as error:
            raise UnsafeValueError(f"expected IP addresses and networks such as 10.0.0.0/8: {error}") from error
        for what, port in (
            ("listen", self.listen),
            ("listen_tls", self.listen_tls),
            ("listen_grpc", self.listen_grpc),
        ):
            if not 1 <= port <= 65535:
                raise UnsafeValueError(f"expected a port from 1 to 65535 for {what}, got {port}")
        if self.body_limit < 0 or self.idle_timeout < 1:
            raise UnsafeValueError(
                f"expected body_limit >= 0 and idle_timeout >= 1, got {self.body_limit} and {self.idle_timeout}"
            )
        if not re.fullmatch(r"auto|[1-9]\d{0,2}", self.worker_processes):
            raise UnsafeValueError(f"expected worker_processes auto or 1 to 999, got {self.worker_processes!r}")


@dataclass(frozen=True, slots=True)
class Refused:
    """An app that is left out, and why; the others are served."""

    app: str
    error: NginxError


@dataclass(frozen=True, slots=True)
class Sites:
    """The outcome for a registry: what is served, what was left out."""

    sites: tuple[Site, ...]
    refused: tuple[Refused, ...] = field(default=())


def plan(apps: Iterable[AppSpec], servers: Mapping[str, tuple[Server, ...]]) -> Sites:
    """Turn apps into sites; one bad app is left out and named, never the whole.

    Args:
        apps: The registry's apps.
        servers: By app name, where its HTTP face is reached: the door, or its instances.

    Returns:
        Sites in the order of their names. A domain that two apps claim under one path goes to the first by name.
    """
    sites: list[Site] = []
    refused: list[Refused] = []
    taken: dict[tuple[str, str], str] = {}
    for app in sorted(apps, key=lambda a: a.name):
        try:
            site = _site(app, servers.get(app.name, ()))
            _claim(site, taken)
        except NginxError as error:
            refused.append(Refused(app.name, error))
        else:
            sites.append(site)
    return Sites(tuple(sites), tuple(refused))


def _site(app: AppSpec, servers: tuple[Server, ...]) -> Site:
    if not _NAME.match(app.name):
        raise UnsafeValueError(f"expected an app name of a-z, 0-9 and -, at most 40 characters, got {app.name!r}")
    upstreams: list[Upstream] = []
    domains: dict[str, list[Location]] = {}
    if servers:
        upstreams.append(Upstream(f"fairway_{app.name}", servers))
        for face in (app.backend, app.frontend):
            if face is not None:
                location = Location(_path(app.name, face), f"fairway_{app.name}")
                aliases = app.door.aliases if face is app.backend else ()
                for domain in (face.domain or f"{app.name}.localhost", *aliases):
                    if location not in domains.setdefault(_domain(app.name, domain), []):
                        domains[domain].append(location)
    if app.grpc is not None:
        if app.grpc.port is None:
            raise NginxError(f"{app.name}: expected grpc.port, the fixed port of its gRPC server, got none")
        upstreams.append(Upstream(f"fairway_{app.name}_grpc", (Server("127.0.0.1", app.grpc.port),)))
        domain = app.grpc.domain or f"{app.name}.localhost"
        location = Location(_path(app.name, app.grpc), f"fairway_{app.name}_grpc", grpc=True)
        if any(other.path == location.path for other in domains.setdefault(_domain(app.name, domain), [])):
            raise NginxError(
                f"{app.name}: grpc and backend both claim {domain}{location.path}",
                hint="give grpc a domain of its own, or a path such as /package.Service",
            )
        domains[domain].append(location)
    if not domains:
        raise NginxError(
            f"{app.name}: nothing to proxy to: it has no running instance, no published port and no grpc face"
        )
    return Site(app.name, tuple(upstreams), {name: tuple(found) for name, found in domains.items()})


def _domain(app: str, domain: str) -> str:
    if len(domain) > 253 or not _DOMAIN.match(domain):
        raise UnsafeValueError(f"{app}: expected a domain such as api.example.org or *.example.org, got {domain!r}")
    return domain


def _path(app: str, face: Endpoint) -> str:
    if not _PATH.match(face.path) or ".." in face.path.split("/"):
        raise UnsafeValueError(
            f"{app}: expected a path prefix of letters, digits and ._~/- that starts with a slash, got {face.path!r}"
        )
    return face.path.rstrip("/") or "/"  # /api and /api/ are one prefix


def _claim(site: Site, taken: dict[tuple[str, str], str]) -> None:
    claims = [(domain, location.path) for domain, locations in site.domains.items() for location in locations]
    for claim in claims:
        if claim in taken:
            raise NginxError(f"{site.app}: {claim[0]}{claim[1]} is already served by {taken[claim]}")
    taken.update(dict.fromkeys(claims, site.app))
