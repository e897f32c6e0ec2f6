"""What an HTTP operation takes and gives, said once beside its handler: decoding, encoding and OpenAPI read it.

A module of `fairway.api` looks like this; `fairway.api.app.create_app` mounts what its `routes` returns::

    @operation("Enqueue a job", tag="jobs", body=NewJob, response=JobView, status=201)
    async def enqueue(request: Request) -> Response:
        job = await read(request, NewJob)
        return reply(await request.app.state.services.jobs.enqueue(job), 201)

    def routes(service: JobService) -> list[BaseRoute]:
        return [Route("/v1/queues/{queue}/jobs", enqueue, methods=["POST"])]

Handlers raise `FairwayError`; `fairway.api.problem` turns it into problem+json by its code.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fairway.api.problem import RequestError

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Awaitable[Response]])


@dataclass(frozen=True, slots=True)
class Query:
    """One query parameter.

    Attributes:
        name: As in the URL.
        type: Type whose JSON Schema describes it; `list[str]` may be repeated.
        about: One sentence for the reader of the document.
        required: Whether a request without it is refused.
    """

    name: str
    type: Any = str
    about: str = ""
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """One HTTP operation as OpenAPI shows it; called with a handler, function or method, it decorates that one.

    Attributes:
        summary: One line.
        tag: Section of the document.
        body: Type of the JSON body, or None.
        response: Type of the JSON answer, or None for an empty one.
        status: Status of success.
        query: Query parameters.
        media_type: Of the answer; ``text/event-stream`` marks a stream of server-sent events.
        body_required: Whether an empty body is refused.
        errors: Statuses of the problems that this operation answers with, beside 400, 401, 403 and 500.
        public: Whether it needs no token.
    """

    summary: str
    tag: str = "fairway"
    body: Any = None
    response: Any = None
    status: int = 200
    query: Sequence[Query] = ()
    media_type: str = "application/json"
    body_required: bool = True
    errors: Sequence[int] = ()
    public: bool = False

    def __call__(self, handler: H) -> H:
        """Attach the description to `handler` and return it."""
        handler.operation = self  # type: ignore[attr-defined]  # functions take attributes, Callable does not say so
        return handler


operation = Operation

_NAMED_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(\w{1,80})`\Z")


async def read(request: Request, type: type[T], *, required: bool = True) -> T:
    """Return the request's JSON body as `type`.

    Args:
        request: The request; its body was already bounded by the middleware.
        type: A msgspec structure or any type that msgspec decodes.
        required: Whether an empty body is an error; otherwise it counts as ``{}``.

    Raises:
        RequestError: Not JSON (``request.unsupported``, ``request.json``) or not of that type
            (``request.invalid``, with the field's path).
    """
    data = await request.body()
    if not data.strip():
        if required:
            raise RequestError("Expected a JSON body, got an empty one.", code="request.json")
        data = b"{}"
    else:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise RequestError(
                f"Expected Content-Type application/json, got {kind[:80] or 'none'!r}.", code="request.unsupported"
            )
    return decode(data, type)


def check_text(data: bytes) -> None:
    """Raise `UnicodeDecodeError` unless `data` is UTF-8: msgspec does not look into what it hands on as `Raw`."""
    if not data.isascii():
        data.decode()


def decode(data: bytes, type: type[T]) -> T:
    """Return JSON `data` as `type`; raises `RequestError` that names the field at fault."""
    try:
        check_text(data)
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        place = where.strip("`") or "$"
        named = _NAMED_FIELD.match(message)  # missing or unknown: the place is then that of the object around it
        field = f"{place}.{named[1]}" if named is not None else place
        raise RequestError(f"{message}, at {place} of the body.", field=field) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(f"The body is not JSON: {error}.", code="request.json") from None


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `value` as a JSON response; None gives an empty 204."""
    if value is None:
        return Response(status_code=204, headers=headers)
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def query_values(request: Request, name: str) -> list[str]:
    """Return every non-empty value of a query parameter; ``a=x,y&a=z`` gives three."""
    return [word for value in request.query_params.getlist(name) for word in value.split(",") if word]


def query_flag(request: Request, name: str) -> bool:
    """Return a boolean query parameter: absent is False, ``?follow`` and ``?follow=1`` are True.

    Raises:
        RequestError: Neither true nor false.
    """
    value = request.query_params.get(name)
    if value is None:
        return False
    if value.lower() in {"", "1", "true", "yes"}:
        return True
    if value.lower() in {"0", "false", "no"}:
        return False
    raise RequestError(f"Expected {name} to be true or false, got {value[:80]!r}.", field=name)


def query_int(request: Request, name: str, default: int, *, low: int = 0, high: int = 1_000_000) -> int:
    """Return an integer query parameter between `low` and `high`, or `default` where it is absent.

    Raises:
        RequestError: Not an integer or out of bounds.
    """
    value = request.query_params.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 12 or not low <= int(value) <= high:
        raise RequestError(f"Expected {name} to be an integer from {low} to {high}, got {value[:80]!r}.", field=name)
    return int(value)
