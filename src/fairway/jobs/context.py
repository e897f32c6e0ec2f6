"""What a handler knows of its job, what it can say about it, and how it ends other than by returning."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from fairway.jobs.errors import LeaseLost
from fairway.jobs.job import OnceVerdict, Verdict

if TYPE_CHECKING:
    from fairway.jobs.job import Lease
    from fairway.jobs.store import Store

T = TypeVar("T")


class Ending(Exception):
    """Base of what a handler raises to end its attempt in a way of its own."""


class Snooze(Ending):
    """Put the job off by `delay_s` seconds (>= 0); the attempt is not charged."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"snoozed for {delay_s:g} s")
        self.delay_s = delay_s


class Discard(Ending):
    """The job can never succeed: discard it now, whatever attempts are left."""


class Retry(Ending):
    """Fail the attempt, and try again in `delay_s` seconds instead of after the job's own backoff."""

    def __init__(self, delay_s: float, reason: str = "") -> None:
        super().__init__(reason or f"retry in {delay_s:g} s")
        self.delay_s = delay_s


class JobContext:
    """One attempt, as its handler sees it: a parameter annotated `JobContext` receives it.

    Attributes:
        id: The job.
        fence: Proof of ownership: hand it to systems that can reject a stale writer.
        attempt: Which attempt this is, from 1.
        max_attempts: How many there may be.
        queue: The queue it came from.
        kind: Name of the task.
        deadline: When the attempt runs out of time, in `time.monotonic` seconds, or None.
        meta: Small strings that the producer sent along.
        previous: Result of the job before it in the chain, or a batch's summary, decoded; None where there is none.
    """

    __slots__ = ("_lease", "_log", "_loop", "_stopped", "_store", "deadline")

    def __init__(self, lease: Lease, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._lease = lease
        self._store = store
        self._loop = loop
        self._log: Any = None
        self._stopped: threading.Event | None = None
        self.deadline = None if lease.timeout_s is None else time.monotonic() + lease.timeout_s

    @property
    def id(self) -> int:
        """The job."""
        return self._lease.id

    @property
    def fence(self) -> int:
        """Proof of ownership."""
        return self._lease.fence

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._lease.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts there may be."""
        return self._lease.max_attempts

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._lease.queue

    @property
    def kind(self) -> str:
        """Name of the task."""
        return self._lease.kind

    @property
    def meta(self) -> dict[str, str]:
        """Small strings that the producer sent along."""
        return self._lease.meta

    @property
    def previous(self) -> Any:
        """Result before it in a chain, or a batch's summary, decoded; None where there is none."""
        previous: Raw | UnsetType = self._lease.previous
        return None if previous is UNSET else msgspec.json.decode(previous)

    @property
    def log(self) -> Any:
        """A structured logger whose lines carry the job's id, kind and attempt."""
        if self._log is None:
            from fairway.telemetry import log

            self._log = log.get("job", job=self.id, kind=self.kind, attempt=self.attempt)
        return self._log

    @property
    def stopped(self) -> threading.Event:
        """Set once the attempt shall end: cancelled, out of time, lease lost. A handler in a thread looks at it."""
        if self._stopped is None:
            self._stopped = threading.Event()
        return self._stopped

    async def progress(self, value: float, note: str | None = None) -> None:
        """Report progress, 0.0 to 1.0, and a note of at most 1,000 characters.

        Raises:
            InvalidJob: The value or the note is out of bounds.
            LeaseLost: The job is no longer this attempt's.
            asyncio.CancelledError: The job was cancelled; let it pass.
        """
        if note is not None:
            note = note.encode(errors="backslashreplace").decode()  # a lone surrogate has no place in JSON
        verdict = await self._store.progress(self.id, self.fence, value, note)
        if verdict is Verdict.LOST:
            raise LeaseLost(f"job {self.id} is no longer at fence {self.fence}")

    async def once(self, key: str) -> bool:
        """Whether `key` is still to be done: False if a job of this queue has completed after doing it.

        True reserves the key; it counts as done in the very commit that completes this job, and is free again if the
        attempt ends otherwise. While another running job holds the key, this job is put off by a second.

        Raises:
            LeaseLost: The job is no longer this attempt's.
            Snooze: Another running job holds the key; let it pass.
        """
        verdict = await self._store.once(self.id, self.fence, key)
        if verdict is OnceVerdict.LOST:
            raise LeaseLost(f"job {self.id} is no longer at fence {self.fence}")
        if verdict is OnceVerdict.BUSY:
            raise Snooze(1.0)
        return verdict is OnceVerdict.FIRST

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the worker's loop and wait for it: for handlers in threads.

        ``ctx.run(ctx.progress(0.5))``
        """
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def stop(self) -> None:
        """Set `stopped`; the worker calls it."""
        self.stopped.set()

    def __repr__(self) -> str:
        return f"<JobContext {self.kind} #{self.id} attempt {self.attempt}/{self.max_attempts} fence {self.fence}>"
