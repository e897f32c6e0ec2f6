"""What every request has to pass before it reaches a handler: host, origin, token, body size.

Plain ASGI, no task and no buffering, because the job API goes through it thousands of times a second.

- *Host* against DNS rebinding: a page at evil.example whose name resolves to 127.0.0.1 sends its own name.
- *Origin* against cross-site requests: a browser tells it on POST, on EventSource and on WebSocket.
- *Token*: over TCP; constant-time comparison. A Unix socket is guarded by its file mode instead.
- *Body*: bounded by length and while it streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.api.problem import RequestError, problem_of, respond
from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.api.protocol import Short

MAX_BODY = 16 * 1024 * 1024
_PATIENCE = 5.0  # seconds for the rest of a body that is too large
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
APP_PATHS = ("/v1/queues", "/v1/jobs", "/v1/batches", "/v1/schedules", "/v1/events")


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """What the guard lets through.

    Attributes:
        token: Token that may do everything, or None to ask for none.
        app_token: Token that may use only `APP_PATHS`, or None.
        hosts: Host names, beside IP addresses, ``localhost`` and ``*.localhost``, under which the API may be called.
        open_paths: Paths that need no token.
        open_prefixes: Path prefixes that need no token, such as the dashboard's static files.
        max_body: Bytes that a request body may have.
    """

    token: str | None = None
    app_token: str | None = None
    hosts: frozenset[str] = frozenset()
    open_paths: frozenset[str] = OPEN_PATHS
    open_prefixes: tuple[str, ...] = ()
    max_body: int = MAX_BODY


class AuthError(FairwayError):
    """The request may not do what it asks for: ``auth.missing``, ``auth.invalid`` or ``auth.forbidden``."""

    code = "auth.invalid"
    default_hint = "Send `Authorization: Bearer TOKEN`; `.fairway/token` holds the token."


class Guard:
    """ASGI middleware that applies a `GuardPolicy`."""

    short: Short | None = None  # what the server may answer without the application; it calls `check` itself

    def __init__(self, app: ASGIApp, policy: GuardPolicy) -> None:
        self.app = app
        self.policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on; what does not pass gets a problem (a WebSocket is closed)."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in _LOOKED_AT}
        try:
            self.check(scope["path"], headers, _is_local(scope))
            limited = self._limited(headers, receive) if scope["type"] == "http" else receive
        except FairwayError as error:
            if error.code == "request.too_large" and not any(name == b"expect" for name, _ in scope["headers"]):
                await _discard(receive)
            await _refuse(error, scope, receive, send)
            return
        try:
            await self.app(scope, limited, send)
        except Exception:
            # Starlette's outermost layer has called `on_bug`, which logged the error, has answered if it still could,
            # and raises for the server's sake, which would only log it again. A WebSocket has no such layer.
            if scope["type"] != "http":
                raise

    def check(self, path: str, headers: dict[bytes, bytes], local: bool) -> None:
        """Raise `RequestError` or `AuthError` unless host, origin and token are in order; a Unix socket has none."""
        if local:
            return
        host = headers.get(b"host", b"")
        self._check_host(host)
        if b"origin" in headers:
            self._check_origin(headers[b"origin"], host)
        if self.policy.token is not None:
            self._check_token(self.policy.token, path, headers.get(b"authorization", b""))

    def _check_host(self, value: bytes) -> None:
        if not _is_known(value, self.policy.hosts):
            raise RequestError(
                f"The API is not served under the host {(_host_of(value) or '')[:100]!r}.",
                code="auth.forbidden",
                hint="Call it as localhost or by IP address, or start `fairway up` with FAIRWAY_API_HOSTS=HOST.",
            )

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        if origin in {b"http://" + host, b"https://" + host}:
            return
        raise RequestError(
            f"Requests from pages of {origin.decode('latin-1')[:100]!r} are refused.", code="auth.forbidden", hint=""
        )

    def _check_token(self, token: str, path: str, authorization: bytes) -> None:
        policy = self.policy
        if path in policy.open_paths or path.startswith(policy.open_prefixes or ("\0",)):
            return
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not given.strip():
            raise AuthError("Expected a bearer token, got none.", code="auth.missing")
        given = given.strip()
        # Both are compared whatever comes, so that time tells neither which one was near.
        admin = hmac.compare_digest(given, token.encode())
        app = hmac.compare_digest(given, (policy.app_token or token).encode())
        if admin:
            return
        if not app:
            raise AuthError("The bearer token is not valid.", code="auth.invalid")
        if not _under(path, APP_PATHS):
            raise AuthError(
                "The token of hosted apps covers jobs and events only.",
                code="auth.forbidden",
                hint="Use the administrator's token of `.fairway/token`.",
            )

    def _limited(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        limit = self.policy.max_body
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        if length is not None:
            return receive
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    await _discard(receive, message)
                    raise _too_large(limit)
            return message

        return counted


_LOOKED_AT = frozenset({b"host", b"origin", b"authorization", b"content-length"})


def _is_local(scope: Scope) -> bool:
    """Say whether the request came over the daemon's Unix socket, whose address has a path and no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


# Few hosts come, thousands of times a second.
@lru_cache(256)
def _host_of(value: bytes) -> str | None:
    """Return the lower-case host of a Host header without its port, or None where it is malformed."""
    text = value.decode("latin-1")
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        return host.lower() if closed and (not rest or rest[1:].isdigit()) else None
    host, colon, port = text.partition(":")
    if colon and not port.isdigit():
        return None
    return host.rstrip(".").lower() or None


@lru_cache(256)
def _is_known(value: bytes, hosts: frozenset[str]) -> bool:
    host = _host_of(value)
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost") or host in hosts:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    # No name to rebind: whoever asks by address has reached this listener already.
    return True


def _under(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith((prefix + "/", prefix + ":")) for prefix in prefixes)


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The body is larger than the {limit} bytes that are allowed.", code="request.too_large")


async def _discard(receive: Receive, message: Message | None = None) -> None:
    """Read the rest of a body that is refused, for a while: who still sends when the connection is cut hears nothing.

    Source: RFC 9112, section 9.6, on closing in stages.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while message is None or (message["type"] == "http.request" and message.get("more_body")):
                message = await receive()


async def _refuse(error: FairwayError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    await respond(problem_of(error), {"connection": "close"})(scope, receive, send)
