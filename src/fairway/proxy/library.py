"""The door as a library: a reverse proxy in one object.

from fairway.proxy import Middleware, ReverseProxy

class Upper(Middleware):
    async def response(self, request, response):
        response.headers.set("X-Seen-By", "upper")
        response.pipe(self.shout)

    async def shout(self, source, sink):
        async for piece in source:
            await sink.send(piece.upper())

ReverseProxy({"app.test": "127.0.0.1:9000"}, middleware=[Upper()], listen="127.0.0.1:8080").run()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec

from fairway.proxy.control import Statistics
from fairway.proxy.errors import OptionError
from fairway.proxy.middleware import Middleware, MiddlewareChain
from fairway.proxy.options import DoorOptions
from fairway.proxy.routes import RouteTable
from fairway.proxy.serve import table_of
from fairway.proxy.worker import Worker

Routes = Mapping[str, str] | RouteTable


class ReverseProxy:
    """A door on the running loop; an asynchronous context manager.

    Args:
        routes: ``{"HOST[/PATH]": "UPSTREAM[,UPSTREAM…]"}``, or a whole `RouteTable`.
        middleware: Hooks; request hooks run in this order, response hooks in reverse.
        listen: ``HOST:PORT``; port 0 takes a free one.
        options: Further fields of `DoorOptions`, such as ``upstream_timeout=5.0``.

    Raises:
        RouteError: If the routes cannot be used.
        OptionError: If an option cannot.
    """

    def __init__(
        self,
        routes: Routes,
        middleware: Sequence[Middleware] = (),
        *,
        listen: str = "127.0.0.1:8080",
        **options: Any,
    ) -> None:
        try:
            self._options = msgspec.convert({"listen": listen, **options}, DoorOptions)
        except msgspec.ValidationError as error:
            raise OptionError(f"expected options of DoorOptions, got: {error}") from error
        self._table = _as_table(routes)
        self._middleware = tuple(middleware)
        self._worker: Worker | None = None

    def __repr__(self) -> str:
        return f"<ReverseProxy {self._options.listen} {'serving' if self._worker else 'not started'}>"

    async def __aenter__(self) -> ReverseProxy:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> tuple[str, int]:
        """Begin to serve; return the address.

        Raises:
            OSError: If the address cannot be bound.
        """
        worker = Worker(self._options, asyncio.get_running_loop())
        if self._middleware:
            worker.middleware = MiddlewareChain(self._middleware)
        worker.replace_table(self._table)
        await worker.listen()
        self._worker = worker
        return self.address

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it serves on."""
        assert self._worker is not None, "not started"
        return self._worker.addresses[0]

    def replace(self, routes: Routes) -> None:
        """Put other routes in force in one step; requests in flight finish where they are.

        Raises:
            RouteError: If they cannot be used; the old ones stay.
        """
        assert self._worker is not None, "not started"
        self._worker.replace_table(_as_table(routes))

    def statistics(self) -> Statistics:
        """Return a snapshot of the counters."""
        assert self._worker is not None, "not started"
        return self._worker.statistics()

    async def stop(self, grace: float | None = None) -> int:
        """Accept nothing new, finish within `grace` seconds; return how many requests were cut off. Idempotent."""
        worker, self._worker = self._worker, None
        return await worker.stop(self._options.grace if grace is None else grace) if worker is not None else 0

    def run(self) -> None:
        """Serve on a loop of its own until SIGINT or SIGTERM."""
        import signal

        import uvloop

        async def serve() -> None:
            done = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, done.set)
            async with self:
                await done.wait()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())


def _as_table(routes: Routes) -> RouteTable:
    if isinstance(routes, RouteTable):
        return routes
    return table_of([f"{place}={upstreams}" for place, upstreams in routes.items()])
