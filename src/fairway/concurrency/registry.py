"""Who waits where: the hooks that `fairway.concurrency.debug` reads, and the wake-up of one waiter.

Nothing is recorded while an operation blocks: a waiter's future knows its task (the task's wake-up is its only
callback), and the channels are found when somebody asks, in `channels` if registration was enabled and else by
a walk over the garbage collector's objects.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

if TYPE_CHECKING:
    from fairway.concurrency.views import ChanStatistics

# Switched on by fairway.concurrency.debug: new channels then enter `channels`.
enabled = False
channels: WeakSet[Any] = WeakSet()
# Futures of tasks that wait for ever: an empty select, one with nil channels only, an operation on nil.
forever: dict[asyncio.Future[Any], str] = {}


@dataclass(frozen=True, slots=True)
class Blocked:
    """One task or thread that waits on a channel.

    Attributes:
        kind: ``"send"``, ``"recv"``, ``"select send"``, ``"select recv"``, or ``"for ever"`` for nil channels.
        channel: What it waits on; for ``"for ever"`` a description.
        task: The waiting task, or None for a thread.
        thread: The waiting thread's identifier, or None for a task.
    """

    kind: Literal["send", "recv", "select send", "select recv", "for ever"]
    channel: Any
    task: asyncio.Task[Any] | None
    thread: int | None


def set_enabled(on: bool) -> None:
    """Switch the registration of new channels on or off."""
    global enabled  # noqa: PLW0603  # one flag for the process, read on every construction
    enabled = on


def future_of(entry: Any) -> Any:
    """Return the future behind a queue's entry."""
    return getattr(entry, "future", entry)


def task_of(future: Any) -> asyncio.Task[Any] | None:
    """Return the task that awaits `future`, or None."""
    for callback, _context in getattr(future, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            return owner
    return None


def is_waiting(entry: Any) -> bool:
    """Whether the waiter can still be served: undecided, and its loop is not closed."""
    return not entry.done() and not future_of(entry).get_loop().is_closed()


def wake(entry: Any, value: Any) -> bool:
    """Commit the undecided waiter `entry` with `value`; False if its loop is closed, so that it counts as dead."""
    try:
        entry.set_result(value)
    except RuntimeError:
        if not future_of(entry).get_loop().is_closed():
            raise
        return False
    return True


def all_channels() -> list[Any]:
    """Return every living channel, registered or found by the garbage collector."""
    from fairway.concurrency.chan import Chan

    found = {id(c): c for c in list(channels)}
    if not enabled:
        for candidate in gc.get_objects():
            if isinstance(candidate, Chan):
                found[id(candidate)] = candidate
    return list(found.values())


def blocked() -> Iterator[Blocked]:
    """Yield every blocked operation of the process; a select appears once for each of its channels."""
    for future, why in list(forever.items()):
        yield Blocked("for ever", why, task_of(future), None)
    for channel in all_channels():
        yield from channel.blocked()


def describe(name: str, statistics: ChanStatistics) -> str:
    """Return the common form of a channel's repr."""
    notes = []
    if statistics.closed:
        notes.append("closed")
    for count, what in ((statistics.blocked_senders, "sender"), (statistics.blocked_receivers, "receiver")):
        if count:
            notes.append(f"{count} {what}{'s' if count > 1 else ''} blocked")
    tail = f" [{', '.join(notes)}]" if notes else ""
    return f"<{name} {statistics.len}/{statistics.cap}{tail}>"


def current_thread_id() -> int:
    """Return the identifier of the calling thread."""
    return threading.get_ident()
