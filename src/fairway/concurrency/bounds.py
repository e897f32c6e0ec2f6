"""What the arguments of channels have to be."""

from __future__ import annotations

import threading
from typing import Any

from fairway.concurrency.errors import WrongArgument


def wrong_size(what: str, got: object) -> WrongArgument:
    """Return the error for a capacity or batch size that is out of bounds."""
    return WrongArgument(f"expected {what}, got: {got!r}")


def check_cap(cap: object) -> int:
    """Return `cap` if it is an int >= 0."""
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 0:
        raise wrong_size("a channel capacity that is an int >= 0", cap)
    return cap


def check_batch(n: object) -> int:
    """Return `n` if it is an int >= 1."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise wrong_size("a batch size that is an int >= 1", n)
    return n


def check_timeout(timeout: Any) -> float | None:
    """Return `timeout` if it is None or a number of seconds >= 0, no longer than a thread can wait."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise WrongArgument(f"expected a timeout in seconds >= 0 or None, got: {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)
