"""The route table in the form that the data path asks: host, then path prefix, then conditions.

A table is compiled whole beside the one in force and put in its place by one assignment. Targets keep their state by
id, so that connections, counters and requests in flight survive.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from fairway.proxy.control import HISTOGRAM_BOUNDS_S, RouteStatistics
from fairway.proxy.gate import Gate
from fairway.proxy.options import parse_networks
from fairway.proxy.request import RequestHead
from fairway.proxy.routes import Route, RouteTable
from fairway.proxy.targets import BALANCERS, TargetState, ready_targets

STATUS_CLASSES: Final = ("0xx", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx", "499")
"""Names of the counters in `RouteBooks.statuses`: the hundreds, then the clients that left."""

_DUBIOUS: Final = re.compile(rb"/\.|//|%|\\")


class RouteBooks:
    """A route's counters, which all tables share that have a route of this name: an exchange outlives its table.

    Attributes:
        in_flight: Requests running.
        statuses: Answers by `STATUS_CLASSES`.
        buckets: Answers by `HISTOGRAM_BOUNDS_S`, not cumulative.
        latency_sum: Seconds from a request's head to its answer's, over all answers.
    """

    __slots__ = ("buckets", "in_flight", "latency_sum", "statuses")

    def __init__(self) -> None:
        self.in_flight = 0
        self.statuses = [0] * len(STATUS_CLASSES)
        self.buckets = [0] * (len(HISTOGRAM_BOUNDS_S) + 1)
        self.latency_sum = 0.0

    def __repr__(self) -> str:
        return f"<RouteBooks in_flight={self.in_flight} answers={sum(self.statuses)}>"

    def close(self, status: int, latency: float, left: bool) -> None:
        """Count an exchange that has ended; `left` says that the client did not wait for that."""
        self.in_flight -= 1
        self.statuses[10 if left else status // 100] += 1
        self.buckets[bisect_left(HISTOGRAM_BOUNDS_S, latency)] += 1
        self.latency_sum += latency


class RouteState:
    """One route, compiled, with its counters."""

    def __init__(self, spec: Route, targets: list[TargetState], before: RouteState | None) -> None:
        self.spec = spec
        self.name = spec.name
        self.prefix = spec.path.rstrip("/").encode("ascii")
        self.strip = spec.strip and self.prefix != b""
        self.methods = frozenset(method.encode("ascii") for method in spec.methods)
        self.headers = tuple(
            (match.name.lower().encode("ascii"), None if match.value is None else match.value.encode("ascii"))
            for match in spec.headers
        )
        self.targets = targets
        self.balancer = BALANCERS[spec.balance]()
        self.body_bytes = spec.limits.body_bytes
        self.body_timeout = spec.limits.body_timeout
        self.upstream_timeout = spec.limits.upstream_timeout
        # One target and no conditions: the data path takes it without a choice.
        self.only = targets[0] if len(targets) == 1 and not spec.split and targets[0].usable else None
        self.gate: Gate | None = (
            Gate(spec, parse_networks(spec.allow), before.gate if before else None) if Gate.needed(spec) else None
        )
        # And with nothing to strip or to ask: `express` may.
        self.express = self.only is not None and self.gate is None and not self.strip
        self._release_credit: dict[str, int] = {}
        self.books: RouteBooks = before.books if before else RouteBooks()
        self.held = 0

    def __repr__(self) -> str:
        return f"<RouteState {self.name} {self.spec.host}{self.spec.path} targets={len(self.targets)}>"

    def fits(self, path: bytes, head: RequestHead) -> bool:
        """Tell whether a request with this path (without its query) belongs here."""
        prefix = self.prefix
        if prefix and not (path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == 0x2F)):
            return False
        if self.methods and head.method not in self.methods:
            return False
        for name, value in self.headers:
            came = head.field(name)
            if came is None or (value is not None and came != value):
                return False
        return True

    def pick(self, now: float, key: bytes, release: str | None) -> TargetState | None:
        """Choose a target for a new request, of `release` if that has one; None where none is ready."""
        ready = ready_targets(self.targets, now)
        if not ready:
            return None
        if release is not None:
            wanted = [target for target in ready if target.release == release]
            if wanted:
                return self.balancer.pick(wanted, key)
        if self.spec.split:
            chosen = self._pick_release({target.release for target in ready})
            if chosen is not None:
                ready = [target for target in ready if target.release == chosen]
        if len(ready) == 1:
            return ready[0]
        return self.balancer.pick(ready, key)

    def choose(
        self, now: float, key: bytes, head: RequestHead, tried: TargetState | None
    ) -> tuple[TargetState | None, bytes]:
        """Choose a target as `pick` does, by the sticky cookie if there is one, and not `tried` if there is another.

        Returns:
            The target, and a rendered Set-Cookie field where the client is to be kept on another release than before.
        """
        sticky = self.spec.sticky
        release = None if sticky is None else cookie_value(head.field(b"cookie"), sticky.cookie)
        target = self.pick(now, key, release)
        if tried is not None:
            for _ in self.targets:
                if target is not tried:
                    break
                target = self.pick(now, key, None)
        if sticky is None or target is None or not target.release or target.release == release:
            return target, b""
        return target, b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b\r\n" % (
            sticky.cookie.encode("ascii"),
            target.release.encode("ascii"),
            b"; Max-Age=%d" % sticky.max_age if sticky.max_age else b"",
        )

    def _pick_release(self, ready: set[str]) -> str | None:
        shares = {label: share for label, share in self.spec.split.items() if share and label in ready}
        if not shares:
            return None
        credit = self._release_credit
        for label, share in shares.items():
            credit[label] = credit.get(label, 0) + share
        best = max(shares, key=lambda label: credit[label])
        credit[best] -= sum(shares.values())
        return best

    def statistics(self) -> RouteStatistics:
        """Return a snapshot of the counters."""
        books = self.books
        return RouteStatistics(
            requests={name: count for name, count in zip(STATUS_CLASSES, books.statuses, strict=True) if count},
            latency_buckets=tuple(books.buckets),
            latency_sum_s=books.latency_sum,
            held=self.held,
        )


class CompiledTable:
    """All routes of a door, ready to be asked."""

    def __init__(self, table: RouteTable, before: CompiledTable | None = None) -> None:
        self.source = table
        self.version = table.version
        old_targets = before.targets if before else {}
        old_routes = before.routes if before else {}
        self.targets: dict[str, TargetState] = {}
        self.routes: dict[str, RouteState] = {}
        self._exact: dict[str, tuple[RouteState, ...]] = {}
        self._wild: dict[str, tuple[RouteState, ...]] = {}
        self._known: dict[bytes, tuple[RouteState, ...]] = {}
        for spec in table.routes:
            for target in spec.targets:
                known = old_targets.get(target.id)
                same = known is not None and (known.host, known.port) == (target.host, target.port)
                if target.id not in self.targets:
                    self.targets[target.id] = known if known is not None and same else TargetState(target)
                self.targets[target.id].update(target)
            states = [self.targets[target.id] for target in spec.targets]
            self.routes[spec.name] = RouteState(spec, states, old_routes.get(spec.name))
        self._index(self.routes.values())
        self.gone = [state for name, state in old_targets.items() if self.targets.get(name) is not state]

    def __repr__(self) -> str:
        return f"<CompiledTable version={self.version} routes={len(self.routes)} targets={len(self.targets)}>"

    def _index(self, routes: Iterable[RouteState]) -> None:
        hosts: dict[str, list[RouteState]] = {}
        for route in routes:
            hosts.setdefault(route.spec.host, []).append(route)
        for host, group in hosts.items():
            group.sort(key=lambda route: (-len(route.prefix), -(len(route.methods) > 0) - len(route.headers)))
            if host.startswith("*."):
                self._wild[host[2:]] = tuple(group)
            else:
                self._exact[host] = tuple(group)

    def for_host(self, head: RequestHead) -> tuple[RouteState, ...]:
        """Return the routes of a request's host, best fitting host first, longest path first within one."""
        key = head.host or b""
        known = self._known.get(key)
        if known is None:
            known = self._find_host(head.name) if head.host is not None else self._without_host()
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[key] = known
        return known

    def _find_host(self, name: str) -> tuple[RouteState, ...]:
        found = list(self._exact.get(name, ())) if name != "*" else []
        rest = name
        while rest:
            _, _, rest = rest.partition(".")
            found.extend(self._wild.get(rest, ()))
        found.extend(self._exact.get("*", ()))
        return tuple(found)

    def _without_host(self) -> tuple[RouteState, ...]:
        """Return the routes for HTTP/1.0 without Host: the default's, else those of the only host there is."""
        default = self._exact.get("*", ())
        if not default and len(self._exact) == 1 and not self._wild:
            return next(iter(self._exact.values()))
        return default

    def find(self, head: RequestHead) -> RouteState | None:
        """Return the route of a request, or None.

        A path that changes its place when dot segments and escapes are resolved is matched in both forms, and belongs
        to a route only if both agree: an upstream that resolves them must not see what another route's rules guard.
        """
        routes = self.for_host(head)
        if len(routes) == 1:
            route = routes[0]
            if not route.prefix and not route.methods and not route.headers:
                return route
        path = head.target.partition(b"?")[0]
        found = next((route for route in routes if route.fits(path, head)), None)
        if found is not None and _DUBIOUS.search(path):
            resolved = resolve_path(path)
            if resolved is None or next((route for route in routes if route.fits(resolved, head)), None) is not found:
                return None
        return found


def cookie_value(field: bytes | None, name: str) -> str | None:
    """Return the value of one cookie of a Cookie field, or None."""
    if field is None:
        return None
    wanted = name.encode("ascii")
    for part in field.split(b";"):
        key, _, value = part.strip().partition(b"=")
        if key == wanted:
            return value.decode("latin-1")
    return None


def resolve_path(path: bytes) -> bytes | None:
    """Resolve escapes, backslashes, double slashes and dot segments; None for a path that leaves its root."""
    segments: list[bytes] = []
    for segment in unquote_to_bytes(path).replace(b"\\", b"/").split(b"/"):
        if segment == b"..":
            if not segments:
                return None
            segments.pop()
        elif segment not in {b"", b"."}:
            segments.append(segment.partition(b";")[0])
    return b"/" + b"/".join(segments)
