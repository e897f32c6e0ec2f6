"""Tells everyone who listens how work on the apps goes; nobody who listens slowly can hold the work up."""

from __future__ import annotations

from fairway.clock import SYSTEM_CLOCK, Clock
from fairway.concurrency import Chan, RecvChan
from fairway.platform.status import Phase, Progress

BACKLOG = 1024


class ProgressHub:
    """Fans progress events out to subscribers.

    Args:
        clock: Where the events' times come from.
    """

    __slots__ = ("_clock", "_subscribers", "dropped")

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._subscribers: list[Chan[Progress]] = []
        self.dropped = 0

    def subscribe(self) -> RecvChan[Progress]:
        """Return a channel of every event from now on; a reader `BACKLOG` events behind loses the oldest."""
        chan: Chan[Progress] = Chan(BACKLOG)
        self._subscribers.append(chan)
        return chan

    def unsubscribe(self, chan: RecvChan[Progress]) -> None:
        """End a subscription and close its channel; unknown ones are ignored."""
        for known in self._subscribers:
            if known is chan:
                self._subscribers.remove(known)
                known.close()
                return

    def tell(self, app: str, phase: Phase, message: str = "") -> None:
        """Send an event to every subscriber; never waits."""
        event = Progress(app=app, phase=phase, message=message, at=self._clock.time())
        for chan in self._subscribers:
            if not chan.try_send(event):
                chan.try_recv()
                self.dropped += 1
                chan.try_send(event)

    def close(self) -> None:
        """Close every subscriber's channel."""
        for chan in self._subscribers:
            chan.close()
        self._subscribers.clear()

    def __repr__(self) -> str:
        return f"<ProgressHub {len(self._subscribers)} subscribers, {self.dropped} dropped>"
