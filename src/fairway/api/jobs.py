"""Jobs over HTTP: producers, workers in any language, operators.

A worker needs only this: lease, heartbeat, and settle, each by id and fence; a stale fence is a 409 whose problem
names it. The calls of producers and workers are plain ASGI endpoints rather than Starlette's `Request` and
`Response`, because they come thousands of times a second.

Size: one handler a route of one resource; splitting them would hide which route comes before which.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from fairway.api.job_bodies import (
    CompleteRequest,
    Ended,
    FailRequest,
    FenceRequest,
    HeartbeatRequest,
    HeartbeatsRequest,
    JobList,
    Leased,
    LeaseFromRequest,
    LeaseRequest,
    NewJobs,
    OnceAnswer,
    OnceRequest,
    ProgressRequest,
    QueueList,
    Replayed,
    ReplayRequest,
    ResultAnswer,
    ScheduleList,
    SettleRequest,
    SnoozeRequest,
    VerdictAnswer,
    Verdicts,
    WorkerRequest,
)
from fairway.api.operation import Operation, Query, check_text, decode, operation, query_int, read, reply
from fairway.api.problem import RequestError
from fairway.api.protocol import ANSWER
from fairway.jobs.errors import BatchNotFound, InvalidJob, JobNotFound, LeaseLost
from fairway.jobs.job import (
    STATES,
    Batch,
    Completed,
    Enqueued,
    Failed,
    Job,
    JobFilter,
    NewJob,
    OnceVerdict,
    Outcome,
    QueueConfig,
    QueueStatus,
    Released,
    Schedule,
    Snoozed,
    State,
    Stopped,
    Verdict,
)
from fairway.jobs.store import Features

if TYPE_CHECKING:
    from fairway.jobs.service import JobService

MAX_WAIT_S = 60.0
"""How long one call waits at most, for a lease or a result."""


Hot = Callable[[dict[str, Any], bytes, Receive], Awaitable[Any]]


class HotEndpoint:
    """An ASGI endpoint: reads the body, calls `handler` with path parameters and body, sends its answer as JSON."""

    def __init__(self, handler: Hot, told: Operation) -> None:
        self.handler = handler
        self.operation = told
        self.status = told.status
        self.__name__ = getattr(handler, "__name__", "")
        self.__doc__ = handler.__doc__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client went away before its request was complete
            body = body + message["body"] if body else message.get("body", b"")
            if not message.get("more_body"):
                break
        if not _is_json(scope):
            raise RequestError("Expected Content-Type application/json.", code="request.unsupported")
        answer = msgspec.json.encode(await self.handler(scope["path_params"], body, receive))
        at_once = scope.get("extensions", {}).get(ANSWER)
        if at_once is not None and at_once["call"](self.status, b"content-type: application/json\r\n", answer):
            return
        length = str(len(answer)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
            return bool(kind == b"application/json" or kind.endswith(b"+json"))
    return False


def _body(data: bytes, kind: Any) -> Any:
    if not data:
        raise RequestError("Expected a JSON body, got an empty one.", code="request.json")
    return decode(data, kind)


_new_job = msgspec.json.Decoder(NewJob)


class _Jobs:
    """Handlers over one service."""

    def __init__(self, service: JobService) -> None:
        self.service = service
        self.store = service.store

    # Producers ----------------------------------------------------------------------------------------------------

    async def enqueue(self, path: dict[str, Any], data: bytes, _receive: Receive) -> Enqueued:
        """Store one job and answer after the commit; the answer says how durable it is."""
        try:
            check_text(data)
            job = _new_job.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            job = _body(data, NewJob)  # decoded again for an error that names the field
        job = _in_queue(job, path["queue"], "queue")
        try:
            return await self.service.enqueue((job,))
        except InvalidJob as error:
            about_one_job(error)
            raise

    async def enqueue_many(self, path: dict[str, Any], data: bytes, _receive: Receive) -> Enqueued:
        """Store jobs, all or none, as a batch with a completion callback where ``batch`` is given."""
        asked: NewJobs = _body(data, NewJobs)
        queue = path["queue"]
        jobs = [_in_queue(job, queue, f"jobs[{n}].queue") for n, job in enumerate(asked.jobs)]
        return await self.service.enqueue(jobs, asked.batch)

    async def enqueue_mixed(self, _path: dict[str, Any], data: bytes, _receive: Receive) -> Enqueued:
        """Store jobs of several queues, all or none; each names its own."""
        asked: NewJobs = _body(data, NewJobs)
        return await self.service.enqueue(asked.jobs, asked.batch)

    @operation(
        "List jobs",
        tag="jobs",
        response=JobList,
        query=[
            Query("queue", str, "Only this queue."),
            Query("state", State, "Only this state."),
            Query("kind", str, "Only this kind."),
            Query("before", int, "Only ids below this one: the last id of the page before."),
            Query("limit", int, "At most this many, 1 to 1000; 100 by default."),
        ],
    )
    async def find(self, request: Request) -> Response:
        """Answer with jobs, newest first."""
        asked = request.query_params
        state = asked.get("state")
        if state is not None and state not in STATES:
            raise RequestError(
                f"Expected state to be one of {', '.join(STATES)}, got {state[:80]!r}.",
                code="request.invalid",
                field="state",
            )
        where = JobFilter(
            queue=asked.get("queue"),
            state=state,
            kind=asked.get("kind"),
            before=query_int(request, "before", 0, high=1 << 53) or None,
            limit=query_int(request, "limit", 100, low=1, high=1000),
        )
        return reply(JobList(jobs=await self.store.find(where)))

    @operation("Show a job", tag="jobs", response=Job, errors=(404,))
    async def show(self, request: Request) -> Response:
        """Answer with one job."""
        job_id = _job_id(request.path_params)
        job = await self.store.get(job_id)
        if job is None:
            raise JobNotFound(f"no job has id {job_id}")
        return reply(job)

    @operation(
        "Wait for the result of a job",
        tag="jobs",
        response=ResultAnswer,
        query=[Query("wait", str, "How long to wait for the end, such as 10s or 500ms; 60s at most.")],
        errors=(404,),
    )
    async def result(self, request: Request) -> Response:
        """Answer with the result once there is one: 200 for a job that has ended, 202 for one that has not."""
        wait_s = _duration(request.query_params.get("wait", "0s"))
        job = await self.store.wait(_job_id(request.path_params), wait_s)
        error = job.error if job.state in {"discarded", "cancelled"} else None
        answer = ResultAnswer(id=job.id, state=job.state, result=job.result, error=error)
        return reply(answer, 200 if job.final else 202)

    @operation("Cancel a job", tag="jobs", response=Job, errors=(404,))
    async def cancel(self, request: Request) -> Response:
        """Cancel a waiting job at once; a running one as soon as its worker hears of it."""
        return reply(await self.store.cancel(_job_id(request.path_params)))

    @operation("Retry a job", tag="jobs", response=Job, errors=(404, 409))
    async def retry(self, request: Request) -> Response:
        """Make a waiting, discarded or cancelled job available now, its attempts back at 0."""
        return reply(await self.store.retry(_job_id(request.path_params)))

    @operation("Replay discarded jobs", tag="jobs", body=ReplayRequest, body_required=False, response=Replayed)
    async def replay(self, request: Request) -> Response:
        """Retry discarded jobs, oldest first."""
        asked = await read(request, ReplayRequest, required=False)
        if not 1 <= asked.limit <= 10_000:
            raise InvalidJob(f"expected limit between 1 and 10000, got {asked.limit}", field="limit")
        return reply(Replayed(replayed=await self.store.replay(asked.queue, asked.kind, asked.limit)))

    @operation("Show a batch", tag="jobs", response=Batch, errors=(404,))
    async def batch(self, request: Request) -> Response:
        """Answer with the progress of a batch."""
        batch_id = _job_id(request.path_params)
        batch = await self.store.batch(batch_id)
        if batch is None:
            raise BatchNotFound(f"no batch has id {batch_id}")
        return reply(batch)

    # Workers ------------------------------------------------------------------------------------------------------

    async def lease(self, path: dict[str, Any], data: bytes, receive: Receive) -> Leased:
        """Lease jobs of one queue, waiting for them if asked to; a client that goes away leaves no lease."""
        return await self._lease([path["queue"]], _body(data, LeaseRequest), receive)

    async def lease_from(self, _path: dict[str, Any], data: bytes, receive: Receive) -> Leased:
        """Lease jobs of several queues in order of preference."""
        asked: LeaseFromRequest = _body(data, LeaseFromRequest)
        return await self._lease(asked.queues, asked, receive)

    async def _lease(self, queues: list[str], asked: LeaseRequest, receive: Receive) -> Leased:
        if not 0 < len(asked.worker) <= 200:
            raise InvalidJob("expected worker to be 1 to 200 characters", field="worker")
        if asked.wait_s < 0:
            raise InvalidJob(f"expected wait_s to be 0 or more seconds, got {asked.wait_s!r}", field="wait_s")
        claim = self.service.claim
        wait_s = min(asked.wait_s, MAX_WAIT_S)
        if wait_s <= 0:
            return Leased(jobs=await claim(queues, asked.limit, asked.lease_s, asked.worker, wait_s))
        me = asyncio.current_task()
        assert me is not None
        gone = asyncio.ensure_future(receive())

        def leave(_: object) -> None:
            me.cancel()  # nobody would hear of what it leases

        gone.add_done_callback(leave)
        try:
            return Leased(jobs=await claim(queues, asked.limit, asked.lease_s, asked.worker, wait_s))
        except asyncio.CancelledError:
            if not gone.done() or me.uncancel():
                raise
            return Leased(jobs=[])
        finally:
            gone.remove_done_callback(leave)
            gone.cancel()

    @operation("End a worker's waiting lease calls", tag="jobs", body=WorkerRequest, response=Ended)
    async def drain(self, request: Request) -> Response:
        """Answer the waiting lease calls of a worker that drains with nothing."""
        asked = await read(request, WorkerRequest)
        return reply(Ended(ended=self.service.end_claims(asked.worker)))

    async def heartbeats(self, _path: dict[str, Any], data: bytes, _receive: Receive) -> Verdicts:
        """Renew leases; the verdict ``lost`` says that a job is no longer yours, ``cancel`` that it shall stop."""
        asked: HeartbeatsRequest = _body(data, HeartbeatsRequest)
        return Verdicts(verdicts=await self._renew(asked.leases, asked.lease_s))

    async def _renew(self, leases: list[tuple[int, int]], lease_s: float) -> list[Verdict]:
        if not 0 < lease_s <= 86_400:
            raise InvalidJob(f"expected lease_s above 0 and at most 86400, got {lease_s!r}", field="lease_s")
        if self.store.features.shared:
            # Such a store's `renew` talks to a server, and it blocks.
            return await asyncio.to_thread(self.store.renew, leases, lease_s)
        return self.store.renew(leases, lease_s)

    async def settle(self, _path: dict[str, Any], data: bytes, _receive: Receive) -> Verdicts:
        """Say how attempts ended, many at a time; a stale fence is the verdict ``lost`` and changes nothing."""
        asked: SettleRequest = _body(data, SettleRequest)
        if len(asked.outcomes) > 10_000:
            raise InvalidJob(f"expected at most 10000 outcomes, got {len(asked.outcomes)}", field="outcomes")
        return Verdicts(verdicts=await self.store.settle(asked.outcomes) if asked.outcomes else [])

    @operation("Renew a lease", tag="jobs", body=HeartbeatRequest, response=VerdictAnswer, errors=(409,))
    async def heartbeat(self, request: Request) -> Response:
        """Renew one lease; 409 where the fence is stale."""
        asked = await read(request, HeartbeatRequest)
        job_id = _job_id(request.path_params)
        (verdict,) = await self._renew([(job_id, asked.fence)], asked.lease_s)
        return _verdict(job_id, asked.fence, verdict)

    async def _settle_one(self, outcome: Outcome) -> Response:
        (verdict,) = await self.store.settle([outcome])
        return _verdict(outcome.id, outcome.fence, verdict)

    @operation("Complete a job", tag="jobs", body=CompleteRequest, response=VerdictAnswer, errors=(409,))
    async def complete(self, request: Request) -> Response:
        """The job is done; again with the same fence is fine, a stale one is a 409."""
        asked = await read(request, CompleteRequest)
        result = Raw(b"null") if isinstance(asked.result, UnsetType) else asked.result
        return await self._settle_one(Completed(_job_id(request.path_params), asked.fence, result))

    @operation("Fail an attempt", tag="jobs", body=FailRequest, response=VerdictAnswer, errors=(409,))
    async def fail(self, request: Request) -> Response:
        """The attempt failed: the job is tried again by its backoff, or discarded."""
        asked = await read(request, FailRequest)
        job_id = _job_id(request.path_params)
        return await self._settle_one(Failed(job_id, asked.fence, asked.error, asked.retry, asked.retry_in_s))

    @operation("Snooze a job", tag="jobs", body=SnoozeRequest, response=VerdictAnswer, errors=(409,))
    async def snooze(self, request: Request) -> Response:
        """Put the job off; the attempt is not charged."""
        asked = await read(request, SnoozeRequest)
        return await self._settle_one(Snoozed(_job_id(request.path_params), asked.fence, asked.delay_s))

    @operation("Hand a job back", tag="jobs", body=FenceRequest, response=VerdictAnswer, errors=(409,))
    async def release(self, request: Request) -> Response:
        """Make the job available again; the attempt is not charged."""
        asked = await read(request, FenceRequest)
        return await self._settle_one(Released(_job_id(request.path_params), asked.fence))

    @operation("Confirm a cancellation", tag="jobs", body=FenceRequest, response=VerdictAnswer, errors=(409,))
    async def stop(self, request: Request) -> Response:
        """The handler has ended because the job was cancelled."""
        asked = await read(request, FenceRequest)
        return await self._settle_one(Stopped(_job_id(request.path_params), asked.fence))

    @operation("Report progress", tag="jobs", body=ProgressRequest, response=VerdictAnswer, errors=(409,))
    async def progress(self, request: Request) -> Response:
        """Note how far a running job is."""
        asked = await read(request, ProgressRequest)
        job_id = _job_id(request.path_params)
        return _verdict(job_id, asked.fence, await self.store.progress(job_id, asked.fence, asked.value, asked.note))

    @operation("Ask the once ledger", tag="jobs", body=OnceRequest, response=OnceAnswer, errors=(409,))
    async def once(self, request: Request) -> Response:
        """Reserve a key that becomes done in the commit of the job's completion."""
        asked = await read(request, OnceRequest)
        job_id = _job_id(request.path_params)
        verdict = await self.store.once(job_id, asked.fence, asked.key)
        if verdict is OnceVerdict.LOST:
            raise _stale(job_id, asked.fence)
        return reply(OnceAnswer(verdict=verdict))

    # Operators ----------------------------------------------------------------------------------------------------

    @operation("Describe the job store", tag="jobs", response=Features)
    async def features(self, _request: Request) -> Response:
        """Answer with what the store guarantees."""
        return reply(self.store.features)

    @operation("List queues", tag="queues", response=QueueList)
    async def queues(self, _request: Request) -> Response:
        """Answer with every queue, its counts by state and its configuration."""
        return reply(QueueList(queues=await self.store.queues()))

    @operation("Show a queue", tag="queues", response=QueueStatus, errors=(404,))
    async def queue(self, request: Request) -> Response:
        """Answer with one queue."""
        return reply(await self.service.queue(request.path_params["queue"]))

    @operation("Configure a queue", tag="queues", body=QueueConfig, response=QueueStatus)
    async def configure(self, request: Request) -> Response:
        """Set rate limit and retention of a queue, creating it."""
        name = request.path_params["queue"]
        await self.store.configure(name, await read(request, QueueConfig))
        return reply(await self.service.queue(name))

    @operation("Pause a queue", tag="queues", response=QueueStatus, errors=(404,))
    async def pause(self, request: Request) -> Response:
        """Lease nothing from the queue until it is resumed; running jobs go on."""
        name = request.path_params["queue"]
        await self.store.pause(name)
        return reply(await self.service.queue(name))

    @operation("Resume a queue", tag="queues", response=QueueStatus, errors=(404,))
    async def resume(self, request: Request) -> Response:
        """Lease from the queue again."""
        name = request.path_params["queue"]
        await self.store.pause(name, False)
        return reply(await self.service.queue(name))

    @operation("List schedules", tag="schedules", response=ScheduleList)
    async def schedules(self, _request: Request) -> Response:
        """Answer with every schedule and its last tick."""
        return reply(ScheduleList(schedules=await self.store.schedules()))

    @operation("Store a schedule", tag="schedules", body=Schedule, response=Schedule)
    async def put_schedule(self, request: Request) -> Response:
        """Store or replace a schedule."""
        schedule = await read(request, Schedule)
        name = request.path_params["name"]
        if schedule.name != name:
            raise InvalidJob(f"expected name to be {name!r} as in the path, got {schedule.name!r}", field="name")
        await self.service.put_schedule(schedule)
        return reply(schedule)

    @operation("Delete a schedule", tag="schedules", status=204, errors=(404,))
    async def remove_schedule(self, request: Request) -> Response:
        """Delete a schedule; jobs that it enqueued stay."""
        await self.store.remove_schedule(request.path_params["name"])
        return reply(None)

    def routes(self) -> list[BaseRoute]:
        """Return the routes, those of verbs before those of plain names, which would match them too."""
        post, get = ["POST"], ["GET"]
        hot = {
            "/v1/queues/{queue}/jobs": (self.enqueue, "Enqueue a job", NewJob, Enqueued, 201),
            "/v1/queues/{queue}/jobs:batch": (self.enqueue_many, "Enqueue several jobs", NewJobs, Enqueued, 201),
            "/v1/jobs:batch": (self.enqueue_mixed, "Enqueue jobs of several queues", NewJobs, Enqueued, 201),
            "/v1/queues/{queue}:lease": (self.lease, "Lease jobs of a queue", LeaseRequest, Leased, 200),
            "/v1/jobs:lease": (self.lease_from, "Lease jobs of several queues", LeaseFromRequest, Leased, 200),
            "/v1/jobs:heartbeat": (self.heartbeats, "Renew leases", HeartbeatsRequest, Verdicts, 200),
            "/v1/jobs:settle": (self.settle, "Settle attempts", SettleRequest, Verdicts, 200),
        }
        one = {
            "heartbeat": self.heartbeat,
            "complete": self.complete,
            "fail": self.fail,
            "snooze": self.snooze,
            "release": self.release,
            "stop": self.stop,
            "progress": self.progress,
            "once": self.once,
            "cancel": self.cancel,
            "retry": self.retry,
        }
        return [
            *(
                Route(path, HotEndpoint(handler, Operation(summary, "jobs", body, answer, status, errors=(503,))),
                      methods=post)
                for path, (handler, summary, body, answer, status) in hot.items()
            ),
            Route("/v1/jobs:drain", self.drain, methods=post),
            Route("/v1/jobs:replay", self.replay, methods=post),
            Route("/v1/jobs:store", self.features, methods=get),
            *(Route(f"/v1/jobs/{{job_id}}:{verb}", handler, methods=post) for verb, handler in one.items()),
            Route("/v1/jobs/{job_id}/result", self.result, methods=get),
            Route("/v1/jobs/{job_id}", self.show, methods=get),
            Route("/v1/jobs", self.find, methods=get),
            Route("/v1/batches/{job_id}", self.batch, methods=get),
            Route("/v1/queues", self.queues, methods=get),
            Route("/v1/queues/{queue}:pause", self.pause, methods=post),
            Route("/v1/queues/{queue}:resume", self.resume, methods=post),
            Route("/v1/queues/{queue}", self.queue, methods=get),
            Route("/v1/queues/{queue}", self.configure, methods=["PUT"]),
            Route("/v1/schedules", self.schedules, methods=get),
            Route("/v1/schedules/{name}", self.put_schedule, methods=["PUT"]),
            Route("/v1/schedules/{name}", self.remove_schedule, methods=["DELETE"]),
        ]  # fmt: skip


def about_one_job(error: InvalidJob) -> InvalidJob:
    """Return what a store said of ``jobs[0]`` as the caller knows that job: as the body."""
    error.field = error.field.removeprefix("jobs[0].")
    error.args = (error.message.replace("jobs[0].", ""),)
    error.message = error.args[0]
    return error


def _in_queue(job: NewJob, queue: str, field: str) -> NewJob:
    """Return `job` in the queue of the path; a body may leave it out but not contradict."""
    if job.queue != queue:
        if job.queue != "default":
            raise InvalidJob(f"expected queue to be {queue!r} as in the path, got {job.queue!r}", field=field)
        msgspec.structs.force_setattr(job, "queue", queue)  # decoded just now: nobody else has it
    return job


def _job_id(path: dict[str, Any]) -> int:
    text = path["job_id"]
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise JobNotFound(f"expected a job's id to be an integer, got {text[:40]!r}")
    return int(text)


def _duration(text: str) -> float:
    """Return ``10s``, ``500ms``, ``1m`` or a plain number of seconds as seconds, at most `MAX_WAIT_S`."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m)?", text)
    if match is None:
        raise RequestError(
            f"Expected wait to be a duration such as 10s, got {text[:40]!r}.", code="request.invalid", field="wait"
        )
    return min(MAX_WAIT_S, float(match[1]) * {"ms": 0.001, "m": 60.0}.get(match[2], 1.0))


def _stale(job_id: int, fence: int) -> LeaseLost:
    error = LeaseLost(f"job {job_id} is not running with fence {fence}")
    error.field = "fence"
    return error


def _verdict(job_id: int, fence: int, verdict: Verdict) -> Response:
    if verdict is Verdict.LOST:
        raise _stale(job_id, fence)
    return reply(VerdictAnswer(verdict=verdict))


def routes(service: JobService) -> list[BaseRoute]:
    """Return the routes over `service`."""
    return _Jobs(service).routes()
