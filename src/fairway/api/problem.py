"""problem+json: errors as RFC 9457 tells them, and the one table from error codes to HTTP statuses.

Source: RFC 9457, Problem Details for HTTP APIs.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fairway.errors import FairwayError

# Longest matching prefix of the error's code wins; what is not listed is the server's own failure, 500.
STATUSES: dict[str, int] = {
    "app.unknown": 404,
    "app.stopped": 409,
    "release.unknown": 404,
    "instance.unknown": 404,
    "job.unknown": 404,
    "queue.unknown": 404,
    "topic.unknown": 404,
    "registry": 422,
    "logs": 422,
    "health": 422,
    "build": 422,
    "deploy": 422,
    "platform.invalid": 422,
    "platform.starting": 503,
    "toolchain": 422,
    "jobs": 422,
    "jobs.not_found": 404,
    "jobs.queue_not_found": 404,
    "jobs.schedule_not_found": 404,
    "jobs.batch_not_found": 404,
    "jobs.conflict": 409,
    "jobs.lease_lost": 409,
    "jobs.payload_too_large": 413,
    "jobs.store_unavailable": 503,
    "jobs.store_owned": 503,
    "events": 422,
    "events.unknown_group": 404,
    "events.delivery_lost": 409,
    "events.unknown_webhook": 404,
    "events.payload_too_large": 413,
    "events.store_unavailable": 503,
    "events.closed": 503,
    "request": 400,
    "request.invalid": 422,
    "request.too_large": 413,
    "request.unsupported": 415,
    "auth.missing": 401,
    "auth.invalid": 401,
    "auth.forbidden": 403,
    "limit": 429,
    "unavailable": 503,
}


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of every answer with a status of 400 or above.

    Attributes:
        type: URI reference of the kind of problem; ``/problems/CODE``.
        title: The status in words.
        status: HTTP status, as in the status line.
        detail: One sentence on this occurrence.
        code: The error's stable dotted code.
        hint: What to do about it, or empty.
        field: Path of the body field at fault, such as ``$.replicas``, or empty.
        log_lines: Last lines of the build or instance that failed, oldest first.
        log_path: File they come from, or empty.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    field: str = ""
    log_lines: tuple[str, ...] = ()
    log_path: str = ""


class RequestError(FairwayError):
    """The request itself is at fault.

    Attributes:
        field: Path of the body field at fault, such as ``$.replicas``, or empty.
    """

    code = "request.invalid"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None, field: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.field = field


def status_of(code: str) -> int:
    """Return the HTTP status of an error's dotted code: that of the longest known prefix, else 500."""
    parts = code.split(".")
    for end in range(len(parts), 0, -1):
        status = STATUSES.get(".".join(parts[:end]))
        if status is not None:
            return status
    return 500


def problem_of(error: FairwayError) -> Problem:
    """Return `error` as a problem."""
    status = status_of(error.code)
    return Problem(
        type=f"/problems/{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        field=getattr(error, "field", ""),
        log_lines=tuple(getattr(error, "log_lines", ())),
        log_path=str(getattr(error, "log_path", "") or ""),
    )


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """Return the response that carries `problem`."""
    extra = dict(headers or {})
    if problem.status == 401:
        extra["www-authenticate"] = 'Bearer realm="fairway"'
    return Response(msgspec.json.encode(problem), problem.status, extra, media_type="application/problem+json")


async def on_fairway_error(_request: Request, error: Exception) -> Response:
    """Starlette exception handler for `FairwayError`."""
    assert isinstance(error, FairwayError)
    return respond(problem_of(error))


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Starlette exception handler for its own `HTTPException`: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    code = {404: "request.not_found", 405: "request.method"}.get(error.status_code, "request.http")
    detail = error.detail if error.detail != title else f"{title}."
    problem = Problem(title=title, status=error.status_code, detail=detail, code=code)
    return respond(problem, dict(error.headers or {}))


async def on_bug(request: Request, error: Exception) -> Response:
    """Starlette exception handler for what nobody foresaw: logged in full, told to the client without details."""
    from fairway.telemetry import log

    log.get("api").error("request failed", path=request.url.path, method=request.method, exc_info=error)
    title = HTTPStatus(500).phrase
    return respond(
        Problem(title=title, status=500, detail="Fairway failed; its log says why.", code="api.internal"),
    )
