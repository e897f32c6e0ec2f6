"""The enqueue of one job on the short way: see `fairway.api.protocol`.

It passes the same guard, decoder, service and store as the endpoint of `fairway.api.jobs`, which gets every request
that any of them refuses, and refuses it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from fairway.api.jobs import about_one_job
from fairway.api.operation import check_text
from fairway.api.problem import Problem, problem_of
from fairway.api.protocol import Answer
from fairway.errors import FairwayError
from fairway.jobs.errors import InvalidJob
from fairway.jobs.job import NewJob

if TYPE_CHECKING:
    from fairway.api.guard import Guard
    from fairway.jobs.service import JobService

_PATH = re.compile(rb"/v1/queues/([A-Za-z0-9_.-]{1,100})/jobs")
_JSON = b"content-type: application/json\r\n"
_PROBLEM = b"content-type: application/problem+json\r\n"

_job = msgspec.json.Decoder(NewJob)
_encode = msgspec.json.encode


class ShortEnqueue:
    """``POST /v1/queues/{queue}/jobs`` where all is in order.

    Args:
        guard: What every request has to pass.
        service: Where jobs go.
    """

    def __init__(self, guard: Guard, service: JobService) -> None:
        self._guard = guard
        self._service = service

    def takes(self, url: bytes) -> bool:
        """See `Short.takes`."""
        return url.endswith(b"/jobs") and _PATH.fullmatch(url) is not None

    def begin(
        self, url: bytes, headers: dict[bytes, bytes], body: bytes, local: bool
    ) -> tuple[asyncio.Future[Any], Callable[[asyncio.Future[Any]], Answer]] | None:
        """See `Short.begin`."""
        if headers.get(b"content-type") != b"application/json" or len(body) > self._guard.policy.max_body:
            return None
        path = url.decode()
        self._guard.check(path, headers, local)
        check_text(body)
        job = _job.decode(body)
        if job.queue != (queue := path[11:-5]):
            if job.queue != "default":
                return None
            msgspec.structs.force_setattr(job, "queue", queue)  # decoded just now: nobody else has it
        return self._service.enqueue_soon((job,)), _enqueued


def _enqueued(future: asyncio.Future[Any]) -> Answer:
    error = future.exception()
    if error is None:
        return Answer(201, _JSON, _encode(future.result()))
    if isinstance(error, InvalidJob):
        error = about_one_job(error)
    if isinstance(error, FairwayError):
        problem = problem_of(error)
    else:
        from fairway.telemetry import log

        log.get("api").error("request failed", path="/v1/queues/{queue}/jobs", method="POST", exc_info=error)
        problem = Problem(
            title="Internal Server Error", status=500, detail="Fairway failed; its log says why.", code="api.internal"
        )
    return Answer(problem.status, _PROBLEM, _encode(problem))
