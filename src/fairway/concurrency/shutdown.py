"""`Shutdown`: everything that has to stop, in order, before one deadline, with an account of how it went.

Steps of the end of the block: the shutdown's context ends; then, order by order, the hooks of one order run
together; whatever still runs at the deadline, or when a second signal forces the end, is cancelled; every hook's
outcome is in the report.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fairway.concurrency.context import CancelContext, Context, background, on_end, with_cause, with_timeout
from fairway.concurrency.errors import Canceled, WrongArgument
from fairway.concurrency.notify import SignalReceived, Subscription, check_signals, signals_of

if TYPE_CHECKING:
    from typing import Self

_log = logging.getLogger(__name__)
# A hook that was cancelled gets this long for its clean-up before it is given up, seconds.
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class _Hook:
    name: str
    fn: Callable[..., Awaitable[object] | object]
    args: tuple[Any, ...]
    order: int


@dataclass(frozen=True, slots=True)
class ShutdownStatistics:
    """A shutdown at one instant.

    Attributes:
        hooks: Hooks that are registered.
        reported: Hooks with an outcome.
        failed: Hooks that failed, were cut or were not started any more.
    """

    hooks: int
    reported: int
    failed: int


class Shutdown:
    """A block at whose end hooks run, ascending by order, together within one order, before one deadline.

    Args:
        ctx: Parent of the shutdown's context `ctx`; `background()` if left out.
        grace: Seconds that all hooks together may take, > 0.
        signals: Signals that begin the shutdown; those of a `notify_context` above `ctx` if left out, else none.
            A second one, or any while the hooks run, forces: what still runs is cancelled at once.

    The block itself is not interrupted: let it wait with ``await sd.wait()``, or run it under ``sd.ctx.bind()``.
    Hooks run however the block ends; an exception of the block is raised after them. A cancel of the task while
    they run forces too.

    Raises:
        WrongArgument: `grace` is no number > 0, or a signal is unknown.
    """

    __slots__ = (
        "_begun", "_cancelled", "_ctx", "_forced", "_grace", "_hooks", "_parent", "_report", "_signals",
        "_signals_seen", "_subscription",
    )  # fmt: skip

    def __init__(self, ctx: Context | None = None, grace: float = 10.0, *, signals: Iterable[int] = ()) -> None:
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not grace > 0:
            raise WrongArgument(f"expected the grace of a shutdown in seconds > 0, got: {grace!r}")
        self._parent = background() if ctx is None else ctx
        self._ctx = with_cause(self._parent)
        self._grace = float(grace)
        wanted = tuple(signals)
        self._signals = check_signals(wanted) if wanted else signals_of(self._parent)
        self._hooks: list[_Hook] = []
        self._report: list[tuple[str, BaseException | None]] = []
        self._subscription: Subscription | None = None
        self._signals_seen = 0
        self._begun = False
        self._forced: CancelContext | None = None
        self._cancelled: asyncio.CancelledError | None = None

    @property
    def ctx(self) -> CancelContext:
        """The context that ends when the shutdown begins: by a signal, its parent, `begin` or the block's end."""
        return self._ctx

    @property
    def report(self) -> list[tuple[str, BaseException | None]]:
        """Every hook's ``(name, error)``, error None if it went well, in the order in which they were started.

        A hook that was cut has `DeadlineExceeded`, or `Canceled` if the end was forced; so has one that was not
        started any more.
        """
        return list(self._report)

    def hook(self, name: str, fn: Callable[..., Awaitable[object] | object], *args: Any, order: int = 0) -> None:
        """Let the shutdown call `fn(*args)`, a plain or a coroutine function.

        Args:
            name: For the report.
            fn: What to call; a plain function blocks the others of its order.
            args: Its arguments.
            order: Lower ones run first; equal ones run together.

        Raises:
            WrongArgument: `fn` is not callable, or the hooks run already.
        """
        if not callable(fn):
            raise WrongArgument(f"expected a function as the hook {name!r}, got: {fn!r}")
        if self._begun:
            raise WrongArgument(f"expected hook {name!r} before the shutdown has begun, but its hooks run already")
        self._hooks.append(_Hook(name, fn, args, order))

    def begin(self, cause: BaseException | None = None) -> None:
        """End `ctx`, so that `wait` returns; the hooks run when the block ends."""
        self._ctx.cancel(cause)

    async def wait(self) -> BaseException | None:
        """Wait until the shutdown begins and return why, for instance a `SignalReceived`."""
        await self._ctx.done().recv_ok()
        return self._ctx.cause()

    async def __aenter__(self) -> Self:
        """Return the shutdown, which listens to its signals from now on."""
        if self._signals:
            self._subscription = Subscription(self._signals, self._caught)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Run the hooks."""
        try:
            self._ctx.cancel(exc if isinstance(exc, Exception) else None)
            await self._run_hooks()
        finally:
            if self._subscription is not None:
                self._subscription.stop()
        if self._cancelled is not None and exc is None:
            raise self._cancelled

    def statistics(self) -> ShutdownStatistics:
        """Return the shutdown's state at this instant."""
        failed = sum(error is not None for _, error in self._report)
        return ShutdownStatistics(hooks=len(self._hooks), reported=len(self._report), failed=failed)

    def __repr__(self) -> str:
        """Return ``<Shutdown [3 hooks, 2 reported, 1 failed]>``."""
        now = self.statistics()
        return f"<Shutdown [{now.hooks} hooks, {now.reported} reported, {now.failed} failed]>"

    # -- inside ----------------------------------------------------------------------------------------------

    def _caught(self, number: signal.Signals) -> None:
        self._signals_seen += 1
        if self._signals_seen == 1 and not self._begun:
            self._ctx.cancel(SignalReceived(number))
        elif self._forced is not None:
            self._forced.cancel(SignalReceived(number))

    async def _run_hooks(self) -> None:
        self._begun = True
        with with_timeout(background(), self._grace) as limit:
            self._forced = limit
            if self._signals_seen > 1:
                limit.cancel()
            for _, hooks in groupby(sorted(self._hooks, key=lambda hook: hook.order), key=lambda hook: hook.order):
                await self._run_order(list(hooks), limit)
        for name, error in self._report:
            if error is not None:
                _log.error("shutdown hook %r failed: %s: %s", name, type(error).__name__, error)

    async def _run_order(self, hooks: list[_Hook], limit: CancelContext) -> None:
        """Run the hooks of one order together and report them."""
        if limit.err() is not None:
            self._report.extend((hook.name, _why_cut(limit)) for hook in hooks)
            return
        tasks = [asyncio.create_task(_call(hook), name=f"shutdown hook {hook.name}") for hook in hooks]
        await self._wait_for(set(tasks), limit)
        running = {task for task in tasks if not task.done()}
        for task in running:
            task.cancel()
        if running:
            with with_timeout(background(), _LAST_WORDS_S) as last_words:
                await self._wait_for(running, last_words)
        for hook, task in zip(hooks, tasks, strict=True):
            error = task.result() if task.done() and not task.cancelled() else _why_cut(limit)
            self._report.append((hook.name, error))

    async def _wait_for(self, tasks: set[asyncio.Task[BaseException | None]], limit: CancelContext) -> None:
        """Wait until all tasks are done or `limit` ends; a cancel of this task ends `limit`."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = on_end(limit, lambda: None if over.done() else over.set_result(None))
        pending: set[asyncio.Future[Any]] = set(tasks)
        try:
            while pending and not over.done():
                try:
                    _, pending = await asyncio.wait({*pending, over}, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError as exc:
                    self._cancelled = exc
                    limit.cancel()
                pending.discard(over)
        finally:
            if stop is not None:
                stop()
            over.cancel()


async def _call(hook: _Hook) -> BaseException | None:
    """Run one hook and return how it failed, or None."""
    try:
        result = hook.fn(*hook.args)
        if inspect.isawaitable(result):
            await result
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # whatever it is, the other hooks have their turn
        return exc
    return None


def _why_cut(limit: CancelContext) -> BaseException:
    """Return the error of a hook that did not end in time."""
    err = limit.err()
    cause = limit.cause()
    if err is None or cause is err:
        return err or Canceled("the hook was cancelled")
    forced = Canceled(f"forced: {cause}")
    forced.__cause__ = cause
    return forced
