"""Ports: fresh ones for instances, and who listens on one.

Fresh ports come from below the kernel's ephemeral range. A port out of that range could be handed to an outgoing
connection (the door alone opens thousands to 127.0.0.1) between our test and the instance's `bind`, and the instance
would die of EADDRINUSE once in a while for no visible reason.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fairway.errors import FairwayError

_LISTEN = "0A"  # the kernel's TCP_LISTEN in /proc/net/tcp
_FIRST, _LAST = 20000, 32767
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 0x301, 2, 3


class PortsExhausted(FairwayError):
    """No port of the range is free."""

    code = "ports.exhausted"


class PortHolder(NamedTuple):
    """Who listens on a port: process id and name, None and an empty string where that is not to be known."""

    pid: int | None
    name: str

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"{self.name or 'a process'} (pid {self.pid})"


class PortPool:
    """Hands out ports that nothing listens on, each once until it is given back.

    Args:
        first: Lowest port, >= 1024; None for 20000.
        last: Highest port; None for the one below the kernel's ephemeral range, 32767 at most.
    """

    __slots__ = ("_first", "_last", "_next", "_taken")

    def __init__(self, first: int | None = None, last: int | None = None) -> None:
        self._first = _FIRST if first is None else first
        self._last = min(_LAST, _ephemeral_start() - 1) if last is None else last
        if self._last < self._first:  # a machine whose ephemeral range starts very low
            self._first, self._last = 10000, _LAST
        self._next = random.randint(self._first, self._last)  # noqa: S311  # spreads daemons, guards nothing
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a port that no socket of this machine is bound to. Raises `PortsExhausted`."""
        for _ in range(self._last - self._first + 1):
            port, self._next = self._next, self._next + 1
            if self._next > self._last:
                self._next = self._first
            if port not in self._taken and is_free(port):
                self._taken.add(port)
                return port
        raise PortsExhausted(f"expected a free port from {self._first} to {self._last}, all are in use")

    def claim(self, port: int) -> None:
        """Mark a port as in use by an instance that was adopted."""
        self._taken.add(port)

    def give_back(self, port: int) -> None:
        """Allow a port to be handed out again; unknown ports are ignored."""
        self._taken.discard(port)

    def __repr__(self) -> str:
        return f"<PortPool {self._first}-{self._last}: {len(self._taken)} taken>"


def is_free(port: int, host: str = "") -> bool:
    """Say whether a server could bind `port` now on `host` (empty: every IPv4 address)."""
    # A BSD lets a wildcard address be bound beside a specific one and the other way round: there, both are asked for.
    return all(_can_bind(port, one) for one in ((host, "127.0.0.1") if host == "" else (host,)))


def _can_bind(port: int, host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as the door does
            probe.bind((host, port))
    except OSError:
        return False
    return True


class Listeners:
    """Looks at who listens, no more often than every `interval` seconds however many ask.

    Args:
        interval: Seconds that a look is believed, > 0.
    """

    __slots__ = ("_at", "_found", "_interval")

    def __init__(self, interval: float = 0.004) -> None:
        self._interval = interval
        self._at = float("-inf")
        self._found: frozenset[int] = frozenset()

    def has(self, port: int) -> bool:
        """Say whether anybody listened on TCP `port` when it was looked last, `interval` seconds ago at most."""
        if not os.path.exists("/proc/net/tcp"):
            return not is_free(port)
        now = time.monotonic()
        if now - self._at > self._interval:
            self._found = frozenset(at for at, _ in _listeners())
            self._at = now
        return port in self._found

    def __repr__(self) -> str:
        return f"<Listeners {len(self._found)} ports>"


def listening_inodes(port: int) -> set[int]:
    """Return the inodes of the sockets that listen on TCP `port`, on any address; empty where nobody can tell."""
    return {inode for at, inode in _listeners() if at == port}


def listener_among(port: int, pids: Iterable[int]) -> bool | None:
    """Say who listens on `port`: True for one of `pids`, False for somebody else, None for nobody (yet).

    An orphan of an earlier release that still holds the port would pass any health check; this tells it apart.
    """
    if not os.path.exists("/proc/net/tcp"):
        return _listener_among_psutil(port, pids)
    inodes = listening_inodes(port)
    if not inodes:
        return None
    return any(not inodes.isdisjoint(_socket_inodes(pid)) for pid in pids)


def listening_ports(pids: Iterable[int]) -> set[int]:
    """Return the TCP ports on which any of `pids` listens; empty where /proc is missing."""
    own: set[int] = set()
    for pid in pids:
        own |= _socket_inodes(pid)
    return {port for port, inode in _listeners() if inode in own}


def holder(port: int) -> PortHolder | None:
    """Return who listens on `port`, for an error message, or None if nobody does. Reads all of /proc: not for loops."""
    import psutil

    inodes = listening_inodes(port)
    for process in psutil.process_iter(["pid", "name"]):
        if inodes:
            if not inodes.isdisjoint(_socket_inodes(process.pid)):
                return PortHolder(process.pid, str(process.info["name"]))
        elif not os.path.exists("/proc/net/tcp") and _listener_among_psutil(port, [process.pid]):
            return PortHolder(process.pid, str(process.info["name"]))
    return PortHolder(None, "") if inodes else None


def _listeners() -> Iterator[tuple[int, int]]:
    """Yield port and inode of every listening TCP socket: asked of the kernel, else read from its tables."""
    try:
        yield from [found for family in (socket.AF_INET, socket.AF_INET6) for found in _ask_kernel(family)]
    except (OSError, AttributeError):  # no netlink here (macOS, a sandbox)
        yield from _read_tables()


def _ask_kernel(family: int) -> Iterator[tuple[int, int]]:
    """Ask for the listening sockets alone: the tables in /proc hold every connection, and take tens of milliseconds.

    Source: sock_diag(7), struct inet_diag_req_v2 and inet_diag_msg.
    """
    request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, 1 << int(_LISTEN, 16))
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)
        kernel.send(header + request)
        while True:
            data = kernel.recv(65536)
            at = 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR or length < 16:
                    raise OSError("the kernel does not list its sockets")
                (port,) = struct.unpack_from("!H", data, at + 16 + 4)
                (inode,) = struct.unpack_from("=I", data, at + 16 + 68)
                yield port, inode
                at += (length + 3) & ~3


def _read_tables() -> Iterator[tuple[int, int]]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            text = Path(table).read_text(encoding="ascii")
        except OSError:
            continue
        for line in text.splitlines()[1:]:
            # Looked for before the line is split: a busy machine has thousands of connections and few listeners.
            if f" {_LISTEN} " in line:
                fields = line.split()
                if fields[3] == _LISTEN:
                    yield int(fields[1].rpartition(":")[2], 16), int(fields[9])


def _socket_inodes(pid: int) -> set[int]:
    folder = f"/proc/{pid}/fd"
    found: set[int] = set()
    try:
        names = os.listdir(folder)
    except OSError:  # gone, or another user's
        return found
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def _listener_among_psutil(port: int, pids: Iterable[int]) -> bool | None:
    import psutil

    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.Error:
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in connections):
            return True
    return None if is_free(port) else False


def _ephemeral_start() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        return int(text.split()[0])
    except (OSError, ValueError, IndexError):
        return _LAST + 1
