"""What a route asks of a request before it is forwarded: network, redirect, password, rate, concurrency.

The order is the cheapest and least telling first: a client outside the allowed networks learns nothing, and no
password is hashed for one that a rate limit turns away.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from fairway.proxy.options import Network, in_networks
from fairway.proxy.request import RequestHead
from fairway.proxy.routes import RateLimit, Route

# Rate limits and passwords are imported by the first route that asks for them: few do, and every door has to start.
if TYPE_CHECKING:
    from fairway.concurrency import RateLimiter
    from fairway.proxy.auth import PasswordCheck

_CLIENTS: Final = 10_000


class Answer(NamedTuple):
    """What the door answers instead of forwarding: status, reason and rendered extra fields."""

    status: int
    reason: str
    extra: bytes = b""


class RateGate:
    """Token buckets (`fairway.concurrency.RateLimiter`) by client address, the 10,000 that came last; or one a route.

    Args:
        limit: Rate, burst and what is told apart.
        clock: Returns monotonic seconds.
    """

    __slots__ = ("_buckets", "_clock", "_limit")

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._buckets: OrderedDict[str, RateLimiter] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateGate {self._limit.rate:g}/s burst={self._limit.burst} clients={len(self._buckets)}>"

    def take(self, address: str) -> float:
        """Take a token; return 0.0, or the seconds until there is one."""
        key = address if self._limit.key == "client" else ""
        bucket = self._buckets.get(key)
        if bucket is None:
            from fairway.concurrency import RateLimiter

            bucket = self._buckets[key] = RateLimiter(self._limit.rate, self._limit.burst, clock=self._clock)
            if len(self._buckets) > _CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        if bucket.allow():
            return 0.0
        reservation = bucket.reserve()
        wait = reservation.delay
        reservation.cancel()
        return max(wait, 0.001)


class Gate:
    """The conditions of one route. Buckets and checked passwords survive a table that leaves them unchanged."""

    __slots__ = ("_networks", "_password", "_rate", "_spec")

    def __init__(self, spec: Route, networks: tuple[Network, ...], before: Gate | None) -> None:
        self._spec = spec
        self._networks = networks
        self._rate: RateGate | None = None
        self._password: PasswordCheck | None = None
        if spec.limits.rate is not None:
            same = before is not None and before._spec.limits.rate == spec.limits.rate
            self._rate = before._rate if same and before is not None else RateGate(spec.limits.rate)
        if spec.auth is not None:
            same = before is not None and before._spec.auth == spec.auth
            from fairway.proxy.auth import PasswordCheck

            self._password = before._password if same and before is not None else PasswordCheck(spec.auth)

    @staticmethod
    def needed(spec: Route) -> bool:
        """Tell whether a route has any condition at all."""
        limits = spec.limits
        return bool(
            spec.allow
            or spec.redirect
            or spec.auth
            or spec.state != "serving"
            or spec.sticky
            or limits.rate
            or limits.concurrency
            or limits.header_bytes
        )

    def judge(
        self, head: RequestHead, size: int, address: str, now: float, in_flight: int, *, secure: bool = False
    ) -> Answer | None:
        """Return what to answer, or None to go on; `secure` says that the request came over TLS."""
        spec = self._spec
        if self._networks and not in_networks(address, self._networks):
            return Answer(403, "Your address is not among those that may enter.")
        if spec.limits.header_bytes is not None and size > spec.limits.header_bytes:
            return Answer(431, "The request's header fields are too large.")
        if spec.redirect is not None and not (secure and spec.redirect.when == "insecure"):
            location = spec.redirect.location.encode("ascii")
            if spec.redirect.keep_path:
                location = location.rstrip(b"/") + (head.target if head.target[:1] == b"/" else b"/")
            return Answer(spec.redirect.status, "The resource is elsewhere.", b"Location: %b\r\n" % location)
        if self._rate is not None:
            wait = self._rate.take(address)
            if wait > 0.0:
                return Answer(429, "Too many requests.", b"Retry-After: %d\r\n" % (int(wait) + 1))
        if self._password is not None and not self._password.allows(head.field(b"authorization"), now):
            return Answer(401, "A user name and a password are needed.", self._password.challenge)
        if spec.state == "unavailable":
            return Answer(503, spec.notice or "The service is not available now.", b"Retry-After: 5\r\n")
        if spec.limits.concurrency is not None and in_flight >= spec.limits.concurrency:
            return Answer(503, "Too many requests at once.", b"Retry-After: 1\r\n")
        return None
