"""The orders of a worker that was started before it was known what it has to do: it loads itself meanwhile.

They are one line of JSON on its standard input: its arguments, and the file that takes what it prints. Where nobody
orders anything it ends, for its input ends with whoever has started it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

AWAIT = "--await"
"""The one argument of a worker that waits for its orders."""


class Orders(msgspec.Struct, frozen=True):
    """What a worker is told.

    Attributes:
        arguments: Its command line.
        output: Log file that gets standard output and error, made 0600 where missing, only ever appended to.
    """

    arguments: list[str]
    output: str


def encode_orders(arguments: Sequence[str], output: Path) -> bytes:
    """Return the line that is written to the worker's standard input."""
    return msgspec.json.encode(Orders(list(arguments), str(output))) + b"\n"


def await_orders() -> list[str] | None:
    """Wait for this worker's orders; return its arguments, or None where none will come.

    Its standard input is the null device from then on, and its output the file that was named.

    Raises:
        OSError: The file cannot be written.
    """
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return None
    orders = msgspec.json.decode(line, type=Orders)
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(orders.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for source, place in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, place)
    for opened in {null, out} - {0, 1, 2}:  # one of those, where it was started with less than three
        os.close(opened)
    return orders.arguments
