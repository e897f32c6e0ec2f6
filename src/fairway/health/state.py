"""The state of one target as a pure machine: results in, state out; nothing here waits or reads a clock."""

from __future__ import annotations

import zlib
from collections import deque
from typing import Literal

import msgspec

from fairway.health.probe import ProbeResult, ProbeTarget

HealthState = Literal["unknown", "starting", "healthy", "degraded", "unhealthy", "paused", "stale"]

FLAP_WINDOW = 600.0
FLAP_CHANGES = 4
# Intervals without a result after which what is known is no longer shown as true.
STALE_INTERVALS = 3.0
# While its state is in doubt a target is probed this many times more often, though not more than twice a second.
FAST_FACTOR = 5.0
FAST_FLOOR = 0.5


class Check(msgspec.Struct, frozen=True):
    """One target that is checked again and again.

    Attributes:
        key: Unique name, such as ``go-api/web.1``.
        app: App it belongs to.
        target: What to probe.
        interval: Seconds between two probes, > 0.
        rise: Passes in a row that make it healthy, >= 1.
        fall: Failures in a row that make it unhealthy, >= 1.
    """

    key: str
    app: str
    target: ProbeTarget
    interval: float = 10.0
    rise: int = 2
    fall: int = 3

    @property
    def fast_interval(self) -> float:
        """Seconds between two probes while the state is in doubt: a fifth of the interval, at least 0.5."""
        return min(self.interval, max(FAST_FLOOR, self.interval / FAST_FACTOR))

    @property
    def phase(self) -> float:
        """Offset of this target's probes within the interval, so that a thousand targets do not start as one."""
        return (zlib.crc32(self.key.encode()) / 2**32) * self.interval


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one target.

    Attributes:
        key: Name of the target. ``app``: app it belongs to. ``target``: what is probed, in words.
        state: ``starting`` has not passed often enough yet; ``degraded`` was healthy and has failed since, but
            not often enough to be unhealthy; ``stale`` has had no result for three intervals.
        since: Unix time of the last change of state.
        checked_at: Unix time of the last result, or None.
        seconds: Response time of the last probe.
        lag: Seconds by which the last probe started late; the checker's own fault, not the target's.
        status: HTTP status of the last probe, or None.
        error: Why the last probe failed, or empty.
        passes: Passes in a row. ``failures``: failures in a row.
        flapping: Whether it changed between healthy and unhealthy four times within ten minutes.
        certificate_left: Seconds until its certificate expires, or None without TLS.
    """

    key: str
    app: str
    target: str
    state: HealthState = "unknown"
    since: float = 0.0
    checked_at: float | None = None
    seconds: float = 0.0
    lag: float = 0.0
    status: int | None = None
    error: str = ""
    passes: int = 0
    failures: int = 0
    flapping: bool = False
    certificate_left: float | None = None


class Machine(msgspec.Struct):
    """Turns the results of one target into its state.

    A target is believed only after `rise` passes or `fall` failures in a row. On the way up it is ``starting`` (never
    decided before) or stays ``unhealthy``; on the way down it is ``degraded``.
    """

    check: Check
    state: HealthState = "unknown"
    since: float = 0.0
    passes: int = 0
    failures: int = 0
    flapping: bool = False
    _verdict: bool | None = None
    _flips: deque[float] = msgspec.field(default_factory=deque)

    def apply(self, result: ProbeResult, at: float, lag: float = 0.0) -> HealthStatus:
        """Take one result.

        Args:
            result: What the probe found.
            at: Unix time of the result.
            lag: Seconds by which the probe started late.
        """
        if result.ok:
            self.passes, self.failures = self.passes + 1, 0
        else:
            self.passes, self.failures = 0, self.failures + 1
        before = self.state
        self.state = self._next(at)
        if self.state != before:
            self.since = at
        self._judge_flapping(at)
        return HealthStatus(
            key=self.check.key,
            app=self.check.app,
            target=str(self.check.target),
            state=self.state,
            since=self.since,
            checked_at=at,
            seconds=result.seconds,
            lag=lag,
            status=result.status,
            error=result.error,
            passes=self.passes,
            failures=self.failures,
            flapping=self.flapping,
            certificate_left=result.certificate_left,
        )

    @property
    def interval(self) -> float:
        """Seconds until the next probe: shorter while the last results do not settle the state."""
        settled = (self.state == "healthy" and self.failures == 0) or (self.state == "unhealthy" and self.passes == 0)
        return self.check.interval if settled else self.check.fast_interval

    def _next(self, at: float) -> HealthState:
        if self.passes >= self.check.rise:
            self._decide(True, at)
            return "healthy"
        if self.failures >= self.check.fall:
            self._decide(False, at)
            return "unhealthy"
        if self._verdict is None:
            return "starting"
        return "degraded" if self._verdict else "unhealthy"

    def _decide(self, verdict: bool, at: float) -> None:
        if self._verdict is not None and verdict != self._verdict:
            self._flips.append(at)
        self._verdict = verdict

    def _judge_flapping(self, at: float) -> None:
        while self._flips and self._flips[0] <= at - FLAP_WINDOW:
            self._flips.popleft()
        # Two thresholds, so that the flag itself does not flap.
        needed = FLAP_CHANGES // 2 if self.flapping else FLAP_CHANGES
        self.flapping = len(self._flips) >= needed


def next_due(previous: float, interval: float, now: float) -> float:
    """Return when the next probe is due on the monotonic clock: on the grid of `previous`, never in the past.

    A probe that took longer than its interval skips the ticks it missed instead of catching up: ``next_due(0, 10, 3)``
    is 10, ``next_due(0, 10, 25)`` is 30.
    """
    if interval <= 0:
        raise ValueError(f"expected an interval > 0, got {interval}")
    missed = max(0.0, now - previous) // interval
    return previous + (missed + 1.0) * interval
