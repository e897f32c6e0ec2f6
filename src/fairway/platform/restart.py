"""When a process that ended by itself is started again: pure, over its history."""

from __future__ import annotations

import random
from dataclasses import dataclass

CAP = 60.0
RESET = 60.0
_BASE = 0.5


@dataclass(slots=True)
class Backoff:
    """Delays between restarts: the first is immediate, then they double, and they never give up.

    delay(n) = 0 for n = 1, else min(60, 0.5 · 2^(n-2)) with ±20 % jitter, where n counts the exits since the process
    last stayed up for 60 s: 0, 0.5, 1, 2, 4, 8, 16, 32, 60, 60, … seconds. The jitter keeps instances that died
    together from starting together.

    Attributes:
        failures: Exits in a row, each after less than 60 s.
        jitter: Share of the delay that is random, 0.0 to 1.0.
    """

    failures: int = 0
    jitter: float = 0.2

    def next(self, uptime: float, *, rng: random.Random | None = None) -> float:
        """Note an exit after `uptime` seconds and return how long to wait before the next start."""
        self.failures = 1 if uptime >= RESET else self.failures + 1
        if self.failures == 1:
            return 0.0
        delay = min(CAP, _BASE * 2.0 ** min(self.failures - 2, 16))
        draw = (rng or random).uniform(-self.jitter, self.jitter)
        return min(CAP, delay * (1.0 + draw))

    def reset(self) -> None:
        """Forget the failures: a deploy or a person started it anew."""
        self.failures = 0
