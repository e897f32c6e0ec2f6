"""`notify_context`: a context that ends when a signal arrives.

Source: Go, ``os/signal``. Handlers are set with `signal.signal`, so that the one that was there before can be put
back; the handler itself only schedules a turn of the subscriber's loop, because it may run between any two
bytecodes, even inside a lock.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from fairway.concurrency.context import CancelContext, Context, background, require_context, with_value
from fairway.concurrency.errors import ConcurrencyError, WrongArgument, WrongLoop
from fairway.concurrency.timing import require_loop

_STANDARD = (signal.SIGINT, signal.SIGTERM)


class _Key:
    """The key under which a context tells its signals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "signals"


_SIGNALS = _Key()


class SignalReceived(ConcurrencyError):
    """The cause of a context that a signal has ended.

    Attributes:
        signal: Which one.
    """

    code = "concurrency.signal_received"

    def __init__(self, number: signal.Signals) -> None:
        description = signal.strsignal(number)
        super().__init__(f"signal received: {number.name}{f' ({description.lower()})' if description else ''}")
        self.signal: signal.Signals = number


class Subscription:
    """Calls `fn(signal)` on the running loop for each of `signals`, until `stop()`. Internal.

    Several may share a signal; the first installs the handler, the last puts the earlier one back.
    """

    __slots__ = ("_fn", "_loop", "signals")

    def __init__(self, signals: tuple[signal.Signals, ...], fn: Callable[[signal.Signals], object]) -> None:
        self._loop = require_loop("signals")
        if threading.current_thread() is not threading.main_thread():
            raise WrongLoop("expected the main thread for signals: Python delivers them nowhere else")
        self._fn = fn
        self.signals: tuple[signal.Signals, ...] = signals
        for number in signals:
            handler = _handlers.get(number)
            if handler is None:
                handler = _handlers[number] = _Handler(number)
            handler.subscriptions[self] = None

    def stop(self) -> None:
        """Unsubscribe; later calls do nothing."""
        signals, self.signals = self.signals, ()
        for number in signals:
            handler = _handlers[number]
            handler.subscriptions.pop(self, None)
            if not handler.subscriptions:
                del _handlers[number]
                handler.restore()

    def deliver(self, number: signal.Signals) -> None:
        """Schedule the call; runs inside a signal handler."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fn, number)


class _Handler:
    """The process's handler of one signal, while anybody subscribes to it."""

    __slots__ = ("_earlier", "_number", "subscriptions")

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self.subscriptions: dict[Subscription, None] = {}
        self._earlier: Any = signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for subscription in list(self.subscriptions):
            subscription.deliver(self._number)

    def restore(self) -> None:
        """Put the earlier handler back, unless somebody has set another one since."""
        current: object = signal.getsignal(self._number)
        if current is self:
            signal.signal(self._number, signal.SIG_DFL if self._earlier is None else self._earlier)


_handlers: dict[signal.Signals, _Handler] = {}


class NotifyContext(CancelContext):
    """A context that one of its signals ends; made by `notify_context`."""

    __slots__ = ("_subscription", "signals")

    def __init__(self, parent: Context, signals: tuple[signal.Signals, ...]) -> None:
        self.signals: tuple[signal.Signals, ...] = signals
        """The signals that it listens to."""
        self._subscription: Subscription | None = None
        super().__init__(with_value(parent, _SIGNALS, signals), f"notify_context({', '.join(s.name for s in signals)})")
        self._subscription = Subscription(signals, self._caught)

    def stop(self) -> None:
        """Stop listening and end the context; the earlier handlers are back. Later calls do nothing."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.stop()
        self.cancel()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Call `stop`."""
        self.stop()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Call `stop`."""
        self.stop()

    def _caught(self, number: signal.Signals) -> None:
        if self._subscription is not None:
            self.cancel(SignalReceived(number))


def notify_context(*signals: int, parent: Context | None = None) -> NotifyContext:
    """Return a child of `parent` that ends when one of `signals` arrives; its cause names the signal.

    Until `stop()`, or the end of its ``async with`` block, the signals do nothing else. Several contexts may
    share a signal: all end.

    Args:
        signals: SIGINT and SIGTERM if left out.
        parent: `background()` if left out.

    Raises:
        WrongArgument: A signal is unknown or cannot be caught.
        WrongLoop: No event loop is running, or this is not the main thread.

    Source: Go, ``signal.NotifyContext``.
    """
    return NotifyContext(background() if parent is None else require_context(parent), check_signals(signals))


def check_signals(signals: tuple[int, ...]) -> tuple[signal.Signals, ...]:
    """Return `signals` as members of `signal.Signals`, each once; SIGINT and SIGTERM for none."""
    known = []
    for number in signals or _STANDARD:
        try:
            known.append(signal.Signals(number))
        except ValueError as exc:
            raise WrongArgument(f"expected a signal such as signal.SIGTERM, got: {number!r}") from exc
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise WrongArgument(f"expected a signal that can be caught, got: {signal.Signals(number).name}")
    return tuple(dict.fromkeys(known))


def signals_of(ctx: Context) -> tuple[signal.Signals, ...]:
    """Return the signals of the nearest `notify_context` above `ctx`, or none."""
    return ctx.value(_SIGNALS) or ()
