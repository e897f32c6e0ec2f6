"""An event loop in which time passes only when nobody has anything to do: a test of hours takes milliseconds."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from fairway.concurrency.debug import check_asleep
from fairway.concurrency.errors import WrongLoop

P = ParamSpec("P")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as every task waits.

    Timers fire in order and without waiting; deadlines, tickers and limiters of `fairway.concurrency` follow its
    clock. If every task waits and there is no timer either, it raises `fairway.concurrency.Deadlock` with a dump,
    so that no test hangs. Threads do not fit in: while one works, time may jump, and those that were there before the
    loop are taken to have no part in the test.

    Args:
        start: The clock's first reading, seconds.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._virtual = start
        self._bystanders = frozenset(threading.enumerate())
        super().__init__()
        selector: Any = self._selector  # type: ignore[attr-defined]  # typeshed does not show it
        self._poll = selector.select
        selector.select = self._select

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual

    def monotonic(self) -> float:
        """Return the virtual time, as the clock of `fairway.concurrency` on this loop."""
        return self._virtual

    def jump(self, seconds: float) -> None:
        """Let `seconds` pass at once, as if a callback had blocked the loop for so long."""
        self._virtual += seconds

    def _select(self, timeout: float | None = None) -> Any:
        events = self._poll(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            if check_asleep(self, self._bystanders):
                return self._poll(0.05)
            return self._poll(None)
        self._virtual += timeout
        return []


async def elapse(seconds: float) -> None:
    """Let virtual time pass: wait `seconds` on a `VirtualTimeLoop`, where that takes none of the machine's.

    Raises:
        WrongLoop: Another kind of loop is running, on which a test would really wait.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise WrongLoop(f"expected a VirtualTimeLoop to let time pass on, got: {loop!r}")
    await asyncio.sleep(seconds)


def run_virtual(main: Coroutine[Any, Any, object]) -> None:
    """Run `main` to its end on a new `VirtualTimeLoop`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Decorate a coroutine test so that it runs on a `VirtualTimeLoop` of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs))

    return run
