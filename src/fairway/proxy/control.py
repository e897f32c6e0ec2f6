"""The control socket of a door: messages, framing, and the client that the platform uses.

A frame is four bytes of length, big endian, and that many bytes of JSON. The client sends one request a frame and gets
one reply a frame, in order. The socket lies in a directory of mode 0700 and is itself 0600: whoever can open it owns
the door. The server half is `fairway.proxy.control_server`.

Every worker of a door has a socket of its own; whoever runs several pushes the same table to each.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from fairway.proxy.errors import ControlError, ProxyError, RouteError
from fairway.proxy.routes import RouteTable, validate_table

MAX_FRAME = 64 * 1024 * 1024
HISTOGRAM_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LENGTH = struct.Struct(">I")


class Push(msgspec.Struct, frozen=True, tag="push"):
    """Replace the route table."""

    table: RouteTable


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Give these targets no new requests and wait for the ones in flight, at most `timeout` seconds."""

    targets: tuple[str, ...]
    timeout: float


class Ask(msgspec.Struct, frozen=True, tag="statistics"):
    """Return `Statistics`."""


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """Return the metrics in the Prometheus text format."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Read certificates again from their files."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Accept nothing new, finish what is in flight within `grace` seconds, exit."""

    grace: float


Request = Push | Drain | Ask | Metrics | Reload | Stop


class Reply(msgspec.Struct, frozen=True):
    """Answer to one request: `result` where `error` is None."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    code: str = ""


class TargetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one target since the worker met it.

    Attributes:
        requests: Exchanges finished, whatever their end.
        errors_5xx: Of those, answered with 5xx by the target, or with 502/504 by the door on its behalf.
        connect_errors: Attempts to connect that failed.
        in_flight: Requests now running, long-lived streams included.
        streams: Of those, long-lived ones (SSE, upgraded connections).
        latency_sum_s: Sum of the seconds from a request's head to its answer's head, over `requests`.
        bytes_received: Bytes of response bodies taken from it.
        idle_connections: Connections kept for reuse.
        ejected: Whether passive ejection keeps requests away from it now.
    """

    requests: int = 0
    errors_5xx: int = 0
    connect_errors: int = 0
    in_flight: int = 0
    streams: int = 0
    latency_sum_s: float = 0.0
    bytes_received: int = 0
    idle_connections: int = 0
    ejected: bool = False


class RouteStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one route.

    Attributes:
        requests: Answers by status class, such as ``{"2xx": 10, "5xx": 1}``; ``499`` for clients that left.
        latency_buckets: Answers whose head took at most `HISTOGRAM_BOUNDS_S` seconds, not cumulative; the last
            entry counts the slower ones.
        latency_sum_s: Sum of those seconds.
        held: Requests now waiting because the route is ``holding``.
    """

    requests: dict[str, int]
    latency_buckets: tuple[int, ...]
    latency_sum_s: float
    held: int = 0


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Snapshot of one worker.

    Attributes:
        pid: Its process.
        version: Of the route table in force.
        uptime_s: Seconds since it started.
        connections: Open client connections.
        requests_in_flight: Exchanges that have begun and not ended.
        log_dropped: Access log records lost because the writer did not keep up.
        upstream_connections: Open connections to targets, idle ones included.
        tasks: asyncio tasks alive; does not grow with the number of connections.
        targets: By id.
        routes: By name.
    """

    pid: int
    version: int
    uptime_s: float
    connections: int
    requests_in_flight: int
    log_dropped: int
    upstream_connections: int
    tasks: int
    targets: dict[str, TargetStatistics]
    routes: dict[str, RouteStatistics]


T = TypeVar("T")


def encode_frame(payload: bytes) -> bytes:
    """Return `payload` with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Read one frame; None at a clean end of the stream.

    Raises:
        ControlError: If the frame is longer than `MAX_FRAME` or cut off.
    """
    try:
        head = await reader.readexactly(_LENGTH.size)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise ControlError("expected a whole control frame, got an end of stream inside its length") from error
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise ControlError(f"expected a control frame of at most {MAX_FRAME} bytes, got one of {length}")
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ControlError(f"expected {length} bytes of control frame, got {len(error.partial)}") from error


class DoorClient:
    """Talks to one worker of the door. A connection is opened for every call, so that a worker's restart is no event.

    Cancelling a call closes its connection; the worker finishes what it began.
    """

    __slots__ = ("_path",)

    def __init__(self, socket_path: Path | str) -> None:
        self._path = str(socket_path)

    def __repr__(self) -> str:
        return f"<DoorClient {self._path}>"

    async def push(self, table: RouteTable) -> int:
        """Replace the route table in one step and return the version in force.

        Raises:
            RouteError: If the table is refused; the old one stays.
            ControlError: If the worker cannot be reached.
        """
        validate_table(table)
        return await self._call(Push(table), int)

    async def drain(self, target_ids: Iterable[str], timeout: float) -> int:
        """Give these targets no new requests; return how many were still in flight after at most `timeout` seconds.

        Long-lived streams do not hold the drain up: they are told to end within it by a timer with jitter of their own.
        A later `push` that names a target again puts it back to work.
        """
        return await self._call(Drain(tuple(target_ids), timeout), int, wait=timeout)

    async def statistics(self) -> Statistics:
        """Return the counters of the worker."""
        return await self._call(Ask(), Statistics)

    async def metrics(self) -> str:
        """Return the worker's metrics in the Prometheus text format."""
        return await self._call(Metrics(), str)

    async def reload_certificates(self) -> int:
        """Read certificates again from their files; return how many are in force."""
        return await self._call(Reload(), int)

    async def stop(self, grace: float) -> None:
        """Tell the worker to accept nothing new, finish within `grace` seconds and exit; returns once it has begun."""
        await self._call(Stop(grace), None)

    async def _call(self, request: Request, result: type[T] | None, wait: float = 0.0) -> T:
        try:
            async with asyncio.timeout(wait + 10.0):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(encode_frame(msgspec.json.encode(request)))
                    await writer.drain()
                    frame = await read_frame(reader)
                finally:
                    writer.close()
        except TimeoutError as error:
            raise ControlError(f"expected an answer on {self._path} within {wait + 10.0:g} s, got none") from error
        except OSError as error:
            raise ControlError(f"expected a door listening on {self._path}, got: {error}") from error
        if frame is None:
            raise ControlError(f"expected an answer on {self._path}, got a closed connection")
        try:
            reply = msgspec.json.decode(frame, type=Reply)
            if reply.error is None:
                return msgspec.json.decode(reply.result, type=result)
        except msgspec.DecodeError as error:
            raise ControlError(f"expected a reply as JSON on {self._path}, got: {error}") from error
        raise _ERRORS.get(reply.code, ControlError)(reply.error, code=reply.code)


_ERRORS: dict[str, type[ProxyError]] = {RouteError.code: RouteError}
