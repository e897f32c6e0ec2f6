"""One worker of the door: listeners, the table in force, the connections and the books."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import re
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fairway.proxy.accesslog import AccessLog
from fairway.proxy.control import Statistics
from fairway.proxy.downstream import HEAD, ClientConnection
from fairway.proxy.errors import RouteError
from fairway.proxy.identifiers import request_ids, traceparents
from fairway.proxy.memo import Ageing, Memo
from fairway.proxy.options import DoorOptions, in_networks, parse_address, parse_networks
from fairway.proxy.outbox import Outbox
from fairway.proxy.routes import RouteTable, decode_table, encode_table, validate_table
from fairway.proxy.table import CompiledTable, RouteState
from fairway.proxy.upstream import UpstreamConnection
from fairway.proxy.wheel import Wheel

if TYPE_CHECKING:
    from fairway.proxy.exchange import Exchange
    from fairway.proxy.middleware import MiddlewareChain
    from fairway.proxy.request import RequestHead
    from fairway.proxy.response import ResponseHead
    from fairway.proxy.targets import TargetState

BACKLOG: Final = 4096
HELD_PER_ROUTE: Final = 1024
HELD_PER_WORKER: Final = 2048
"""Over all routes: each may bring a body of which 64 KiB wait in memory with it."""
_CHALLENGE: Final = re.compile(rb"/\.well-known/acme-challenge/([A-Za-z0-9_-]{1,128})\Z")
_ADDRESSES: Final = 4096


class Worker:
    """Serves until `stop`. All calls on the loop's thread.

    Attributes:
        table: The route table in force.
        heads: Requests' heads met lately, of untrusted and of trusted clients.
        answers: Answers' heads met lately.
        outbox: What is written at the end of this turn.
        trace: A request without `traceparent` gets one.
        next_request_id: Returns an identifier that no other request of any worker has.
        next_traceparent: Returns a fresh W3C trace context, sampled.
        in_flight: Exchanges that have begun and not ended.
        express: Messages may take the common way (see `express`): no middleware, not stopping, nobody waits for ends.
    """

    def __init__(self, options: DoorOptions, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.loop = loop
        self.wheel = Wheel(loop, residents=1)
        self.table = CompiledTable(RouteTable())
        self.heads: tuple[Memo[RequestHead], Memo[RequestHead]] = (Memo(), Memo())
        self.answers: Memo[ResponseHead] = Memo()
        self.wheel.add(Ageing(self.wheel.now, *self.heads, self.answers))
        self.outbox = Outbox(loop)
        self.trace = options.trace
        self.clients: set[ClientConnection] = set()
        self.upstreams: set[UpstreamConnection] = set()
        self.retired: dict[str, TargetState] = {}
        self._middleware: MiddlewareChain | None = None
        self.in_flight = 0
        self.refused = 0
        self._stopping = False
        self.express = True
        self.log: AccessLog | None = None
        if options.access_log != "off":
            self.log = AccessLog(options.access_log, options.access_log_sample)
        self.started = time.monotonic()
        self._trusted = parse_networks(options.trusted)
        self._servers: list[asyncio.Server] = []
        self._accepts = not options.await_routes
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[str, deque[Exchange]] = {}
        self._facts: dict[tuple[str, bool], tuple[bool, bytes]] = {}
        self.next_request_id: Callable[[], bytes] = request_ids().__next__
        self.next_traceparent: Callable[[], bytes] = traceparents().__next__
        self._random = random.Random(os.urandom(16))  # noqa: S311  # identifiers, not secrets
        self._settled: set[asyncio.Event] = set()

    def __repr__(self) -> str:
        return f"<Worker version={self.table.version} clients={len(self.clients)} in_flight={self.in_flight}>"

    @property
    def middleware(self) -> MiddlewareChain | None:
        """What sees the messages, if anything does."""
        return self._middleware

    @middleware.setter
    def middleware(self, chain: MiddlewareChain | None) -> None:
        self._middleware = chain
        self._judge_express()

    @property
    def stopping(self) -> bool:
        """Nothing new is accepted, answers close their connections."""
        return self._stopping

    def _judge_express(self) -> None:
        self.express = self._middleware is None and not self._stopping and not self._settled

    # -- life --------------------------------------------------------------------------------------------------------

    async def listen(self, tls: ssl.SSLContext | None = None) -> None:
        """Open the listeners.

        Raises:
            OSError: If an address cannot be bound.
        """
        self.wheel.start()
        if self.log is not None:
            self.log.start()
        await self._listen(self.options.listen, None)
        if self.options.tls_listen is not None and tls is not None:
            await self._listen(self.options.tls_listen, tls)

    async def _listen(self, address: str, tls: ssl.SSLContext | None) -> None:
        host, port = parse_address(address)
        secure = tls is not None
        patience = self.options.header_timeout if secure else None
        if self._accepts:
            server = await self.loop.create_server(
                lambda: ClientConnection(self, secure),
                host,
                port,
                backlog=BACKLOG,
                reuse_port=self.options.reuse_port or None,
                ssl=tls,
                ssl_handshake_timeout=patience,
            )
            self._servers.append(server)
            return
        for sock in await self._bound(host, port):
            server = await self.loop.create_server(
                lambda: ClientConnection(self, secure),
                sock=sock,
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=patience,
                start_serving=False,
            )
            self._servers.append(server)

    async def _bound(self, host: str, port: int) -> list[socket.socket]:
        """Return sockets that listen already, one an address of `host`: connections wait in them until `accept`."""
        found = await self.loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        bound: list[socket.socket] = []
        missing: OSError | None = None
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                try:
                    sock = socket.socket(family, kind, protocol)
                except OSError as error:  # a kernel without IPv6, where `localhost` has an address of it all the same
                    missing = error
                    continue
                bound.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if self.options.reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setblocking(False)
                sock.bind(address)
                sock.listen(BACKLOG)
            if missing is not None and not bound:
                raise missing
        except OSError as error:
            for sock in bound:
                sock.close()
            raise OSError(error.errno, f"expected to bind {host}:{port}, got: {error.strerror}") from error
        return bound

    async def accept(self) -> None:
        """Serve connections from now on, those first that have been waiting; a second time does nothing."""
        if not self._accepts:
            self._accepts = True
            for server in self._servers:
                await server.start_serving()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, plain first."""
        return [sock.getsockname()[:2] for server in self._servers for sock in server.sockets]

    async def stop(self, grace: float) -> int:
        """Accept nothing new, finish within `grace` seconds, close everything; return how many exchanges were cut off.

        Long-lived streams are ended one after the other over the first half of the grace.
        """
        self._stopping = True
        self._judge_express()
        for server in self._servers:
            server.close()
        for client in list(self.clients):
            if client.exchange is None and client.state == HEAD:
                client.close()
        for target in self._all_targets():
            target.close_idle()
            for exchange in list(target.streams):
                self.loop.call_later(self._random.uniform(0.0, grace / 2), exchange.end_stream)
        await self._until(lambda: self.in_flight == 0, grace)
        cut = self.in_flight
        for client in list(self.clients):
            if client.exchange is not None:
                client.transport.abort()
        await self._until(lambda: not self.clients, 2.0)
        for client in list(self.clients):
            client.transport.abort()
        for upstream in list(self.upstreams):
            upstream.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._until(lambda: not self.clients and not self.upstreams, 2.0)
        self.wheel.stop()
        if self.log is not None:
            await self.loop.run_in_executor(None, self.log.stop)
        return cut

    async def _until(self, done: Callable[[], bool], timeout: float) -> None:
        """Wait until `done()` holds, asked after every exchange and every 50 ms, at most `timeout` seconds."""
        end = self.loop.time() + timeout
        event = asyncio.Event()
        self._settled.add(event)
        self._judge_express()
        try:
            while not done() and (left := end - self.loop.time()) > 0:
                event.clear()
                try:
                    await asyncio.wait_for(event.wait(), min(left, 0.05))
                except TimeoutError:
                    continue
        finally:
            self._settled.discard(event)
            self._judge_express()

    # -- routes ------------------------------------------------------------------------------------------------------

    def replace_table(self, table: RouteTable) -> int:
        """Put a table in force in one step; return its version.

        Raises:
            RouteError: If it is refused; the one in force stays.
        """
        validate_table(table)
        compiled = CompiledTable(table, self.table)
        gone = compiled.gone
        compiled.gone = []
        self.table = compiled
        for target in gone:
            target.retire()
            if target.in_flight:
                self.retired[target.id] = target
        if self.options.state is not None:
            self._persist(self.options.state, encode_table(table))
        self._release_held()
        return table.version

    def load_state(self) -> bool:
        """Take the table that the last run left; False where there is none or it cannot be used."""
        path = self.options.state
        if path is None:
            return False
        try:
            table = decode_table(path.read_bytes())
        except (OSError, RouteError):
            return False
        self.table = CompiledTable(table, self.table)
        return True

    @staticmethod
    def _persist(path: Path, data: bytes) -> None:
        """Keep a table for the next run; where that cannot be, it is in force all the same."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the log may lie on the same full disk
                print(f"fairway door: expected to keep the routes in {path}, got: {error}", file=sys.stderr, flush=True)

    def hold(self, exchange: Exchange, timeout: float | None = None) -> None:
        """Keep an exchange waiting for a table in which its route serves, `timeout` seconds or its `hold_timeout`."""
        route = exchange.route
        assert route is not None
        held = self._held.setdefault(route.name, deque())
        if len(held) >= HELD_PER_ROUTE or sum(map(len, self._held.values())) >= HELD_PER_WORKER:
            full = "this service" if len(held) >= HELD_PER_ROUTE else "services that are about to return"
            exchange.refuse(503, f"Too many requests wait for {full}.", b"Retry-After: 1\r\n")
            return
        held.append(exchange)
        route.held = len(held)
        wait = route.spec.hold_timeout if timeout is None else timeout
        exchange.hold_timer = self.loop.call_later(wait, self._hold_expired, exchange)

    def _hold_expired(self, exchange: Exchange) -> None:
        route = exchange.route
        said = route.spec.notice if route is not None else ""
        exchange.refuse(503, said or "The service did not come back in time.", b"Retry-After: 1\r\n")

    def end_hold(self, exchange: Exchange) -> None:
        """Forget that an exchange waits: it goes on, or has ended."""
        timer, exchange.hold_timer = exchange.hold_timer, None
        if timer is not None:
            timer.cancel()
        route = exchange.route
        held = self._held.get(route.name) if route is not None else None
        if route is not None and held is not None and exchange in held:
            held.remove(exchange)
            route.held = len(held)

    def _release_held(self) -> None:
        waiting, self._held = self._held, {}
        for name, held in waiting.items():
            route: RouteState | None = self.table.routes.get(name)
            for exchange in held:
                if exchange.over:
                    continue
                before = exchange.route
                if route is None:
                    exchange.refuse(503, "The service is gone.")
                elif route.spec.state == "holding":
                    self._held.setdefault(name, deque()).append(exchange)
                    exchange.route = route
                elif route.spec.state == "unavailable":
                    said = route.spec.notice or "The service is not available now."
                    exchange.refuse(503, said, b"Retry-After: 5\r\n")
                else:
                    if before is not route and before is not None:
                        exchange.route = route
                    self.end_hold(exchange)
                    exchange.proceed()
            if route is not None:
                route.held = len(self._held.get(name, ()))

    async def drain(self, target_ids: tuple[str, ...], timeout: float) -> int:
        """Give targets no new requests, wait for what is in flight; return what is left after `timeout` seconds.

        Streams end by timers of their own, spread over the timeout.
        """
        targets = [
            target
            for name in target_ids
            if (target := self.table.targets.get(name) or self.retired.get(name)) is not None
        ]
        for target in targets:
            target.draining = True
            target.close_idle()
            for exchange in list(target.streams):
                self.end_stream_soon(exchange, timeout)
        await self._until(lambda: not any(target.in_flight for target in targets), timeout)
        return sum(target.in_flight for target in targets)

    def end_stream_soon(self, exchange: Exchange, within: float = 2.0) -> None:
        """End a long-lived stream at a random moment within so many seconds: not all clients come back at once."""
        self.loop.call_later(self._random.uniform(0.0, within * 0.8), exchange.end_stream)

    def target_settled(self, target: TargetState) -> None:
        """Note that an exchange of a target on its way out has ended."""
        if target.retired and target.in_flight == 0:
            self.retired.pop(target.id, None)

    def _all_targets(self) -> list[TargetState]:
        return [*self.table.targets.values(), *self.retired.values()]

    # -- what connections ask ----------------------------------------------------------------------------------------

    def client_facts(self, address: str, secure: bool) -> tuple[bool, bytes]:
        """Return whether a client's address is trusted, and its forwarding fields with a place for the host."""
        known = self._facts.get((address, secure))
        if known is None:
            plain = address.partition("%")[0].encode("ascii")
            scheme = b"https" if secure else b"http"
            fields = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %%b\r\n" % (plain, scheme)
            known = (in_networks(address, self._trusted), fields)
            if len(self._facts) >= _ADDRESSES:
                self._facts.clear()
            self._facts[address, secure] = known
        return known

    def address_of(self, client: ClientConnection, head: RequestHead) -> str:
        """Return who asks: the connection's other end, or the last one that trusted proxies name and that is none."""
        if head.forwarded_for is None:
            return client.address
        address = client.address
        for hop in reversed(b",".join(head.forwarded_for).decode("latin-1").split(",")):
            try:
                address = str(ipaddress.ip_address(hop.strip().partition("%")[0]))
            except ValueError:
                return address  # what stands before it cannot be believed either
            if not in_networks(address, self._trusted):
                break
        return address

    def connect(self, exchange: Exchange, target: TargetState) -> None:
        """Make a connection for an exchange; its `connected` or `connect_failed` follows."""
        task = self.loop.create_task(self._connect(exchange, target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, exchange: Exchange, target: TargetState) -> None:
        try:
            async with asyncio.timeout(exchange.upstream_timeout):
                _, upstream = await self.loop.create_connection(
                    lambda: UpstreamConnection(self, target), target.host, target.port
                )
        except (OSError, UnicodeError) as error:
            if not exchange.over:
                exchange.connect_failed(isinstance(error, TimeoutError))
            return
        if exchange.over:
            upstream.rest_idle()
        else:
            exchange.connected(upstream)

    def answer_challenge(self, exchange: Exchange) -> bool:
        """Answer an ACME HTTP-01 challenge from the challenge folder; False where it is none of ours."""
        folder = self.options.acme_challenges
        match = _CHALLENGE.match(exchange.head.target)
        if folder is None or match is None or exchange.head.method != b"GET":
            return False
        try:
            content = (folder / match[1].decode("ascii")).read_bytes()[:1024]
        except OSError:
            return False
        exchange.respond(200, b"Content-Type: application/octet-stream\r\n", content)
        return True

    # -- books -------------------------------------------------------------------------------------------------------

    def exchange_settled(self, exchange: Exchange) -> None:
        """Count an exchange that has ended."""
        self.in_flight -= 1
        route = exchange.route
        if route is not None:
            route.books.close(exchange.status, exchange.latency, exchange.left)
        if self.log is not None:
            self.log.exchange(exchange)
        if self._settled:
            for event in self._settled:
                event.set()

    def count_refusal(self, status: int, address: str, request_id: bytes) -> None:
        """Count a request that was refused before it became an exchange."""
        self.refused += 1
        if self.log is not None:
            self.log.refusal(status, address, request_id)

    def statistics(self) -> Statistics:
        """Return a snapshot of all counters."""
        now = self.loop.time()
        return Statistics(
            pid=os.getpid(),
            version=self.table.version,
            uptime_s=time.monotonic() - self.started,
            connections=len(self.clients),
            requests_in_flight=self.in_flight,
            log_dropped=self.log.dropped if self.log is not None else 0,
            upstream_connections=len(self.upstreams),
            tasks=len(asyncio.all_tasks(self.loop)),
            targets={target.id: target.statistics(now) for target in self._all_targets()},
            routes={name: route.statistics() for name, route in self.table.routes.items()},
        )
