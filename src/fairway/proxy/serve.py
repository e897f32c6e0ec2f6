"""Runs one worker of the door until a signal or a `Stop` request ends it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from fairway.proxy.control_server import ControlServer
from fairway.proxy.errors import OptionError
from fairway.proxy.options import DoorOptions, parse_address
from fairway.proxy.routes import Route, RouteTable, Target
from fairway.proxy.worker import Worker

if TYPE_CHECKING:
    from fairway.proxy.tls import CertificateStore


def parse_route(text: str, number: int = 0) -> Route:
    """Read ``HOST[/PATH]=UPSTREAM[,UPSTREAM…]``; an upstream is ``[http://]HOST:PORT``.

    Raises:
        OptionError: If it has another form.
    """
    place, equals, upstreams = text.partition("=")
    if not equals or not place or not upstreams:
        raise OptionError(f"expected a route as HOST=UPSTREAM, such as app.test=127.0.0.1:9000, got {text!r}")
    host, slash, path = place.partition("/")
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and (name.endswith("]") or ":" not in name):
        host = name  # routes are told apart by name; the port is the listener's business
    host = canonical_host(host)
    targets = []
    for index, upstream in enumerate(upstreams.split(",")):
        address, upstream_port = parse_address(upstream.removeprefix("http://").rstrip("/"))
        targets.append(Target(id=f"{number}.{index}", host=address, port=upstream_port))
    return Route(name=f"r{number}", host=host or "*", path=slash + path or "/", targets=tuple(targets))


def canonical_host(host: str) -> str:
    """Return a route's host as requests are matched: lower case, no final dot, IPv6 in brackets and shortest form."""
    try:
        return f"[{ipaddress.IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
    except ValueError:
        return host.lower().removesuffix(".")


def table_of(routes: Sequence[str]) -> RouteTable:
    """Read several routes; the same place given twice gets the targets of both."""
    merged: dict[tuple[str, str], Route] = {}
    for number, text in enumerate(routes):
        route = parse_route(text, number)
        known = merged.get((route.host, route.path))
        if known is not None:
            route = Route(name=known.name, host=known.host, path=known.path, targets=known.targets + route.targets)
        merged[route.host, route.path] = route
    return RouteTable(version=1, routes=tuple(merged.values()))


def raise_file_limit() -> None:
    """Allow as many open files as the system lets this process have: every connection is one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS names a bound that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(10_240, wanted), hard))


class Door:
    """One worker with its control socket, signals and certificates; `run` serves until it is told to stop."""

    def __init__(self, options: DoorOptions, table: RouteTable | None = None) -> None:
        self._options = options
        self._table = table
        self._stop: asyncio.Event | None = None
        self._grace = options.grace

    def __repr__(self) -> str:
        return f"<Door {self._options.listen}>"

    def run(self) -> int:
        """Serve; return the exit status: 0, or 1 where requests had to be cut off at the end of the grace."""
        raise_file_limit()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self.serve())

    async def serve(self) -> int:
        """Serve on the running loop until told to stop; return how `run` should exit."""
        loop = asyncio.get_running_loop()
        worker = Worker(self._options, loop)
        self._stop = asyncio.Event()
        if self._table is not None:
            worker.replace_table(self._table)
        else:
            worker.load_state()
        tls = self._open_tls()
        await worker.listen(tls.context if tls is not None else None)
        control = None
        if self._options.socket is not None:
            control = ControlServer(worker, self._options.socket, self._ask_stop, tls.reload if tls else None)
            await control.start()
        close_metrics = self._serve_metrics(worker)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_stop, self._options.grace)
        # What lives now lives to the end: the collector need not look at it again. It need not look at it now either:
        # imports leave some hundred objects behind, and every app waits for the processor that it would take.
        gc.enable()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        for host, port in worker.addresses:
            print(f"fairway door listening on {host}:{port}", file=sys.stderr, flush=True)
        await self._stop.wait()
        if control is not None:
            await control.close()
        if close_metrics is not None:
            await loop.run_in_executor(None, close_metrics)
        cut = await worker.stop(self._grace)
        return 1 if cut else 0

    def _ask_stop(self, grace: float) -> None:
        self._grace = grace
        if self._stop is not None:
            self._stop.set()

    def _open_tls(self) -> CertificateStore | None:
        if self._options.tls_listen is None:
            return None
        from fairway.proxy.tls import CertificateStore

        return CertificateStore(self._options.certificates or Path("certificates"))

    def _serve_metrics(self, worker: Worker) -> Callable[[], None] | None:
        if self._options.metrics is None:
            return None
        from fairway.proxy.scrape import serve_metrics

        return serve_metrics(worker, *parse_address(self._options.metrics))
