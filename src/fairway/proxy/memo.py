"""Heads met again, with what was read in them.

What a head says follows from its bytes alone, so that remembering it can change no answer. Three bounds hold:

- number and size: `HEADS` heads of at most `HEAD_BYTES`, in each of two generations;
- worth: a head is kept once it is met for the second time; what comes once leaves no more than a number behind;
- time: every `GENERATION_S` the older generation goes, and what was met since has moved to the younger one. So a head,
  with the cookies and passwords in it, is forgotten at most twice that time after it was last met.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

HEADS: Final = 512
HEAD_BYTES: Final = 768
GENERATION_S: Final = 30.0
_SEEN: Final = 4096

Head = TypeVar("Head")


class Memo(Generic[Head]):
    """Remembers heads by their bytes.

    Attributes:
        young: What was met in this generation; the data path looks here by itself.
    """

    __slots__ = ("_old", "_seen", "young")

    def __init__(self) -> None:
        self.young: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}
        self._seen: set[int] = set()

    def __repr__(self) -> str:
        return f"<Memo young={len(self.young)} old={len(self._old)} seen={len(self._seen)}>"

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def recall(self, data: bytes) -> Head | None:
        """Return what is known of a head that `young` does not have, or None."""
        head = self._old.pop(data, None) if self._old else None
        if head is not None:
            self._keep(data, head)
        return head

    def meet(self, data: bytes, head: Head) -> None:
        """Take note of a head that was not known; keep it if it has been met before."""
        if len(data) > HEAD_BYTES:
            return
        mark = hash(data)
        if mark in self._seen:
            self._seen.discard(mark)
            self._keep(data, head)
        else:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(mark)

    def _keep(self, data: bytes, head: Head) -> None:
        if len(self.young) >= HEADS:
            self._old = self.young
            self.young = {}
        self.young[data] = head

    def age(self) -> None:
        """Forget what was not met since the last call."""
        self._old = self.young
        self.young = {}
        self._seen.clear()


class Ageing:
    """Lets memos age, visited by the worker's wheel."""

    __slots__ = ("_memos", "deadline")

    def __init__(self, now: float, *memos: Memo[Any]) -> None:
        self._memos = memos
        self.deadline = now + GENERATION_S

    def __repr__(self) -> str:
        return f"<Ageing {self._memos!r}>"

    def expire(self, now: float) -> None:
        """Begin another generation (called by the wheel)."""
        self.deadline = now + GENERATION_S
        for memo in self._memos:
            memo.age()
