"""How one worker of the door is started."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fairway.proxy.errors import OptionError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class DoorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Start options of one worker; seconds and bytes.

    Attributes:
        listen: ``HOST:PORT`` to serve plain HTTP on; port 0 takes a free one.
        tls_listen: ``HOST:PORT`` to serve HTTPS on, or None.
        certificates: Folder of ``NAME.crt`` and ``NAME.key`` pairs for `tls_listen`, or None.
        socket: Control socket, or None for a door that is told its routes only once.
        state: File that keeps the last table over a restart, or None.
        await_routes: Connections wait in the listening socket until the first table is pushed.
        reuse_port: Share the port with other workers (SO_REUSEPORT).
        header_bytes: Largest request head, 431 beyond it.
        header_fields: Most fields in a head, 431 beyond them.
        body_bytes: Largest request body, 413 beyond it; None for no bound.
        header_timeout: Seconds from a head's first byte to its last, 408 beyond it.
        body_timeout: Seconds without a byte of a request body, 408 beyond it; a trickle is bounded as well.
        upstream_timeout: Seconds to connect, to the first byte of the answer, and between two reads of it.
        keepalive_timeout: Seconds that an idle client connection is kept.
        send_timeout: Seconds that a client may refuse to read.
        stream_timeout: Seconds without a byte on an event stream or an upgraded connection.
        upstream_idle: Seconds that an idle upstream connection is kept.
        trusted: Networks whose ``X-Forwarded-*`` and ``Forwarded`` are believed.
        access_log: ``off``, ``-`` for standard output, or a file.
        access_log_sample: Share of successful requests that are logged, 0.0 to 1.0; errors always are.
        trace: Create a ``traceparent`` where a request carries none.
        metrics: ``HOST:PORT`` that serves ``/metrics``, or None.
        acme_challenges: Folder of ACME HTTP-01 tokens served under ``/.well-known/acme-challenge/``, or None.
        grace: Seconds that requests in flight may take to finish at SIGTERM.
    """

    listen: str = "127.0.0.1:8080"
    tls_listen: str | None = None
    certificates: Path | None = None
    socket: Path | None = None
    state: Path | None = None
    await_routes: bool = False
    reuse_port: bool = False
    header_bytes: int = 32 * 1024
    header_fields: int = 256
    body_bytes: int | None = None
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    upstream_timeout: float = 60.0
    keepalive_timeout: float = 75.0
    send_timeout: float = 60.0
    stream_timeout: float = 3600.0
    upstream_idle: float = 60.0
    trusted: tuple[str, ...] = ()
    access_log: str = "off"
    access_log_sample: float = 1.0
    trace: bool = True
    metrics: str | None = None
    acme_challenges: Path | None = None
    grace: float = 10.0

    def __post_init__(self) -> None:
        for name in ("header_timeout", "body_timeout", "upstream_timeout", "keepalive_timeout", "send_timeout"):
            if not 0 < getattr(self, name) <= 86_400:
                raise OptionError(f"expected {name} in seconds, above 0 and at most 86400, got {getattr(self, name)!r}")
        if self.header_bytes < 256 or self.header_fields < 1:
            raise OptionError("expected header_bytes of at least 256 and header_fields of at least 1")
        if self.body_bytes is not None and self.body_bytes < 0:
            raise OptionError(f"expected body_bytes of at least 0, got {self.body_bytes}")
        if not 0.0 <= self.access_log_sample <= 1.0:
            raise OptionError(f"expected access_log_sample from 0.0 to 1.0, got {self.access_log_sample}")
        parse_address(self.listen)
        parse_networks(self.trusted)


def parse_address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` (``[::1]:80`` for IPv6); an empty host means 127.0.0.1.

    Raises:
        OptionError: If it has another form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise OptionError(f"expected HOST:PORT with a port from 0 to 65535, got {text!r}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Read networks such as ``10.0.0.0/8``.

    Raises:
        OptionError: If one has another form.
    """
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise OptionError(f"expected trusted networks such as 10.0.0.0/8: {error}") from error


def split_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the networks of options that may each hold several, separated by commas."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def in_networks(address: str, networks: tuple[Network, ...]) -> bool:
    """Tell whether an IP address lies in one of the networks; IPv4 in IPv6 form counts as IPv4."""
    if not networks:
        return False
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip.version == network.version and ip in network for network in networks)
