"""Whether a new release may stay, from what the door has counted: pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from fairway.apps.spec import CanarySpec

# Below this many answers one error would decide: judged by count, not by rate.
FEW = 20


class Sample(msgspec.Struct, frozen=True):
    """Counters of all instances of a release, over all door workers, since they were met.

    Attributes:
        requests: Exchanges finished.
        errors: Of those, answered with 5xx, or failed.
        seconds: Sum of the seconds to the answers' heads.
    """

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0

    def __sub__(self, other: Sample) -> Sample:
        # A door worker that was restarted counts from zero again.
        return Sample(
            max(0, self.requests - other.requests),
            max(0, self.errors - other.errors),
            max(0.0, self.seconds - other.seconds),
        )


class Verdict(msgspec.Struct, frozen=True):
    """``wait``, ``keep`` or ``back``, and why."""

    outcome: Literal["wait", "keep", "back"]
    reason: str


def judge(spec: CanarySpec, sample: Sample, elapsed: float) -> Verdict:
    """Decide after `elapsed` seconds of watching.

    A release goes back as soon as more than `max_error_rate` of at least `FEW` answers are errors, or their mean
    latency is above `max_latency`; with fewer answers only at the end of the window, and then if the rate is exceeded
    by at least two errors. It stays when the window ends without that. A window without any request decides nothing
    against it.
    """
    rate = sample.errors / sample.requests if sample.requests else 0.0
    mean = sample.seconds / sample.requests if sample.requests else 0.0
    over = elapsed >= spec.watch
    enough = sample.requests >= FEW
    if rate > spec.max_error_rate and (enough or (over and sample.errors >= 2)):
        return Verdict(
            "back",
            f"{sample.errors} of {sample.requests} answers were errors ({rate:.1%}), "
            f"expected at most {spec.max_error_rate:.1%}",
        )
    if spec.max_latency is not None and mean > spec.max_latency and (enough or (over and sample.requests > 0)):
        return Verdict("back", f"answers took {mean:.3f} s on average, expected at most {spec.max_latency:g} s")
    if over:
        return Verdict(
            "keep", f"{sample.requests} answers in {elapsed:.0f} s, {sample.errors} errors, {mean:.3f} s each"
        )
    return Verdict("wait", "")
