"""Listening sockets that are opened before whoever serves on them has been loaded."""

from __future__ import annotations

import errno
import socket

from fairway.platform.errors import PortTaken
from fairway.run import ports


def listen(host: str, port: int, *, what: str, option: str) -> socket.socket:
    """Return a non-blocking socket that listens on `host` and `port`; connections wait in it until they are served.

    Args:
        host: Address of this machine, IPv4 or IPv6.
        port: Port, or 0 for a free one.
        what: Who is going to serve, for the message: ``API``.
        option: The command line's option for another address: ``--api``.

    Raises:
        PortTaken: Another program listens there, which the message names, or the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"The {what} cannot listen on {host}:{port}: it is held by {ports.holder(port) or 'another program'}.",
                hint=f"Stop that program, or choose another port with `fairway up {option} 127.0.0.1:PORT`.",
            ) from None
        if error.errno in {errno.EADDRNOTAVAIL, errno.EACCES}:
            raise PortTaken(
                f"The {what} cannot listen on {host}:{port}: {error.strerror}.",
                hint=f"Choose an address of this machine and a port above 1023 with `fairway up {option} HOST:PORT`.",
            ) from None
        raise
    return sock
