"""A live subscriber: a channel of events with a policy for the moment when it is too slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Literal, get_args

from fairway.concurrency import Chan, RecvChan, SendOnClosed
from fairway.events.errors import EventError, SlowSubscriber
from fairway.events.store import Stored
from fairway.events.topic import matcher

MAX_BUFFER = 1_000_000
MAX_OVERFLOW = 4096  # events beyond the buffer; more than so many publishers seldom wait at once
Policy = Literal["block", "drop_oldest", "drop_newest", "disconnect"]


class Subscription:
    """Events of the topics that match, in the order of their offsets; made by `EventBus.subscribe`.

    Iterate over it, or receive from `channel` (in a `select`, say). Once `buffer` events wait unread, the policy
    decides:

    - ``block``: publishers in this process wait until there is room; nothing is lost.
    - ``drop_oldest``: the oldest unread event goes. ``drop_newest``: the new one does. `dropped` counts them.
    - ``disconnect``: the subscription ends with `SlowSubscriber`, which says where to resume.

    Args:
        pattern: Topics, see `fairway.events.topic`.
        policy: See above.
        buffer: Events that may wait unread, 1 to 1,000,000.
        on_close: Called once when the subscription ends.
        patience: Seconds that publishers wait for a ``block`` subscriber that reads nothing, before it is cut off as
            with ``disconnect``; None is for ever.
        on_lag: Called, with the newest offset handed over, where a ``block`` subscription has to be fed from the log.
    """

    def __init__(
        self,
        pattern: str,
        policy: Policy,
        buffer: int,
        *,
        on_close: Callable[[Subscription], None] | None = None,
        on_lag: Callable[[Subscription, int], None] | None = None,
        patience: float | None = None,
    ) -> None:
        if policy not in get_args(Policy):
            raise EventError(f"expected policy {', '.join(get_args(Policy))}, got {policy!r}")
        if not 1 <= buffer <= MAX_BUFFER:
            raise EventError(f"expected buffer from 1 to {MAX_BUFFER}, got {buffer}")
        self.pattern = pattern
        self.policy = policy
        self.dropped = 0
        self.error: SlowSubscriber | None = None
        self._chan: Chan[Stored] = Chan(buffer)
        # Policy block: events of publishers that wait for room, one a publisher; `forward` moves them on.
        self._overflow: deque[Stored] = deque()
        self._wake: Chan[None] = Chan(1)
        self._room = asyncio.Event()
        self._room.set()
        self.lagging = False
        self._patience = patience
        self._on_close = on_close
        self._on_lag = on_lag
        self._last = 0  # newest offset in the channel: where a cut-off subscriber resumes
        self._seen = 0  # newest offset of a replay: what the live feed must not repeat
        self.matches = matcher(pattern)

    @property
    def channel(self) -> RecvChan[Stored]:
        """The channel of events; closed when the subscription has ended."""
        return self._chan.receiver

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self._chan.closed

    @property
    def has_room(self) -> bool:
        """Whether publishers need not wait."""
        return self._room.is_set()

    async def wait_room(self) -> None:
        """Wait while publishers have to: until the overflow is read, or the subscription has ended."""
        while not self._room.is_set():
            before = self._last
            try:
                async with asyncio.timeout(self._patience):
                    await self._room.wait()
            except TimeoutError:
                if self._last == before and not self._room.is_set():
                    self._cut(f"it read nothing for {self._patience:g} s")

    def offer(self, stored: Stored) -> None:
        """Hand over one event without waiting; the policy decides where there is no room."""
        if self._chan.closed or stored.offset <= self._seen or self.lagging:
            return
        if not self._overflow and self._chan.try_send(stored):
            self._last = stored.offset
            return
        if self.policy == "block":
            self._room.clear()
            if len(self._overflow) >= MAX_OVERFLOW:
                self.lagging = True  # it reads on from the log by itself: other processes do not wait for it
                return
            self._overflow.append(stored)
            self._wake.try_send(None)
        elif self.policy == "drop_oldest":
            if self._chan.try_recv() is not None:
                self.dropped += 1
            if not self._chan.try_send(stored):
                self.dropped += 1
        elif self.policy == "drop_newest":
            self.dropped += 1
        else:
            self._cut(f"{self._chan.cap} events waited unread")

    def _cut(self, why: str) -> None:
        if not self._chan.closed:
            self.error = SlowSubscriber(f"subscriber to {self.pattern!r} was disconnected: {why}", offset=self._last)
            self.close()

    async def forward(self) -> None:
        """Move what overflows into the channel as it is read; runs as long as a ``block`` subscription does."""
        async for _ in self._wake:
            while self._overflow and await self.feed(self._overflow[0]):
                if self._overflow:  # closing empties it, maybe in the turn in which the event was read
                    self._overflow.popleft()
            if not self.lagging:
                self._room.set()
            elif self._on_lag is not None:
                self._on_lag(self, self._last)

    def skip(self, offset: int) -> None:
        """Take nothing at or below `offset` from now on: a replay has handed it over."""
        self._seen = offset
        if self.lagging:
            self.lagging = False
            self._room.set()

    async def feed(self, stored: Stored) -> bool:
        """Hand over one event, waiting for room whatever the policy: replay. False once the subscription ended."""
        try:
            await self._chan.send(stored)
        except SendOnClosed:
            return False
        self._last = stored.offset
        return True

    def close(self) -> None:
        """End the subscription; what is buffered may still be read. Closing twice is no error."""
        if not self._chan.closed:
            self._chan.close()
            self._wake.close()
            self._overflow.clear()
            self._room.set()
            if self._on_close is not None:
                self._on_close(self)

    async def __aiter__(self) -> AsyncIterator[Stored]:
        """Yield events until the subscription ends. Raises `SlowSubscriber` where it was cut off."""
        async for stored in self._chan:
            yield stored
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._chan)}/{self._chan.cap} unread"
        return f"<Subscription {self.pattern!r} {self.policy} [{state}, {self.dropped} dropped]>"
