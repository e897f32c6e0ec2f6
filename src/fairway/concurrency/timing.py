"""The clock of timers and deadlines: `time.monotonic`, unless the running loop brings a clock of its own.

A test loop with virtual time (`fairway.testing.loop`) has an attribute `monotonic`; everything in this package that
reads the time asks here, so that deadlines, timers and limiters move with the loop and no test waits.
"""

from __future__ import annotations

import asyncio
import time


def now() -> float:
    """Return the monotonic time in seconds: of the running loop if it has a clock of its own, else of the machine."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        reading = getattr(loop, "monotonic", None)
        if reading is not None:
            return float(reading())
    return time.monotonic()


def require_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the running loop, or raise `WrongLoop` that names `what` needs one."""
    loop = asyncio._get_running_loop()
    if loop is None:
        from fairway.concurrency.errors import WrongLoop

        raise WrongLoop(
            f"expected a running event loop for {what}, found none",
            hint="call it inside a coroutine, for instance under asyncio.run(main())",
        )
    return loop
