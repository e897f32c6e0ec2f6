"""`HttpStore`: a job store behind a Fairway daemon's HTTP API, for workers and producers in other processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from fairway.jobs import errors, machine
from fairway.jobs.errors import InvalidJob, JobError, StoreUnavailable
from fairway.jobs.http import Address, BlockingHttpClient, HttpClient
from fairway.jobs.job import (
    Batch,
    Enqueued,
    Job,
    JobFilter,
    Lease,
    NewBatch,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueConfig,
    QueueStatus,
    Schedule,
    ScheduleStatus,
    Verdict,
)
from fairway.jobs.store import Features, Store, StoreOptions

T = TypeVar("T")
_encode = msgspec.json.encode
_MAX_WAIT_S = 60.0  # how long the daemon lets one call wait


class _Leased(Struct):
    jobs: list[Lease]


class _Verdicts(Struct):
    verdicts: list[Verdict]


class _Problem(Struct):
    code: str = "jobs.error"
    detail: str = ""
    hint: str = ""
    field: str = ""


_leased = msgspec.json.Decoder(_Leased)
_verdicts = msgspec.json.Decoder(_Verdicts)
_ERRORS: dict[str, type[JobError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, JobError)
}


class HttpStore(Store):
    """Every method is a call of the daemon's API; see `fairway.api.jobs`.

    Args:
        url: Of the daemon, such as ``http://127.0.0.1:7070``.
        options: Bounds for what is sent; the daemon's own hold.
        token: Bearer token; None takes ``FAIRWAY_TOKEN`` from the environment.
    """

    def __init__(self, url: str, options: StoreOptions | None = None, token: str | None = None) -> None:
        self.options = options or StoreOptions()
        self.features = Features(durability="process", shared=True, cross_queue=True, survives_restart=True)
        self._address = Address(url, token if token is not None else os.environ.get("FAIRWAY_TOKEN") or None)
        self._client: HttpClient | None = None
        self._blocking = BlockingHttpClient(self._address)

    async def open(self) -> None:
        """Ask the daemon what its store guarantees. Raises `StoreUnavailable` where none answers."""
        if self._client is None:
            self._client = HttpClient(self._address)
            try:
                features = await self._ask("GET", "/v1/jobs:store", Features)
            except BaseException:
                self._client = None
                raise
            self.features = msgspec.structs.replace(features, shared=True)

    async def close(self) -> None:
        """See `Store.close`."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._blocking.close()

    async def _send(
        self, method: str, path: str, body: Any = None, *, timeout_s: float = 30.0, repeatable: bool = True
    ) -> bytes:
        if self._client is None:
            raise StoreUnavailable(f"the store {self._address.url} is not open")
        status, data = await self._client.call(
            method, path, None if body is None else _encode(body), timeout_s=timeout_s, repeatable=repeatable
        )
        if status >= 400:
            raise _error(status, data)
        return data

    async def _ask(self, method: str, path: str, kind: type[T], body: Any = None, **how: Any) -> T:
        data = await self._send(method, path, body, **how)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(f"{self._address.url}{path} answered with something else: {error}") from error

    # Producers ----------------------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob], batch: NewBatch | None = None) -> Enqueued:
        """See `Store.enqueue`."""
        machine.check_jobs(jobs, batch, self.options.max_payload)
        queue = jobs[0].queue
        if batch is None and len(jobs) == 1:
            return await self._ask("POST", f"/v1/queues/{queue}/jobs", Enqueued, jobs[0], repeatable=False)
        path = "/v1/jobs:batch" if any(job.queue != queue for job in jobs) else f"/v1/queues/{queue}/jobs:batch"
        body = {"jobs": jobs, "batch": batch}
        return await self._ask("POST", path, Enqueued, body, repeatable=False)

    async def cancel(self, job_id: int) -> Job:
        """See `Store.cancel`."""
        return await self._ask("POST", f"/v1/jobs/{job_id}:cancel", Job)

    async def retry(self, job_id: int) -> Job:
        """See `Store.retry`."""
        return await self._ask("POST", f"/v1/jobs/{job_id}:retry", Job, repeatable=False)

    async def replay(self, queue: str | None = None, kind: str | None = None, limit: int = 1000) -> int:
        """See `Store.replay`."""
        body = {"queue": queue, "kind": kind, "limit": limit}
        answer: dict[str, int] = await self._ask("POST", "/v1/jobs:replay", dict[str, int], body)
        return answer["replayed"]

    # Workers ------------------------------------------------------------------------------------------------------

    async def claim(
        self, queues: Sequence[str], limit: int, lease_s: float, worker: str, wait_s: float = 0.0
    ) -> list[Lease]:
        """See `Store.claim`."""
        machine.check_claim(queues, limit, lease_s, wait_s)
        wait_s = min(wait_s, _MAX_WAIT_S)
        body = {"queues": queues, "limit": limit, "lease_s": lease_s, "worker": worker, "wait_s": wait_s}
        # Not repeated: the answer that was lost may have leased jobs; their leases run out.
        data = await self._send("POST", "/v1/jobs:lease", body, timeout_s=wait_s + 15.0, repeatable=False)
        return _leased.decode(data).jobs

    async def end_claims(self, worker: str) -> None:
        """Have the daemon answer the waiting claims of `worker` with nothing: nothing can be leased unseen then."""
        await self._send("POST", "/v1/jobs:drain", {"worker": worker}, timeout_s=5.0)

    def renew(self, leases: Sequence[tuple[int, int]], lease_s: float) -> list[Verdict]:
        """See `Store.renew`."""
        status, data = self._blocking.call(
            "POST", "/v1/jobs:heartbeat", _encode({"leases": leases, "lease_s": lease_s})
        )
        if status >= 400:
            raise _error(status, data)
        return _verdicts.decode(data).verdicts

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Verdict]:
        """See `Store.settle`."""
        machine.check_outcomes(outcomes)
        data = await self._send("POST", "/v1/jobs:settle", {"outcomes": outcomes})
        return _verdicts.decode(data).verdicts

    async def progress(self, job_id: int, fence: int, value: float, note: str | None = None) -> Verdict:
        """See `Store.progress`."""
        machine.check_progress(value, note)
        body = {"fence": fence, "value": value, "note": note}
        return await self._verdict(f"/v1/jobs/{job_id}:progress", body)

    async def _verdict(self, path: str, body: dict[str, Any]) -> Verdict:
        try:
            answer: dict[str, Verdict] = await self._ask("POST", path, dict[str, Verdict], body)
        except errors.LeaseLost:
            return Verdict.LOST
        return answer["verdict"]

    async def once(self, job_id: int, fence: int, key: str) -> OnceVerdict:
        """See `Store.once`."""
        machine.check_key(key)
        body = {"fence": fence, "key": key}
        try:
            answer = await self._ask("POST", f"/v1/jobs/{job_id}:once", dict[str, OnceVerdict], body)
        except errors.LeaseLost:
            return OnceVerdict.LOST
        return answer["verdict"]

    # Readers ------------------------------------------------------------------------------------------------------

    async def get(self, job_id: int) -> Job | None:
        """See `Store.get`."""
        try:
            return await self._ask("GET", f"/v1/jobs/{job_id}", Job)
        except errors.JobNotFound:
            return None

    async def wait(self, job_id: int, timeout_s: float) -> Job:
        """See `Store.wait`."""
        left = timeout_s
        while left > 0:
            wait_s = min(left, _MAX_WAIT_S)
            path = f"/v1/jobs/{job_id}/result?wait={wait_s:.3f}s"
            answer = await self._ask("GET", path, dict[str, Any], timeout_s=wait_s + 15.0)
            if answer["state"] in {"completed", "cancelled", "discarded"}:
                break
            left -= wait_s
        job = await self.get(job_id)
        if job is None:
            raise errors.JobNotFound(f"no job has id {job_id}")
        return job

    async def find(self, where: JobFilter) -> list[Job]:
        """See `Store.find`."""
        machine.check_filter(where)
        query = {name: value for name, value in msgspec.structs.asdict(where).items() if value is not None}
        answer: dict[str, list[Job]] = await self._ask("GET", f"/v1/jobs?{urlencode(query)}", dict[str, list[Job]])
        return answer["jobs"]

    async def batch(self, batch_id: int) -> Batch | None:
        """See `Store.batch`."""
        try:
            return await self._ask("GET", f"/v1/batches/{batch_id}", Batch)
        except errors.BatchNotFound:
            return None

    async def queues(self) -> list[QueueStatus]:
        """See `Store.queues`."""
        answer: dict[str, list[QueueStatus]] = await self._ask("GET", "/v1/queues", dict[str, list[QueueStatus]])
        return answer["queues"]

    # Operators and schedules --------------------------------------------------------------------------------------

    async def configure(self, queue: str, config: QueueConfig) -> None:
        """See `Store.configure`."""
        machine.check_queue(queue)
        machine.check_config(config)
        await self._send("PUT", f"/v1/queues/{queue}", config)

    async def pause(self, queue: str, paused: bool = True) -> None:
        """See `Store.pause`."""
        await self._send("POST", f"/v1/queues/{quote(queue, safe='')}:{'pause' if paused else 'resume'}")

    async def maintain(self) -> None:
        """Nothing: the daemon's store does it by itself."""

    async def put_schedule(self, schedule: Schedule) -> None:
        """See `Store.put_schedule`."""
        machine.check_schedule(schedule, self.options.max_payload)
        await self._send("PUT", f"/v1/schedules/{schedule.name}", schedule)

    async def remove_schedule(self, name: str) -> None:
        """See `Store.remove_schedule`."""
        await self._send("DELETE", f"/v1/schedules/{quote(name, safe='')}", repeatable=False)

    async def schedules(self) -> list[ScheduleStatus]:
        """See `Store.schedules`."""
        kind = dict[str, list[ScheduleStatus]]
        answer: dict[str, list[ScheduleStatus]] = await self._ask("GET", "/v1/schedules", kind)
        return answer["schedules"]

    async def ticked(self, name: str, tick: float) -> None:
        """Nothing: the daemon fires schedules and notes their ticks itself."""

    def __repr__(self) -> str:
        return f"<HttpStore {self._address.url} {'closed' if self._client is None else 'open'}>"


def _error(status: int, data: bytes) -> JobError:
    """Return a problem+json answer as the error that the daemon's own store raised."""
    try:
        problem = msgspec.json.decode(data, type=_Problem)
    except msgspec.MsgspecError:
        problem = _Problem(detail=f"HTTP status {status}: {data[:200].decode('utf-8', 'replace')}")
    kind = _ERRORS.get(problem.code)
    if kind is None:
        kind = InvalidJob if status == 422 else StoreUnavailable if status >= 500 else JobError
    if issubclass(kind, InvalidJob):
        return kind(problem.detail, field=problem.field, code=problem.code, hint=problem.hint)
    return kind(problem.detail, code=problem.code, hint=problem.hint)


__all__ = ["HttpStore"]
