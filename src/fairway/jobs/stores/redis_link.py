"""The jobs' way to Redis: `fairway.resp.Link`, with the errors of jobs."""

from __future__ import annotations

from fairway import resp
from fairway.jobs.errors import JobError, StoreUnavailable
from fairway.resp import Refusal

FAULTS = resp.Faults(
    service="jobs",
    unavailable=StoreUnavailable,
    closed=lambda: StoreUnavailable("the redis store is not open"),
    url=lambda message: JobError(message, code="jobs.store_url"),
)


class Refused(StoreUnavailable):
    """Redis answered with an error: nothing was done."""


class Link(resp.Link):
    """See `fairway.resp.Link`; a call raises `StoreUnavailable` alone."""

    def refused(self, error: Refusal) -> Refused:
        """Return what the server refused as the store's error; a server that has become a replica is left."""
        text = str(error)
        if "OOM" in text or "allow-oom" in text:
            return Refused(f"redis is out of memory: {text}", hint="raise maxmemory, or let the queues run empty")
        if "READONLY" in text:
            self.leave()  # a name may lead to another server by now
        if text.startswith(("MOVED", "CLUSTERDOWN")):
            return Refused(f"redis: {text}", hint="a cluster answers again once a replica has taken the slot over")
        return Refused(f"redis: {text}")
