"""Logs over HTTP: what the files hold, and lines as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fairway.api.operation import Query as Parameter
from fairway.api.operation import operation, query_flag, query_int, query_values, reply
from fairway.api.sse import ServerSentEvent, stream
from fairway.logs.line import LogLine
from fairway.logs.query import Query, containing, parse_since

if TYPE_CHECKING:
    from fairway.logs.service import LogService

_MOST_LINES = 10_000
_BATCH = 256


class LogPage(msgspec.Struct, kw_only=True):
    """Lines, ascending by time."""

    lines: list[LogLine]


class Dropped(msgspec.Struct, kw_only=True):
    """``lines``: how many were lost since the last such event because the client was too slow."""

    lines: int


def routes(service: LogService) -> list[BaseRoute]:
    """Return the routes over `service`."""

    @operation(
        "Read what the apps print",
        tag="logs",
        response=LogPage,
        query=[
            Parameter("app", list[str], "Only these apps; Fairway's own is `_fairway`."),
            Parameter("follow", bool, "Go on as server-sent events; `Last-Event-ID` resumes."),
            Parameter("since", str, "A time (ISO 8601, Unix seconds) or an age such as `10m`."),
            Parameter("grep", str, "Only lines that contain this text, whatever its case."),
            Parameter("tail", int, f"Only the last so many lines, at most {_MOST_LINES}; 100 without `since`."),
        ],
        errors=(422,),
    )
    async def logs(request: Request) -> Response:
        """Answer with lines interleaved by time, or stream them: one line an event; ``dropped`` says some were lost."""
        follow = query_flag(request, "follow")
        query = _query(request)
        if not follow:
            lines = await asyncio.to_thread(lambda: list(service.history(query)))
            return reply(LogPage(lines=lines))
        return stream(_lines(service, query, request.headers.get("last-event-id")))

    return [Route("/v1/logs", logs, methods=["GET"])]


def _query(request: Request) -> Query:
    since = request.query_params.get("since")
    grep = request.query_params.get("grep")
    most = _MOST_LINES if since else 100
    return Query(
        apps=frozenset(query_values(request, "app")),
        since=parse_since(since, time.time()) if since else None,
        match=containing(grep) if grep else None,
        tail=query_int(request, "tail", most, high=_MOST_LINES),
    )


async def _lines(service: LogService, query: Query, after: str | None) -> AsyncIterator[ServerSentEvent]:
    """Yield history, then live lines; an id comes with the last line of each batch, when all before it were sent."""
    with service.subscribe(query) as live:
        if after:
            query = replace(query, tail=None, since=None)  # everything behind the cursor, nothing before it
        past = await asyncio.to_thread(lambda: service.history(query, ends=live.begins, after=after))
        while batch := await asyncio.to_thread(_some, past):
            for line in batch:
                yield ServerSentEvent(data=line)
        told = 0
        yield ServerSentEvent(event="live", data={}, id=live.cursor)
        async for lines in live:
            if live.dropped > told:
                yield ServerSentEvent(event="dropped", data=Dropped(lines=live.dropped - told))
                told = live.dropped
            for line in lines[:-1]:
                yield ServerSentEvent(data=line)
            yield ServerSentEvent(data=lines[-1], id=live.cursor)


def _some(lines: Iterator[LogLine]) -> list[LogLine]:
    return list(islice(lines, _BATCH))
