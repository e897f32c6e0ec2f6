"""Whether to stay awake until an answer comes, or to fall asleep as an event loop does.

Who makes one call after another waits for each answer, and so does the server for each call: both processors fall
asleep and are woken twice a call. On a machine with an idle processor, a virtual one above all, that costs more than
the call itself: on two cores an enqueue took 115 µs, of which 50 were left where the caller's processor stayed awake,
and the processor time of both together was less. On a machine that is busy, or with a server that is far, it costs
nothing or gains nothing. So both are tried, again and again, and what was answered sooner is done.

Awake means that the loop turns without pause: everything else on it goes on as ever.
"""

from __future__ import annotations

LIMIT_S = 0.0002
"""Seconds that a call is stayed awake for, at most."""
CLOSE_S = 0.001
"""Seconds within which a call follows the one before: for others nothing is tried and nobody stays awake."""
WINDOW = 16
"""Calls whose mean time is compared with that of others. A trial has two windows asleep and two awake, of which the
second of each counts; who stays awake looks at every window from then on."""
ROUND = 64
"""Windows that somebody stays awake for before the next trial."""
REST = 1024
"""Calls that somebody sleeps over before the next trial."""
_GAIN = 0.95  # staying awake has to take this much of the time, or less


class Vigil:
    """Decides for one connection, by how much time lies between the calls of one who makes them one by one.

    Attributes:
        rest: Calls before the next trial, which are slept over: the caller counts them down and need not ask.
    """

    __slots__ = ("_alone", "_asleep", "_awake", "_count", "_sent", "_total", "_window", "rest")

    def __init__(self) -> None:
        self.rest = 0
        self._awake = False  # what is done now
        self._sent = -CLOSE_S  # when the last call went out
        self._alone = False  # whether it was answered before another went out
        self._window = 0  # since the trial began
        self._count = 0  # of calls in this window
        self._total = 0.0  # seconds that they took
        self._asleep = 0.0  # seconds that those of the trial's window asleep took

    def begin(self, now: float) -> bool:
        """Return whether to stay awake for the answer to a call that goes out while none is under way.

        Args:
            now: Seconds, by any clock that goes on evenly.
        """
        taken, self._sent = now - self._sent, now
        alone, self._alone = self._alone, True
        if taken > CLOSE_S:
            return False
        if alone:
            self._total += taken
            self._count += 1
            if self._count == WINDOW:
                self._judge()
        return self._awake

    def join(self) -> None:
        """Another call has joined the one under way: the time that it takes tells nothing."""
        self._alone = False

    def _judge(self) -> None:
        total, self._total, self._count = self._total, 0.0, 0
        self._window += 1
        if self._window == 2:
            self._asleep, self._awake = total, True
        elif self._window >= ROUND:
            self._window, self._awake = 0, False
        elif self._window > 3 and total > _GAIN * self._asleep:
            self._window, self._awake, self._alone, self.rest = 0, False, False, REST

    def __repr__(self) -> str:
        doing = "resting" if self.rest else "awake" if self._awake else "asleep"
        return f"<Vigil [{doing}, window {self._window}]>"
