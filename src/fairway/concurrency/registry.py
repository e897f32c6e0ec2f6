"""Who waits where: the hooks that `fairway.concurrency.debug` reads, and the wake-up of all.

Nothing is recorded while an operation blocks: a waiter's future knows its task (the task's wake-up is its only
callback), and the channels are found when somebody asks, by a walk over the garbage collector's objects.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fairway.concurrency.views import ChanStatistics

# The classes of channels; each adds itself.
channel_kinds: set[type[Any]] = set()
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
    if entry.done():
        return False
    loop = loop_of(entry)
    return loop is None or not loop.is_closed()


def loop_of(entry: Any) -> asyncio.AbstractEventLoop | None:
    """Return the event loop of a waiting task, None for a thread."""
    future = future_of(entry)
    return future.get_loop() if isinstance(future, asyncio.Future) else None


def wake_all(entries: Iterable[Any], value: Any) -> None:
    """Commit every waiter of `entries` with `value`, unless it was decided before or its loop is closed."""
    for entry in entries:
        try:
            entry.set_result(value)
        except asyncio.InvalidStateError:  # decided before
            continue
        except RuntimeError:
            raise_unless_dead(entry)


def raise_unless_dead(entry: Any) -> None:
    """Raise the RuntimeError that waking `entry` met, unless its cause is that the waiter's loop is closed."""
    loop = loop_of(entry)
    if loop is None or not loop.is_closed():
        raise  # noqa: PLE0704  # called where it was caught


def all_channels() -> list[Any]:
    """Return every living channel of the process."""
    kinds = tuple(channel_kinds)
    return [candidate for candidate in gc.get_objects() if isinstance(candidate, kinds)]


def blocked() -> Iterator[Blocked]:
    """Yield every blocked operation of the process; a select appears once for each of its channels."""
    for future, why in list(forever.items()):
        yield Blocked("for ever", why, task_of(future), None)
    for channel in all_channels():
        yield from channel.blocked()


def blocked_on(channel: Any, entry: Any, kind: Literal["send", "recv"], *, in_select: bool) -> Blocked:
    """Return the entry of a queue of `channel` as `Blocked`."""
    future = future_of(entry)
    task = task_of(future) if isinstance(future, asyncio.Future) else None
    name: Literal["send", "recv", "select send", "select recv"] = kind
    if in_select:
        name = "select send" if kind == "send" else "select recv"
    return Blocked(name, channel, task, getattr(entry, "thread", None))


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
