"""The access log: one JSON object a line, written by a thread of its own so that a slow disk never slows a request.

The data path appends one tuple to a bounded ring, which the writer empties five times a second, and sooner when it
fills; when the writer does not keep up, records are dropped and counted.
Successful requests can be sampled; answers of 400 and above always go in.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

if TYPE_CHECKING:
    from fairway.proxy.exchange import Exchange

RING: Final = 16_384
_WAKE_AT: Final = RING // 4
_FLUSH_S: Final = 0.2
_BATCH: Final = 1024
_monotonic = time.monotonic


class Record(msgspec.Struct, gc=False):
    """One line of the log."""

    time: float
    client: str
    method: str | None
    host: str | None
    target: str | None
    status: int
    bytes: int
    latency_s: float
    duration_s: float
    route: str | None
    upstream: str | None
    request_id: str
    traceparent: str | None


class AccessLog:
    """Takes records without waiting. `start` before the first one, `stop` writes what is left and joins the thread.

    Attributes:
        dropped: Records lost because the ring was full.
    """

    __slots__ = ("_path", "_random", "_ring", "_sample", "_stopped", "_thread", "_wake", "dropped")

    def __init__(self, path: str, sample: float = 1.0) -> None:
        self._path = path
        self._sample = sample
        self._ring: deque[tuple[Any, ...]] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._random = random.Random(os.urandom(8)).random  # noqa: S311  # a sample, not a secret
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<AccessLog {self._path} queued={len(self._ring)} dropped={self.dropped}>"

    def start(self) -> None:
        """Open the output and start the writer.

        Raises:
            OSError: If the file cannot be opened.
        """
        if self._path == "-":
            output: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        else:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            output = os.fdopen(descriptor, "wb", buffering=0)
        self._thread = threading.Thread(target=self._write_all, args=(output,), name="access-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end the writer; waits at most two seconds for it."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def exchange(self, exchange: Exchange, duration: float | None = None) -> None:
        """Record an exchange that has ended, `duration` seconds after it began (None: now)."""
        status = exchange.status
        if status < 400 and self._sample < 1.0 and self._random() >= self._sample:
            return
        if not self._has_room():
            return
        head = exchange.head
        client = exchange.client
        target = exchange.target
        route = exchange.route
        self._ring.append(
            (
                exchange.started,
                client.address if head.forwarded_for is None else exchange.worker.address_of(client, head),
                head.method,
                head.host,
                head.target,
                status,
                exchange.sent,
                exchange.latency,
                _monotonic() - exchange.started if duration is None else duration,
                route.name if route is not None else None,
                target.id if target is not None else None,
                exchange.request_id,
                exchange.traceparent,
            )
        )

    def _has_room(self) -> bool:
        count = len(self._ring)
        if count >= RING:
            self.dropped += 1
            return False
        if count == _WAKE_AT:
            self._wake.set()
        return True

    def refusal(self, status: int, address: str, request_id: bytes) -> None:
        """Record a request that was refused before it was one."""
        if self._has_room():
            now = _monotonic()
            self._ring.append((now, address, None, None, None, status, 0, 0.0, 0.0, None, None, request_id, None))

    def _write_all(self, output: BinaryIO) -> None:
        encoder = msgspec.json.Encoder()
        offset = time.time() - time.monotonic()
        ring = self._ring
        with output:
            while True:
                self._wake.wait(_FLUSH_S)
                self._wake.clear()
                stopped = self._stopped  # asked before the ring is: what was recorded before the end is written
                while ring:
                    records = [_as_record(ring.popleft(), offset) for _ in range(min(len(ring), _BATCH))]
                    try:
                        output.write(encoder.encode_lines(records))
                    except OSError:
                        self.dropped += len(records)  # a full disk or a closed pipe costs log lines, never requests
                if stopped:
                    return


def _as_record(raw: tuple[Any, ...], offset: float) -> Record:
    started, client, method, host, target, status, size, latency, duration, route, upstream, request_id, trace = raw
    return Record(
        int((started + offset) * 1e6) / 1e6,  # microseconds; a fifth of the time that round() takes
        client,
        None if method is None else method.decode("latin-1"),
        None if host is None else host.decode("latin-1"),
        None if target is None else target.decode("latin-1"),
        status,
        size,
        int(latency * 1e6 + 0.5) / 1e6,
        int(duration * 1e6 + 0.5) / 1e6,
        route,
        upstream,
        request_id.decode("latin-1"),
        None if trace is None else trace.decode("latin-1"),
    )
