"""`WaitQueue`: the blocked senders or receivers of one `SharedChan`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from fairway.concurrency import registry
from fairway.concurrency.waiters import SharedEntry, TaskWaiter, ThreadWaiter

# Below this many entries left behind a queue is not worth rebuilding.
_COMPACT_FROM = 16
Waiter = ThreadWaiter | TaskWaiter | SharedEntry


class WaitQueue:
    """Waiters in the order in which they came, each with the value that it sends (None for receivers).

    Used under the channel's lock. A waiter that gave up leaves a dead item behind, unless it stands at an end;
    the queue is rebuilt when those are the majority.
    """

    __slots__ = ("_dead", "items")

    def __init__(self) -> None:
        self.items: deque[tuple[Waiter, Any]] = deque()
        self._dead = 0

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([waiter for waiter, _ in self.items])

    def add(self, waiter: Waiter, value: Any = None) -> None:
        """Put `waiter` at the end."""
        self.items.append((waiter, value))

    def serve(self, result: Any, late: list[ThreadWaiter] | None = None) -> tuple[bool, Any]:
        """Commit the first waiter that is alive with `result`: (True, its value), or (False, None) if there is none.

        A patient thread is put into `late`, for the caller to have it woken, where that is a list.
        """
        items = self.items
        while items:
            waiter, value = items.popleft()
            if waiter.done():
                self._dead -= 1
            elif late is not None and isinstance(waiter, ThreadWaiter) and waiter.patient:
                if waiter.admit(result):
                    late.append(waiter)
                    return True, value
            elif waiter.set_result(result):
                return True, value
        return False, None

    def any_alive(self) -> bool:
        """Whether a waiter is left that can be served; the dead ones before it are dropped."""
        items = self.items
        while items:
            if registry.is_waiting(items[0][0]):
                return True
            items.popleft()
            self._dead -= 1
        return False

    def drop(self, waiter: Waiter) -> None:
        """Take out a waiter that was decided elsewhere or gave up."""
        items = self.items
        if items and items[-1][0] is waiter:
            items.pop()
        elif items and items[0][0] is waiter:
            items.popleft()
        else:
            self._dead += 1
            if self._dead > _COMPACT_FROM and self._dead * 2 > len(items):
                self.items = deque(item for item in items if not item[0].done())
                self._dead = min(0, self._dead - len(items) + len(self.items))
