"""The route table: what the door is told, as plain values, and the validation that refuses a bad one whole.

A table is pushed over the control socket (`fairway.proxy.control`), compiled (`fairway.proxy.table`) and swapped in one
step. Every name that could reach a header, a log line or another program's configuration is held to a narrow
alphabet here, so that nothing behind this file has to escape it again.

Units: seconds are floats, sizes are bytes, shares and weights are whole numbers without a unit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from fairway.proxy.errors import RouteError

Balance = Literal["round_robin", "least_connections", "consistent_hash"]
State = Literal["serving", "holding", "unavailable"]

MAX_ROUTES = 10_000
MAX_TARGETS_PER_ROUTE = 1_000
_LONGEST_NOTICE = 300

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}\Z")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_PATH = re.compile(r"/[A-Za-z0-9._~!&'()*+,=:@%/-]*\Z")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\Z")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}\Z")
_VISIBLE = re.compile(r"[\x20-\x7e]*\Z")
_LOCATION = re.compile(r"(https?://[A-Za-z0-9._:\[\]-]+(/[!-~]*)?|/[!-~]*)\Z")
_HASH = re.compile(r"scrypt\$\d{1,8}\$\d{1,3}\$\d{1,3}\$[A-Za-z0-9+/=]{8,128}\$[A-Za-z0-9+/=]{8,172}\Z")


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One upstream instance.

    Attributes:
        id: Unique name of the instance, such as ``go-api.r12.0``. The same id may appear in several routes and then
            has to have the same host and port; requests in flight are counted by it.
        host: IP literal or host name.
        port: 1 to 65535.
        release: Label that `Route.split` and sticky cookies speak of, or an empty string.
        weight: Share among the targets of its release, 0 to 1000; 0 gets no new requests.
        healthy: The health checker's verdict; an unhealthy target gets no new requests.
    """

    id: str
    host: str
    port: int
    release: str = ""
    weight: int = 1
    healthy: bool = True


class HeaderMatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header that a request must carry: `name` in any case; `value` byte for byte, or None for any value."""

    name: str
    value: str | None = None


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Token bucket: `rate` requests a second (> 0), bursts of `burst` (>= 1), for each client address or the route."""

    rate: float
    burst: int = 1
    key: Literal["client", "route"] = "client"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one route; None takes the worker's default.

    Attributes:
        body_bytes: Largest request body, 413 beyond it, with a length or chunked.
        header_bytes: Largest request head, 431 beyond it; may only be smaller than the worker's.
        body_timeout: Seconds without a byte of the request body, 408 beyond it.
        upstream_timeout: Seconds to connect, to the first byte and between two reads, 504 beyond it.
        rate: Token bucket, 429 beyond it.
        concurrency: Requests in flight at once, 503 beyond it.
    """

    body_bytes: int | None = None
    header_bytes: int | None = None
    body_timeout: float | None = None
    upstream_timeout: float | None = None
    rate: RateLimit | None = None
    concurrency: int | None = None


class Sticky(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keeps a client on the release that it met first: the cookie's name and its life in seconds (0 = session)."""

    cookie: str = "fairway_release"
    max_age: int = 3600


class BasicAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Users and their password hashes, made by `fairway.proxy.auth.hash_password`."""

    users: dict[str, str]
    realm: str = "fairway"


class Redirect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answer instead of forwarding.

    Attributes:
        location: ``https://host[:port][/path]`` or ``/path``.
        status: 301, 302, 303, 307 or 308.
        keep_path: Append the request's own path and query to `location`.
        when: ``always``, or ``insecure`` for requests that did not come over TLS, neither to the door nor, as it says
            itself, to a trusted proxy before it; the others are forwarded.
    """

    location: str
    status: int = 308
    keep_path: bool = False
    when: Literal["always", "insecure"] = "always"


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests, under which conditions, go where.

    Among the routes whose host fits best (exact, then the longest ``*.x``, then ``*``), the longest path prefix wins;
    among equal prefixes, the route with more conditions (methods, headers).

    Attributes:
        name: Unique; appears in logs, metrics and the request's error pages.
        host: Lower-case host name without a port, ``*.x`` for every name under x, or ``*`` for what no other matches.
        path: Prefix that ends at a path segment: ``/api`` matches ``/api`` and ``/api/x``, not ``/apix``.
        strip: Remove `path` before forwarding.
        methods: Methods it serves; empty means all.
        headers: Headers that a request must carry, all of them.
        targets: Where requests go; may be empty, which answers 503.
        split: Share of requests by release label, such as ``{"r11": 90, "r12": 10}``; empty splits by target weight.
        sticky: Cookie that pins a client to a release, or None.
        balance: How a target is chosen inside a release. ``consistent_hash`` hashes the client's address.
        limits: Bounds.
        auth: Basic authentication, or None.
        allow: Networks (CIDR) that may enter; empty means all. 403 for others.
        redirect: Answer with a redirect, or None.
        state: ``holding`` keeps requests waiting (bounded, see `hold_timeout`); ``unavailable`` answers 503.
        hold_timeout: Seconds that a held request waits before 503.
        notice: What a 503 of this route says to the person who reads it, one sentence of visible ASCII; empty for a
            general one.
        patience: Seconds that a request waits for the next table when every target has refused it, or has died before
            it answered an idempotent one; 0 answers 502 at once. For senders who replace a target that has died.
    """

    name: str
    host: str = "*"
    path: str = "/"
    strip: bool = False
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    targets: tuple[Target, ...] = ()
    split: dict[str, int] = {}
    sticky: Sticky | None = None
    balance: Balance = "round_robin"
    limits: Limits = Limits()
    auth: BasicAuth | None = None
    allow: tuple[str, ...] = ()
    redirect: Redirect | None = None
    state: State = "serving"
    hold_timeout: float = 30.0
    notice: str = ""
    patience: float = 0.0


class RouteTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All routes of a door. `version` grows with every push of one sender; the door reports the one in force."""

    version: int = 0
    routes: tuple[Route, ...] = ()


def encode_table(table: RouteTable) -> bytes:
    """Return the table as JSON."""
    return msgspec.json.encode(table)


def decode_table(data: bytes) -> RouteTable:
    """Read a table from JSON and validate it.

    Raises:
        RouteError: If it is not such a document or breaks a rule of `validate_table`.
    """
    try:
        table = msgspec.json.decode(data, type=RouteTable)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RouteError(f"expected a route table as JSON, got one with this fault: {error}") from error
    validate_table(table)
    return table


def validate_table(table: RouteTable) -> None:
    """Check every rule of the table.

    Raises:
        RouteError: On the first breach, naming the route, what was expected and what came.
    """
    if len(table.routes) > MAX_ROUTES:
        raise RouteError(f"expected at most {MAX_ROUTES} routes, got {len(table.routes)}")
    names: set[str] = set()
    places: dict[tuple[object, ...], str] = {}
    targets: dict[str, tuple[str, int]] = {}
    for route in table.routes:
        if not _NAME.match(route.name):
            raise RouteError(f"expected a route name of letters, digits and ._:/@+-, got {route.name!r}")
        if route.name in names:
            raise RouteError(f"expected unique route names, got {route.name!r} twice")
        names.add(route.name)
        _check_match(route)
        place = (route.host, route.path, frozenset(route.methods), route.headers)
        if place in places:
            raise RouteError(
                f"route {route.name!r}: expected a host, path and conditions of its own, got those of {places[place]!r}"
            )
        places[place] = route.name
        _check_targets(route, targets)
        _check_limits(route)
        _check_access(route)


def valid_hostname(host: str) -> bool:
    """Tell whether `host` is a lower-case DNS name of at most 253 characters, or an IPv4 address."""
    return 0 < len(host) <= 253 and all(_LABEL.match(label) for label in host.split("."))


def _fail(route: Route, expected: str, got: object) -> RouteError:
    return RouteError(f"route {route.name!r}: expected {expected}, got {got!r}")


def _check_match(route: Route) -> None:
    host = route.host.removeprefix("*.") if route.host != "*" else "any"
    if not valid_hostname(host) and not _is_bracketed(host):
        expected = "host to be a lower-case name without a port, '*.name', '*' or an IPv6 address such as '[::1]'"
        raise _fail(route, expected, route.host)
    if not _PATH.match(route.path) or "/../" in route.path + "/" or "//" in route.path or "/./" in route.path + "/":
        raise _fail(route, "path to start with '/' and to hold plain path characters without dot segments", route.path)
    for method in route.methods:
        if not _METHOD.match(method):
            raise _fail(route, "methods in upper case", method)
    for match in route.headers:
        if not _TOKEN.match(match.name) or (match.value is not None and not _VISIBLE.match(match.value)):
            raise _fail(route, "headers with a token as name and visible ASCII as value", match)
    if route.redirect is not None:
        if not _LOCATION.match(route.redirect.location):
            raise _fail(route, "redirect.location to be http(s)://host[/path] or /path", route.redirect.location)
        if route.redirect.status not in {301, 302, 303, 307, 308}:
            raise _fail(route, "redirect.status to be 301, 302, 303, 307 or 308", route.redirect.status)


def _check_targets(route: Route, seen: dict[str, tuple[str, int]]) -> None:
    if len(route.targets) > MAX_TARGETS_PER_ROUTE:
        raise _fail(route, f"at most {MAX_TARGETS_PER_ROUTE} targets", len(route.targets))
    own: set[str] = set()
    for target in route.targets:
        if not _NAME.match(target.id):
            raise _fail(route, "target ids of letters, digits and ._:/@+-", target.id)
        if target.id in own:
            raise _fail(route, "unique target ids", target.id)
        own.add(target.id)
        if not _is_ip(target.host) and not valid_hostname(target.host.lower()):
            raise _fail(route, f"target {target.id!r} to have an IP address or host name as host", target.host)
        if not 1 <= target.port <= 65535:
            raise _fail(route, f"target {target.id!r} to have a port from 1 to 65535", target.port)
        if not 0 <= target.weight <= 1000:
            raise _fail(route, f"target {target.id!r} to have a weight from 0 to 1000", target.weight)
        if target.release and not _NAME.match(target.release):
            raise _fail(
                route, f"target {target.id!r} to have a release label of letters, digits and ._:/@+-", target.release
            )
        address = (target.host, target.port)
        if seen.setdefault(target.id, address) != address:
            raise _fail(route, f"target {target.id!r} at one address in every route, {seen[target.id]}", address)
    releases = {target.release for target in route.targets}
    for label, share in route.split.items():
        if label not in releases:
            raise _fail(route, f"split to name releases of its targets {sorted(releases)}", label)
        if not 0 <= share <= 1_000_000:
            raise _fail(route, "shares of split from 0 to 1000000", share)
    if route.split and not sum(route.split.values()):
        raise _fail(route, "at least one share of split above 0", route.split)


def _check_limits(route: Route) -> None:
    limits = route.limits
    for name in ("body_bytes", "header_bytes", "concurrency"):
        value = getattr(limits, name)
        if value is not None and value < (0 if name == "body_bytes" else 1):
            raise _fail(route, f"limits.{name} to be a positive whole number", value)
    for name in ("body_timeout", "upstream_timeout"):
        value = getattr(limits, name)
        if value is not None and not 0 < value <= 86_400:
            raise _fail(route, f"limits.{name} in seconds, above 0 and at most 86400", value)
    if limits.rate is not None and not (0 < limits.rate.rate <= 1e9 and 1 <= limits.rate.burst <= 1_000_000_000):
        raise _fail(route, "limits.rate with a rate above 0 and a burst of at least 1", limits.rate)
    if not 0 < route.hold_timeout <= 3600:
        raise _fail(route, "hold_timeout in seconds, above 0 and at most 3600", route.hold_timeout)
    if len(route.notice) > _LONGEST_NOTICE or not _VISIBLE.match(route.notice):
        raise _fail(route, f"notice of at most {_LONGEST_NOTICE} characters of visible ASCII", route.notice)
    if not 0 <= route.patience <= 60:
        raise _fail(route, "patience in seconds, from 0 to 60", route.patience)


def _check_access(route: Route) -> None:
    for network in route.allow:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise _fail(route, "allow to hold networks such as 10.0.0.0/8", network) from error
    if route.sticky is not None:
        if not _TOKEN.match(route.sticky.cookie):
            raise _fail(route, "sticky.cookie to be a token", route.sticky.cookie)
        if not 0 <= route.sticky.max_age <= 31_536_000:
            raise _fail(route, "sticky.max_age in seconds, at most a year", route.sticky.max_age)
    if route.auth is not None:
        if not _VISIBLE.match(route.auth.realm) or '"' in route.auth.realm or "\\" in route.auth.realm:
            raise _fail(route, "auth.realm of visible ASCII without quotes", route.auth.realm)
        for user, password_hash in route.auth.users.items():
            if not user or ":" in user or not _VISIBLE.match(user):
                raise _fail(route, "auth.users with names of visible ASCII without a colon", user)
            if not _HASH.match(password_hash):  # the value is a secret: it is not repeated
                raise RouteError(f"route {route.name!r}: expected the password of {user!r} as scrypt$n$r$p$salt$hash")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_bracketed(host: str) -> bool:
    try:
        return host == f"[{ipaddress.IPv6Address(host[1:-1])}]"
    except ValueError:
        return False


def release_targets(targets: Iterable[Target], release: str) -> tuple[Target, ...]:
    """Return the targets of one release, in order."""
    return tuple(target for target in targets if target.release == release)
