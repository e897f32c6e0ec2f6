"""Middleware: hooks that see and change heads, answer by themselves, and put bodies through channels.

Hooks run in a task of their own a request, which costs what a task costs; a door without middleware has none of this
in its data path.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from fairway.proxy import fields
from fairway.proxy.bodypipe import BodyPipe, Stage
from fairway.proxy.errors import ProxyError

if TYPE_CHECKING:
    from fairway.proxy.exchange import Exchange

_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_OWN: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer", b"expect"}
)


class Headers:
    """Header fields in order; names are compared in any case. Framing fields are the door's and cannot be set."""

    __slots__ = ("_items", "changed")

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._items: list[tuple[bytes, bytes]] = []
        for line in lines:
            name, _, value = line[:-2].partition(b": ")
            self._items.append((name, value))
        self.changed = False

    def __repr__(self) -> str:
        return f"<Headers {[name.decode('latin-1') for name, _ in self._items]}>"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._items)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a field, or `default`."""
        wanted = name.lower()
        return next((value for key, value in self if key.lower() == wanted), default)

    def get_all(self, name: str) -> list[str]:
        """Return every value of a field."""
        wanted = name.lower()
        return [value for key, value in self if key.lower() == wanted]

    def add(self, name: str, value: str) -> None:
        """Append a field.

        Raises:
            ProxyError: If the name is no token, belongs to framing, or the value holds control characters.
        """
        key, content = name.encode("latin-1", "replace"), value.encode("latin-1", "replace")
        if not fields.is_token(key) or key.lower() in _OWN:
            raise ProxyError(f"expected the name of a header field other than framing, got {name!r}")
        if not _VALUE.match(content):
            raise ProxyError(f"expected a value of {name} without control characters, got {value!r}")
        self._items.append((key, content))
        self.changed = True

    def set(self, name: str, value: str) -> None:
        """Replace every field of that name by one. Raises as `add` does."""
        self.remove(name)
        self.add(name, value)

    def remove(self, name: str) -> None:
        """Remove every field of that name."""
        wanted = name.lower().encode("latin-1", "replace")
        kept = [item for item in self._items if item[0].lower() != wanted]
        self.changed = self.changed or len(kept) != len(self._items)
        self._items = kept

    def render(self) -> list[bytes]:
        """Return the fields as lines."""
        return [b"%b: %b\r\n" % item for item in self._items]


class ProxyRequest:
    """A request's head, for hooks. Changes made in a request hook reach the upstream.

    Attributes:
        method: As sent.
        target: Path and query as sent.
        host: Lower-case host name.
        client: The client's address.
        route: Name of the route it took.
        request_id: Its identifier.
        headers: Its fields, hop-by-hop and framing fields left out.
    """

    def __init__(self, exchange: Exchange) -> None:
        head = exchange.head
        self.method = head.method.decode("latin-1")
        self.target = head.target.decode("latin-1")
        self.host = head.name
        self.client = exchange.client.address
        self.route = exchange.route.name if exchange.route is not None else ""
        self.request_id = exchange.request_id.decode("latin-1")
        self.headers = Headers(head.lines)
        self.stages: list[Stage] = []

    def __repr__(self) -> str:
        return f"<ProxyRequest {self.method} {self.host} {self.target[:80]}>"

    def pipe(self, stage: Stage) -> None:
        """Put the request's body through `stage`; it is forwarded in chunked coding then."""
        self.stages.append(stage)


class ProxyResponse:
    """An answer's head, for hooks; or a whole small answer, for a request hook to give.

    Attributes:
        status: Its status.
        headers: Its fields, hop-by-hop and framing fields left out.
        body: Content of an answer that a hook makes; not used for an upstream's.
    """

    def __init__(self, status: int, headers: Headers | None = None, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers if headers is not None else Headers(())
        self.body = body
        self.stages: list[Stage] = []

    def __repr__(self) -> str:
        return f"<ProxyResponse {self.status}>"

    def pipe(self, stage: Stage) -> None:
        """Put the answer's body through `stage`; it is sent in chunked coding then."""
        self.stages.append(stage)


class Middleware:
    """Base of a middleware: override what is needed. Request hooks run in order, response hooks in reverse."""

    async def request(self, request: ProxyRequest) -> ProxyResponse | None:
        """See a request before it is forwarded; return an answer to give instead, or None to go on."""
        return None

    async def response(self, request: ProxyRequest, response: ProxyResponse) -> None:
        """See an upstream's answer before it is passed on."""
        return


class MiddlewareChain:
    """Runs the hooks of every exchange of a worker."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        self._middleware = tuple(middleware)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<MiddlewareChain {[type(each).__name__ for each in self._middleware]}>"

    def request(self, exchange: Exchange) -> None:
        """Run the request hooks, then let the exchange go on."""
        if not exchange.body_done:
            exchange.request_pipe = BodyPipe(
                exchange.hold_request, exchange.forward_body, exchange.forward_end, exchange.pipe_failed
            )
        self._spawn(self._run_request(exchange))

    def response(self, exchange: Exchange, payload: bytes) -> None:
        """Run the response hooks, then let the answer go out."""
        exchange.response_pipe = pipe = BodyPipe(
            exchange.hold_answer, exchange.emit_body, exchange.end_body, exchange.pipe_failed
        )
        if payload:
            pipe.feed(payload)
        self._spawn(self._run_response(exchange, pipe))

    def _spawn(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_request(self, exchange: Exchange) -> None:
        request = exchange.view = ProxyRequest(exchange)
        try:
            for middleware in self._middleware:
                answer = await middleware.request(request)
                if exchange.over:
                    return
                if answer is not None:
                    exchange.respond(answer.status, b"".join(answer.headers.render()), answer.body)
                    return
        except Exception as error:  # a hook's fault is an answer of 500, whatever it is
            exchange.pipe_failed(error)
            return
        head = exchange.head
        if request.headers.changed:
            head.lines = request.headers.render()
        pipe = exchange.request_pipe
        if pipe is not None:
            if request.stages:
                head.chunked, head.length = True, -1
            pipe.start(request.stages)
        exchange.dispatch()

    async def _run_response(self, exchange: Exchange, pipe: BodyPipe) -> None:
        head = exchange.response
        request = exchange.view
        assert head is not None
        assert request is not None
        response = ProxyResponse(head.status, Headers(head.lines))
        try:
            for middleware in reversed(self._middleware):
                await middleware.response(request, response)
        except Exception as error:  # as above
            exchange.pipe_failed(error)
            return
        if exchange.over:
            return
        if response.headers.changed:
            head.lines = response.headers.render()
        if response.stages and not exchange.bodyless:
            head.length = -1
        exchange.send_head(b"")
        pipe.start(() if exchange.bodyless else response.stages)
