"""Webhooks: events as signed HTTP POSTs to an address that was checked at the moment of connecting.

The signature is that of Standard Webhooks: headers ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``
(``v1,`` and the base64 of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``), so that any of its libraries verifies it.
Source: https://www.standardwebhooks.com.

An address that is not public is refused unless the webhook allows it: loopback, private, link-local (cloud metadata),
also as IPv4 in IPv6, as a decimal number, or behind a name that resolves to it. The check sits in the resolver that
the connection uses, so a name cannot change between check and use; redirects are not followed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from fairway.events.errors import EventError
from fairway.events.event import Event
from fairway.events.topic import matcher

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

TIMEOUT = 15.0  # seconds for one delivery
TOLERANCE = 300.0  # seconds that a signature's time may be off
_SECRET_PREFIX = "whsec_"  # noqa: S105  # the public prefix of a secret's text form
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
_ANSWER = 64 * 1024
# IPv6 that carries an IPv4 address in its last 32 bits: NAT64 (RFC 6052, RFC 8215), IPv4-compatible (RFC 4291),
# IPv4-translated (RFC 2765).
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/96", "::/96", "::ffff:0:0:0/96")))
_METADATA = (ipaddress.IPv6Address("fd00:ec2::254"),)  # a cloud's metadata at an address that is not link-local


class WebhookError(EventError):
    """A webhook is malformed, or its signature is wrong."""

    code = "events.webhook"

    def __init__(self, message: str, *, field: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class BlockedAddress(WebhookError):
    """The URL leads to an address that is not public."""

    code = "events.blocked_address"


class DeliveryFailed(EventError):
    """The receiver did not take the event; it is tried again."""

    code = "events.delivery_failed"


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to send events of some topics.

    Attributes:
        name: ``[a-z0-9-]``, at most 40 characters, unique.
        url: ``http://`` or ``https://``, without user and password.
        pattern: Topics.
        secret: ``whsec_`` and base64 of at least 24 bytes; made up where it is empty.
        allow_private: Whether the address may be one of this machine or network.
        max_attempts: Deliveries tried before the event is given up, 1 to 100.
    """

    name: str
    url: str
    pattern: str = ">"
    secret: str = ""
    allow_private: bool = False
    max_attempts: int = 12

    def check(self) -> Webhook:
        """Return it with a secret. Raises `WebhookError` that names the field."""
        if not _NAME.match(self.name):
            raise WebhookError(f"expected a name of a-z, 0-9 and -, got {self.name[:80]!r}", field="name")
        if not 1 <= self.max_attempts <= 100:
            raise WebhookError(f"expected max_attempts from 1 to 100, got {self.max_attempts}", field="max_attempts")
        matcher(self.pattern)
        check_url(self.url, self.allow_private)
        if not self.secret:
            return msgspec.structs.replace(self, secret=new_secret())
        if len(_key(self.secret)) < 24:
            raise WebhookError("expected a secret of whsec_ and base64 of at least 24 bytes", field="secret")
        return self

    def __repr__(self) -> str:
        return f"<Webhook {self.name} {self.pattern} to {self.url}>"


def new_secret() -> str:
    """Return a fresh secret."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, name: str, timestamp: int, body: bytes) -> str:
    """Return the ``webhook-signature`` of a delivery.

    Example:
        >>> secret, name = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
        >>> sign(secret, name, 1614265330, b'{"test": 2432232314}')
        'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    signed = f"{name}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode()


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Check a delivery that came in, in constant time.

    Args:
        secret: The webhook's.
        headers: With ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``, in lower case.
        body: The bytes as they came.
        now: Seconds since the epoch.

    Raises:
        WebhookError: No signature fits, or the time is off by more than five minutes.
    """
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp[:12])) > TOLERANCE:
        raise WebhookError("expected webhook-timestamp within five minutes of now", field="webhook-timestamp")
    expected = sign(secret, headers.get("webhook-id", ""), int(timestamp[:12]), body).encode()
    found = False
    for signature in headers.get("webhook-signature", "").split():
        found |= hmac.compare_digest(expected, signature.encode())
    if not found:
        raise WebhookError("expected a webhook-signature made with this secret, got another", field="webhook-signature")


def check_url(url: str, allow_private: bool) -> None:
    """Raise `WebhookError` for a URL of another form, `BlockedAddress` for a literal address that is not public."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookError(f"expected a URL: {error}", field="url") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise WebhookError(f"expected a URL such as https://example.org/hook, got {url[:200]!r}", field="url")
    if parts.username is not None or parts.password is not None:
        raise WebhookError("expected a URL without user and password; receivers check the signature", field="url")
    if port == 0:
        raise WebhookError("expected a URL with a port from 1 to 65535, got 0", field="url")
    if not parts.hostname.isascii():
        # The client would normalise it: full-width digits make an address that was never looked at.
        raise WebhookError(f"expected a host name in ASCII (xn--…), got {parts.hostname[:80]!r}", field="url")
    if (address := _literal(parts.hostname)) is not None:
        check_address(address, allow_private)


def _literal(host: str) -> str | None:
    """Return the address that a host names by itself, None for a name that has to be looked up."""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:  # no address, or one in another form
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433: what a resolver makes of them
    except OSError:
        return None


def check_address(address: str, allow_private: bool) -> None:
    """Raise `BlockedAddress` unless the IP address is public, or private ones are allowed.

    Multicast, unspecified and link-local addresses are never allowed: cloud metadata services live there. An IPv4
    address inside an IPv6 one (mapped, 6to4, Teredo, NAT64, compatible) counts as itself.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        mapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if mapped is None and any(ip in network for network in _EMBEDDING) and int(ip) > 1:
            mapped = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if mapped is not None:
            ip = mapped
    local = not ip.is_global or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    never = ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip in _METADATA
    if never or (local and not allow_private):
        allowed = "register the webhook with allow_private to send to this machine or network"
        hint = "no webhook may send there" if never else allowed
        raise BlockedAddress(f"expected a public address, got {ip}", field="url", hint=hint)


async def deliver(webhook: Webhook, event: Event, timestamp: int) -> int:
    """POST one event and return the status of success.

    Args:
        webhook: Where, and how it is signed.
        event: What; sent as structured CloudEvents JSON.
        timestamp: Seconds since the epoch, signed.

    Raises:
        BlockedAddress: The address is not allowed; trying again is pointless until the name points elsewhere.
        DeliveryFailed: No connection, no answer within 15 s, or a status outside 200 to 299.
    """
    import aiohttp

    check_url(webhook.url, webhook.allow_private)
    body = event.encode()
    headers = {
        "content-type": "application/cloudevents+json",
        "user-agent": "fairway-webhooks",
        "webhook-id": f"{webhook.name}.{event.id}",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(webhook.secret, f"{webhook.name}.{event.id}", timestamp, body),
    }
    connector = aiohttp.TCPConnector(resolver=_resolver(webhook.allow_private), use_dns_cache=False)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            async with session.post(webhook.url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.content.read(_ANSWER)
                status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        blocked = _blocked(error)
        if blocked is not None:
            raise blocked from error
        raise DeliveryFailed(f"webhook {webhook.name}: {type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        raise DeliveryFailed(f"webhook {webhook.name}: expected a status of 200 to 299, got {status}")
    return status


def _blocked(error: BaseException | None) -> BlockedAddress | None:
    while error is not None:
        if isinstance(error, BlockedAddress):
            return error
        error = error.__cause__ or error.__context__
    return None


def _resolver(allow_private: bool) -> AbstractResolver:
    from aiohttp.resolver import ThreadedResolver

    class Checking(ThreadedResolver):
        """Resolves a name and refuses the whole answer if one address of it is not allowed."""

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            for one in found:
                try:
                    check_address(one["host"], allow_private)
                except BlockedAddress as error:
                    raise OSError(f"{host}: {error}") from error
            return found

    return Checking()


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:
        raise WebhookError("expected a secret of whsec_ and base64", field="secret") from None
