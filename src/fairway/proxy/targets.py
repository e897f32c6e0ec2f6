"""Live state of upstream instances and the choice among them."""

from __future__ import annotations

import itertools
import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from fairway.proxy.control import TargetStatistics
from fairway.proxy.routes import Target

if TYPE_CHECKING:
    from fairway.proxy.exchange import Exchange
    from fairway.proxy.upstream import UpstreamConnection

EJECT_AFTER: Final = 3
"""Failures in a row (refused, reset, timed out) that take a target out of the choice."""
EJECT_FOR_S: Final = 10.0
_VIRTUAL_NODES: Final = 64
_RING: Final = 1 << 32


class TargetState:
    """One instance: its idle connections, what is in flight, its counters. Survives a change of the route table.

    Passive ejection takes a failing target out of the choice for `EJECT_FOR_S` seconds, never the last one of a route.
    """

    __slots__ = (
        "bytes_received",
        "connect_errors",
        "credit",
        "draining",
        "ejected_until",
        "errors",
        "failures",
        "host",
        "host_header",
        "id",
        "idle",
        "in_flight",
        "latency_sum",
        "port",
        "release",
        "requests",
        "retired",
        "streams",
        "usable",
        "weight",
    )

    def __init__(self, spec: Target) -> None:
        self.id = spec.id
        self.host = spec.host
        self.port = spec.port
        self.host_header = (f"[{spec.host}]:{spec.port}" if ":" in spec.host else f"{spec.host}:{spec.port}").encode()
        self.idle: list[UpstreamConnection] = []
        self.streams: set[Exchange] = set()
        self.in_flight = 0
        self.requests = 0
        self.errors = 0
        self.connect_errors = 0
        self.latency_sum = 0.0
        self.bytes_received = 0
        self.failures = 0
        self.ejected_until = 0.0
        self.draining = False
        self.retired = False
        self.credit = 0
        self.update(spec)

    def __repr__(self) -> str:
        return f"<TargetState {self.id} {self.host}:{self.port} in_flight={self.in_flight} idle={len(self.idle)}>"

    def update(self, spec: Target) -> None:
        """Take over what a new table says; a target that is named again is drained no more."""
        self.release = spec.release
        self.weight = spec.weight
        self.usable = spec.healthy and spec.weight > 0
        self.draining = False
        self.retired = False

    def retire(self) -> None:
        """Leave the table: close what is idle; what is in flight finishes."""
        self.retired = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close the connections kept for reuse."""
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()

    def failed(self, now: float) -> None:
        """Count a failure that the target is to blame for."""
        self.failures += 1
        if self.failures >= EJECT_AFTER:
            self.ejected_until = now + EJECT_FOR_S

    def answered(self) -> None:
        """Forget failures: it answers."""
        if self.failures:
            self.failures = 0
            self.ejected_until = 0.0

    def statistics(self, now: float) -> TargetStatistics:
        """Return a snapshot of the counters."""
        return TargetStatistics(
            requests=self.requests,
            errors_5xx=self.errors,
            connect_errors=self.connect_errors,
            in_flight=self.in_flight,
            streams=len(self.streams),
            latency_sum_s=self.latency_sum,
            bytes_received=self.bytes_received,
            idle_connections=len(self.idle),
            ejected=self.ejected_until > now,
        )


def ready_targets(targets: Sequence[TargetState], now: float) -> list[TargetState]:
    """Return those that may get a new request; the ejected ones only where nothing else is left."""
    usable = [target for target in targets if target.usable and not target.draining]
    return [target for target in usable if target.ejected_until <= now] or usable


class RoundRobin:
    """Smooth weighted round robin: with weights 3 and 1 the order is a a b a, not a a a b.

    Source: nginx, ngx_http_upstream_round_robin.c (the published algorithm).
    """

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, targets: Sequence[TargetState], key: bytes) -> TargetState:
        """Return the next of `targets` (at least one)."""
        if len({target.weight for target in targets}) == 1:
            self._turn += 1
            return targets[self._turn % len(targets)]
        best = targets[0]
        total = 0
        for target in targets:
            total += target.weight
            target.credit += target.weight
            if target.credit > best.credit:
                best = target
        best.credit -= total
        return best


class LeastConnections:
    """The target with the fewest requests in flight by weight; equals take turns."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, targets: Sequence[TargetState], key: bytes) -> TargetState:
        """Return the least busy of `targets` (at least one)."""
        self._turn = turn = (self._turn + 1) % len(targets)
        return min(itertools.chain(targets[turn:], targets[:turn]), key=lambda target: target.in_flight / target.weight)


class ConsistentHash:
    """A ring of 64 points a unit of weight: a target that comes or goes moves only its own share of the keys.

    Source: Karger et al., Consistent Hashing and Random Trees, STOC 1997.
    """

    __slots__ = ("_for", "_points", "_ring")

    def __init__(self) -> None:
        self._for: tuple[tuple[str, int], ...] = ()
        self._points: list[int] = []
        self._ring: list[str] = []

    def pick(self, targets: Sequence[TargetState], key: bytes) -> TargetState:
        """Return the target whose point follows the hash of `key`."""
        shape = tuple((target.id, target.weight) for target in targets)
        if shape != self._for:
            ring = sorted(
                (zlib.crc32(f"{name}#{node}".encode()), name)
                for name, weight in shape
                for node in range(_VIRTUAL_NODES * min(weight, 100))
            )
            self._points = [point for point, _ in ring]
            self._ring = [name for _, name in ring]
            self._for = shape
        name = self._ring[bisect_left(self._points, zlib.crc32(key) % _RING) % len(self._ring)]
        return next(target for target in targets if target.id == name)


class Balancer(Protocol):
    """How a target is chosen among those that are ready."""

    def pick(self, targets: Sequence[TargetState], key: bytes) -> TargetState:
        """Return one of `targets` (at least one); `key` is what a hash goes by."""
        ...


BALANCERS: Final[dict[str, Callable[[], Balancer]]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "consistent_hash": ConsistentHash,
}
