"""Whether to stay awake until an answer comes, or to fall asleep as an event loop does.

Who makes one call after another waits for each answer, and so does the server for each call: both processors fall
asleep and are woken twice a call. On a machine with an idle processor, a virtual one above all, that costs more than
the call itself: on two cores an enqueue took 110 µs, of which 60 were left where the caller's processor stayed awake,
and the processor time of both together was less. On a machine that is busy, or with a server that is far, it costs
nothing or gains nothing. So both are tried, again and again, and what was answered sooner is done. Calls come in
bursts: what was better in the last one is done in the next as soon as that is known for one, and where it begins slower
than the last one was, both are tried at once.

Where both share a processor a call took 25 µs, and staying awake there, be it for a trial, can drive the server to the
other one for good. So nobody tries while sleeping is faster than staying awake ever was.

Awake means that the loop turns without pause: everything else on it goes on as ever.
"""

from __future__ import annotations

LIMIT_S = 0.0002
"""Seconds that a call is stayed awake for, at most."""
CLOSE_S = 0.001
"""Mean seconds between calls above which nothing is tried and nobody stays awake."""
WINDOW = 32
"""Calls one after another whose time is compared with that of others."""
ASLEEP, AWAKE = 4, 3
"""Windows of a trial: awake, then asleep. The best of each counts: others are disturbed, or the machine settles."""
PERIOD = 128
"""Windows from one trial to the next."""
SOONER = 32
"""Windows from a trial to the next one where sleeping has become slow, or staying awake has."""
_SHARED_S = 0.00004  # per call: asleep this fast, where nothing is known of staying awake yet, nothing is tried
_GAIN = 0.8  # staying awake has to take this much of the time, or less
_SLOW = 1.5


class Vigil:
    """Decides for one connection, by how much time lies between the calls of one who makes them one by one.

    Attributes:
        awake: Whether to stay awake for the answer to a call that goes out now, while none is under way.
        left: Calls left of this window. The caller counts them down and calls `judge` at the last.
        joined: Set by the caller when another call joins the one under way, whose time tells nothing then.
    """

    __slots__ = (
        "_asleep", "_began", "_best", "_failed", "_first", "_resumes", "_stayed", "_trying", "_windows",
        "awake", "joined", "left",
    )  # fmt: skip

    def __init__(self) -> None:
        self.awake = False
        self.left = WINDOW
        self.joined = True  # when the first window began is not known
        self._began = 0.0
        self._windows = PERIOD - ASLEEP  # since the last trial
        self._trying = 0  # windows of the trial under way that are left
        self._first = False  # whether the window is the first of a burst
        self._resumes = False  # whether staying awake was better in the burst before
        self._failed = False  # whether the window before took longer awake than one takes asleep
        self._stayed = 0.0  # seconds that a window of the trial took awake
        self._best = 0.0  # the fastest window awake of any trial, 0 before the first
        self._asleep = float("inf")  # seconds that a window takes asleep

    def judge(self, now: float) -> None:
        """A window has passed.

        Args:
            now: Seconds, by any clock that goes on evenly.
        """
        taken, self._began, self.left = now - self._began, now, WINDOW
        if self.joined or taken > WINDOW * CLOSE_S:
            self._resumes = self._resumes or (self.awake and not self._trying)
            self.joined = self.awake = self._failed = False
            self._trying = 0
            self._first = True
            return
        first, self._first = self._first, False
        self._windows += 1
        if self._resumes:
            self._resumes, self.awake, self._asleep = False, taken > self._best, taken
        elif self._trying:
            self._try(taken)
        elif self.awake:
            failed, self._failed = self._failed, taken > self._asleep
            if failed and self._failed:
                self.awake, self._windows = False, PERIOD - SOONER
            elif self._windows >= PERIOD:
                self.awake = False
        else:
            slow = taken > _SLOW * self._asleep and (first or self._windows >= SOONER)
            self._asleep = taken
            worth = taken > (self._best or WINDOW * _SHARED_S)
            if worth and (slow or self._windows >= PERIOD):
                self.awake, self._trying, self._stayed = True, AWAKE + ASLEEP, float("inf")

    def _try(self, taken: float) -> None:
        self._trying -= 1
        if self._trying >= ASLEEP:
            self._stayed = min(self._stayed, taken)
            self.awake = self._trying > ASLEEP
        else:
            # Asleep, before and after: staying awake may move the server to a processor where sleeping is cheaper.
            self._asleep = min(self._asleep, taken)
            if not self._trying:
                self._best = min(self._best or self._stayed, self._stayed)
                self.awake, self._windows = self._stayed <= _GAIN * self._asleep, 0

    def __repr__(self) -> str:
        doing = "trying" if self._trying else "awake" if self.awake else "asleep"
        return f"<Vigil [{doing}, {self._windows} windows]>"
