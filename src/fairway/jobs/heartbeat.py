"""The thread that renews a worker's leases.

A thread of its own, and a store call that needs no event loop: a handler that keeps the loop or the processor busy
does not cost the worker its leases. It sleeps without a timeout once the worker has held nothing for a few beats: to
wake a thread for every job that comes alone would delay the job's start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from fairway.jobs.errors import JobError
from fairway.jobs.job import Verdict
from fairway.jobs.store import Store
from fairway.telemetry import log

_LINGER = 3  # beats with nothing held before the thread sleeps for good


class Heartbeat:
    """Renews what is in `held` every `interval_s`, and reports what shall stop.

    Args:
        store: Whose leases.
        held: Job id → fence of what the worker holds; read here, written by the worker.
        lease_s: Length of a renewed lease, seconds.
        interval_s: Seconds between renewals.
        report: Called from the thread with ``(id, fence, verdict)`` of every lease that is not `OK`.
    """

    def __init__(
        self,
        store: Store,
        held: Mapping[int, int],
        *,
        lease_s: float,
        interval_s: float,
        report: Callable[[list[tuple[int, int, Verdict]]], None],
    ) -> None:
        self._store = store
        self._held = held
        self._lease_s = lease_s
        self._interval_s = interval_s
        self._report = report
        self._wake = threading.Event()
        self._stopping = False
        self.idle = True
        self.beats = 0
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="fairway-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that `held` is no longer empty; any thread."""
        self.idle = False
        self._wake.set()

    def stop(self) -> None:
        """End the thread and wait for it; at most one store call."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        empty = _LINGER
        while not self._stopping:
            if empty >= _LINGER:
                # Set before the look: a job that comes between the two finds `idle` and wakes this thread.
                self.idle = True
                if not self._held:
                    self._wake.wait()
                self.idle = False
                empty = 0
            self._wake.clear()
            if self._stopping or self._wake.wait(self._interval_s):
                continue
            empty = 0 if self._held else empty + 1
            self._beat()

    def _beat(self) -> None:
        leases = list(self._held.items())
        if not leases:
            return
        try:
            verdicts = self._store.renew(leases, self._lease_s)
        except JobError as error:
            self.failures += 1
            log.get("worker").warning("heartbeat failed", error=str(error), leases=len(leases))
            return
        except Exception as error:  # a bug: without this thread every lease would run out, and its job run twice
            self.failures += 1
            log.get("worker").error("heartbeat failed", leases=len(leases), exc_info=error)
            return
        self.beats += 1
        told: list[tuple[int, int, Verdict]] = [
            (job_id, fence, verdict)
            for (job_id, fence), verdict in zip(leases, verdicts, strict=True)
            if verdict is not Verdict.OK
        ]
        if told:
            self._report(told)

    def __repr__(self) -> str:
        return f"<Heartbeat every {self._interval_s:g} s [{len(self._held)} leases, {self.beats} beats]>"
