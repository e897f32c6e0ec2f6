"""`Context`: cancellation, deadlines and values that a call hands down, as in Go.

Source: Go, package ``context``. A cancel is propagated down the tree before `cancel` returns: first every node
below gets its error, under one lock for all trees, then the done channels are closed and the hooks run. A context
may be cancelled from any thread and read from several loops: each loop has its own done channel, which is closed
on that loop; on it nobody can see `err()` set while the channel is still open.

Size: the nodes of the tree and the one lock that they share belong together.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from fairway.concurrency.binding import Binding
from fairway.concurrency.chan import Chan
from fairway.concurrency.errors import Canceled, DeadlineExceeded, WrongArgument
from fairway.concurrency.nil import nil
from fairway.concurrency.timing import Alarm, now, require_loop
from fairway.concurrency.views import RecvChan

if TYPE_CHECKING:
    from typing import Self

# One lock for all trees: it is held for the marking of a subtree only, never while foreign code runs.
_tree = threading.Lock()
# Asked of a context's value(), it answers with the nearest cancellable context, as Go's &cancelCtxKey does.
_CANCELLER: Final = object()


class InvalidContext(WrongArgument, TypeError):
    """A parent is None or no context."""

    code = "concurrency.invalid_context"


class InvalidKey(WrongArgument, TypeError):
    """A key of `with_value` is None or cannot be hashed."""

    code = "concurrency.invalid_key"


class Context(ABC):
    """What a call is allowed: how long, on whose behalf, and until when somebody loses interest.

    Handed down as the first argument. Subclass it to wrap another context; the functions of this module accept
    any object with these methods.

    Source: Go, ``context.Context``.
    """

    __slots__ = ("__weakref__",)

    @abstractmethod
    def deadline(self) -> float | None:
        """Return the moment, in `time.monotonic()` seconds, at which the context ends by itself, or None."""

    @abstractmethod
    def done(self) -> RecvChan[None]:
        """Return a channel that is closed when the context ends; `nil` if it never can."""

    @abstractmethod
    def err(self) -> Exception | None:
        """Return None while the context lasts, then always the same `Canceled` or `DeadlineExceeded`."""

    @abstractmethod
    def value(self, key: Any) -> Any:
        """Return the value that the nearest ancestor holds for `key`, or None."""

    def cause(self) -> BaseException | None:
        """Return why the context ended: the first cause given to a cancel, else `err()`; None while it lasts."""
        native = self.value(_CANCELLER)
        if isinstance(native, CancelContext):
            found = native.cause()
            if found is not None:
                return found
        return self.err()

    def bind(self) -> Binding[Context]:
        """Return a block (`async with ctx.bind():`) whose task is cancelled when the context ends.

        The block then raises `err()` on exit and takes its cancel of the task back. A block that is entered with
        an ended context, or left with one, raises `err()` too. Nothing is started.
        """
        return Binding(self, on_end)

    def _name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        """Return ``<Context background.with_cancel [canceled]>``."""
        err = self.err()
        if err is None:
            return f"<Context {_name_of(self)}>"
        cause = self.cause()
        why = "" if cause is None or cause is err else f": {cause}"
        return f"<Context {_name_of(self)} [{err}{why}]>"

    def __str__(self) -> str:
        """Return the chain of derivations, such as ``background.with_cancel``."""
        return _name_of(self)


class _Background(Context):
    __slots__ = ()

    def deadline(self) -> float | None:
        return None

    def done(self) -> RecvChan[None]:
        return nil

    def err(self) -> Exception | None:
        return None

    def value(self, key: Any) -> Any:
        return None

    def _name(self) -> str:
        return "background"


class _ValueContext(Context):
    __slots__ = ("_key", "_parent", "_value")

    def __init__(self, parent: Context, key: Any, value: Any) -> None:
        self._parent = parent
        self._key = key
        self._value = value

    def deadline(self) -> float | None:
        return self._parent.deadline()

    def done(self) -> RecvChan[None]:
        return self._parent.done()

    def err(self) -> Exception | None:
        return self._parent.err()

    def cause(self) -> BaseException | None:
        return _cause_of(self._parent)

    def value(self, key: Any) -> Any:
        return _lookup(self, key)

    def _name(self) -> str:
        # The value may be a secret or large: only the key is shown.
        return f"{_name_of(self._parent)}.with_value({self._key!r})"


class _DetachedContext(Context):
    __slots__ = ("_parent",)

    def __init__(self, parent: Context) -> None:
        self._parent = parent

    def deadline(self) -> float | None:
        return None

    def done(self) -> RecvChan[None]:
        return nil

    def err(self) -> Exception | None:
        return None

    def cause(self) -> BaseException | None:
        return None

    def value(self, key: Any) -> Any:
        return _lookup(self, key)

    def _name(self) -> str:
        return f"{_name_of(self._parent)}.without_cancel"


@dataclass(frozen=True, slots=True)
class ContextStatistics:
    """A cancellable context at one instant.

    Attributes:
        children: Contexts, bound blocks and after-functions that end with it.
        remaining: Seconds to the deadline, never negative; None without a deadline.
        ended: Whether it was cancelled or has passed its deadline.
    """

    children: int
    remaining: float | None
    ended: bool


class Hook:
    """A function that runs once, in the thread that cancels, when a context ends. Internal: it must not raise."""

    __slots__ = ("_fn", "_owner", "live")

    def __init__(self, owner: CancelContext, fn: Callable[[], None]) -> None:
        self._fn = fn
        self._owner = owner
        self.live: bool = True

    def stop(self) -> bool:
        """Take the hook out; return whether that kept it from running."""
        with _tree:
            stopped, self.live = self.live, False
            self._owner._children.pop(self, None)
        return stopped

    def _settle(self) -> None:
        self._fn()


class CancelContext(Context):
    """A context that can be cancelled; made by `with_cancel`, `with_cause`, `with_timeout` and `with_deadline`.

    In an `async with` (or `with`) block it is cancelled on exit, which is Go's ``defer cancel()``.
    """

    __slots__ = (
        "_cause", "_children", "_deadline", "_deadline_cause", "_dones", "_err", "_label", "_loop",
        "_owns_deadline", "_parent", "_source", "_timer", "_watcher",
    )  # fmt: skip

    def __init__(self, parent: Context, label: str = "with_cancel") -> None:
        self._parent = parent
        self._label = label
        self._children: dict[CancelContext | Hook, None] = {}
        self._err: Exception | None = None
        self._cause: BaseException | None = None
        self._deadline: float | None = parent.deadline()
        self._owns_deadline = False
        self._deadline_cause: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dones: dict[asyncio.AbstractEventLoop | None, tuple[Chan[None], RecvChan[None]]] = {}
        self._timer: Alarm | None = None
        self._source: CancelContext | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._attach()

    # -- what it is ------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return the nearest deadline, its own or an ancestor's, in `time.monotonic()` seconds, or None."""
        return self._deadline

    def done(self) -> RecvChan[None]:
        """Return the channel that is closed when the context ends; one for each event loop."""
        loop = asyncio._get_running_loop()
        pair = self._dones.get(loop)
        if pair is None:
            pair = self._open(loop)
        elif self._err is not None and not pair[0].closed:
            pair[0].close()
        return pair[1]

    def err(self) -> Exception | None:
        """Return None while the context lasts, then always the same `Canceled` or `DeadlineExceeded`."""
        if self._err is None:
            if self._deadline is not None and now() >= self._deadline:
                self._overdue()
        else:
            # Cancelled by another thread, perhaps, and this loop has not had its turn yet.
            pair = self._dones.get(asyncio._get_running_loop())
            if pair is not None and not pair[0].closed:
                pair[0].close()
        return self._err

    def cause(self) -> BaseException | None:
        """Return the first cause given to a cancel of it or of an ancestor, else `err()`; None while it lasts."""
        return None if self.err() is None else self._cause

    def value(self, key: Any) -> Any:
        """Return the value that the nearest ancestor holds for `key`, or None."""
        return _lookup(self, key)

    def statistics(self) -> ContextStatistics:
        """Return the context's state at this instant."""
        ended = self.err() is not None
        remaining = None if self._deadline is None else max(0.0, self._deadline - now())
        return ContextStatistics(children=len(self._children), remaining=remaining, ended=ended)

    def _name(self) -> str:
        tail = ""
        if self._owns_deadline and self._deadline is not None:
            tail = f"({self._deadline - now():+.3f}s)"
        return f"{_name_of(self._parent)}.{self._label}{tail}"

    # -- ending ----------------------------------------------------------------------------------------------

    def cancel(self, cause: BaseException | None = None) -> None:
        """End the context and all below it with `Canceled`; later calls do nothing. From any thread.

        Args:
            cause: Why, for `cause()`; None leaves `cause()` equal to `err()`.

        Raises:
            WrongArgument: `cause` is neither an exception nor None.
        """
        if cause is not None and not isinstance(cause, BaseException):
            raise WrongArgument(f"expected an exception or None as the cause of a cancel, got: {cause!r}")
        if self.err() is None:
            self._finish(Canceled(), cause)

    def __enter__(self) -> Self:
        """Return the context itself."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Cancel it."""
        self.cancel()

    async def __aenter__(self) -> Self:
        """Return the context itself."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Cancel it."""
        self.cancel()

    # -- inside ----------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        parent = self._parent
        err = parent.err()
        if err is not None:
            self._finish(err, _cause_of(parent))
            return
        source = _nearest(parent)
        if source is None:
            done: Any = parent.done()
            if done is not None and done is not nil:
                self._watcher = require_loop("a child of a foreign context").create_task(self._follow(parent))
            return
        with _tree:
            err, cause = source._err, source._cause
            if err is None:
                source._children[self] = None
                self._source = source
        if err is not None:
            self._finish(err, cause)
        else:
            self._arm_line()

    async def _follow(self, parent: Context) -> None:
        """Wait for a context that this module does not know from the inside."""
        await parent.done().recv_ok()
        self._finish(parent.err() or Canceled(), _cause_of(parent))

    def _limit(self, deadline: float, cause: BaseException | None) -> None:
        """Give it a deadline of its own, unless an ancestor's comes first."""
        if self._err is not None or (self._deadline is not None and self._deadline <= deadline):
            return
        self._deadline = deadline
        self._deadline_cause = cause
        self._owns_deadline = True
        if deadline <= now():
            self._expire()
        else:
            self._arm()

    def _arm(self) -> None:
        """Start the timer of the deadline, once there is a loop to run it."""
        if not self._owns_deadline or self._deadline is None or self._err is not None:
            return
        loop = asyncio._get_running_loop()
        # A timer on a loop that was closed is none.
        if loop is not None and (self._loop is None or self._loop.is_closed()):
            self._loop = loop
            self._timer = Alarm(loop, max(0.0, self._deadline - now()), self._expire)

    def _arm_line(self) -> None:
        """Start the timers of this context and of all above it: they may have been made before there was a loop."""
        node: CancelContext | None = self
        while node is not None:
            node._arm()
            node = node._source

    def _expire(self) -> None:
        self._finish(DeadlineExceeded(), self._deadline_cause)

    def _overdue(self) -> None:
        """End what owns the passed deadline; its timer may be late or may never have had a loop."""
        node: Any = self
        while isinstance(node, CancelContext) and not node._owns_deadline:
            node = node._source
        if isinstance(node, CancelContext):
            node._expire()

    def _finish(self, err: Exception, cause: BaseException | None) -> None:
        if cause is not None and cause is not err and err.__cause__ is None:
            err.__cause__ = cause
        ended: list[CancelContext | Hook] = []
        with _tree:
            if self._err is not None:
                return
            _mark(self, err, err if cause is None else cause, ended)
            if self._source is not None:
                self._source._children.pop(self, None)
        for node in ended:
            node._settle()

    def _open(self, loop: asyncio.AbstractEventLoop | None) -> tuple[Chan[None], RecvChan[None]]:
        """Make the done channel of `loop`; None stands for code outside any loop."""
        with _tree:
            pair = self._dones.get(loop)
            if pair is None:
                adopted = self._dones.get(None)
                if adopted is not None and len(self._dones) == 1:
                    # Asked for before the loop ran: the same channel serves the first loop that comes.
                    pair = self._dones.pop(None)
                else:
                    chan: Chan[None] = Chan()
                    pair = chan, chan.receiver
                for gone in [other for other in self._dones if other is not None and other.is_closed()]:
                    del self._dones[gone]
                self._dones[loop] = pair
            if self._err is not None and not pair[0].closed:
                pair[0].close()
        self._arm_line()
        return pair

    def _settle(self) -> None:
        """Close the done channels and stop the timer, each on its own loop."""
        here = asyncio._get_running_loop()
        for loop, (chan, _view) in list(self._dones.items()):
            _on(loop, here, _close, chan)
        if self._timer is not None:
            _on(self._loop, here, self._timer.cancel)
        if self._watcher is not None and not self._watcher.done():
            watcher = self._watcher
            _on(watcher.get_loop(), here, _stop_watcher, watcher)


def _mark(root: CancelContext, err: Exception, cause: BaseException, ended: list[CancelContext | Hook]) -> None:
    """Set the error of `root` and of all below it, parents first, children in the order of their making."""
    stack: list[CancelContext | Hook] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Hook):
            if node.live:
                node.live = False
                ended.append(node)
            continue
        if node._err is not None:
            continue
        node._err = err
        node._cause = cause
        ended.append(node)
        stack.extend(reversed(node._children))
        node._children = {}


def _on(
    loop: asyncio.AbstractEventLoop | None,
    here: asyncio.AbstractEventLoop | None,
    fn: Callable[..., object],
    *args: Any,
) -> None:
    """Run `fn` on `loop`: now if that is the running one or is not running at all, else as its next turn."""
    if loop is None or loop is here or not loop.is_running():
        fn(*args)
        return
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        # Closed since it was asked: whoever waited there counts as dead.
        if not loop.is_closed():
            raise


def _close(chan: Chan[None]) -> None:
    if not chan.closed:
        chan.close()


def _stop_watcher(watcher: asyncio.Task[None]) -> None:
    if not watcher.done() and watcher is not asyncio.current_task(watcher.get_loop()):
        watcher.cancel()


def _name_of(ctx: Context) -> str:
    return ctx._name() if isinstance(ctx, Context) else type(ctx).__name__


def _cause_of(ctx: Context) -> BaseException | None:
    """Return the cause of any context; one that knows no causes has its error as cause."""
    return ctx.cause() if hasattr(ctx, "cause") else ctx.err()


def _lookup(ctx: Context, key: Any) -> Any:
    """Walk up to the nearest value of `key`. A loop, not a recursion: chains may be long."""
    while True:
        if isinstance(ctx, _ValueContext):
            held = ctx._key
            # As in Go, keys of different types differ even where they compare equal (1 and True).
            if held is key or (type(held) is type(key) and held == key):
                return ctx._value
            ctx = ctx._parent
        elif isinstance(ctx, CancelContext):
            if key is _CANCELLER:
                return ctx
            ctx = ctx._parent
        elif isinstance(ctx, _DetachedContext):
            if key is _CANCELLER:
                return None
            ctx = ctx._parent
        else:
            return ctx.value(key)


def _nearest(ctx: Context) -> CancelContext | None:
    """Return the context of this module whose end is the end of `ctx`, or None.

    A wrapper that brings its own done channel ends on its own terms and has none.
    """
    while isinstance(ctx, _ValueContext):
        ctx = ctx._parent
    if isinstance(ctx, CancelContext):
        return ctx
    if isinstance(ctx, (_Background, _DetachedContext)):
        return None
    native = ctx.value(_CANCELLER)
    if isinstance(native, CancelContext) and ctx.done() is native.done():
        return native
    return None


def require_context(ctx: Any) -> Context:
    """Return `ctx` if it is a context. Raises `InvalidContext`."""
    if isinstance(ctx, Context) or all(callable(getattr(ctx, m, None)) for m in ("done", "err", "deadline", "value")):
        return ctx  # type: ignore[no-any-return]  # by its shape
    raise InvalidContext(
        f"expected a context as the first argument, got: {ctx!r}", hint="start from background() if there is none"
    )


def on_end(ctx: Context, fn: Callable[[], None]) -> Callable[[], bool] | None:
    """Call `fn` in the cancelling thread when `ctx` ends, at once if it has; return how to stop it.

    Internal. None is returned for a context that never ends. `fn` must be quick and must not raise.
    """
    node = _nearest(ctx)
    if node is None:
        done: Any = ctx.done()
        if done is None or done is nil:
            return None
        node = CancelContext(ctx, "watch")
        follower: CancelContext | None = node
    else:
        follower = None
    hook = Hook(node, fn)
    with _tree:
        ended = node._err is not None
        if ended:
            hook.live = False
        else:
            node._children[hook] = None
    if ended:
        fn()
    else:
        node._arm_line()

    def stop() -> bool:
        stopped = hook.stop()
        if follower is not None:
            follower.cancel()
        return stopped

    return stop


_BACKGROUND: Final = _Background()


def background() -> Context:
    """Return the root of all contexts: never cancelled, no deadline, no values. Source: Go, ``context.Background``."""
    return _BACKGROUND


def with_cancel(parent: Context) -> CancelContext:
    """Return a child that ends with `parent` or at `child.cancel()`. Source: Go, ``context.WithCancel``.

    Raises:
        InvalidContext: `parent` is no context.
    """
    return CancelContext(require_context(parent))


def with_cause(parent: Context) -> CancelContext:
    """Return a child whose `cancel(cause)` records why. Source: Go, ``context.WithCancelCause``.

    Raises:
        InvalidContext: `parent` is no context.
    """
    return CancelContext(require_context(parent), "with_cause")


def with_deadline(parent: Context, deadline: float, cause: BaseException | None = None) -> CancelContext:
    """Return a child that ends by itself at `deadline`, with `DeadlineExceeded`.

    An earlier deadline of the parent stays in force. A deadline that has passed ends the child at once.

    Args:
        parent: Where it is derived from.
        deadline: Moment in `time.monotonic()` seconds.
        cause: What `cause()` gives when the deadline passes; a cancel before that does not use it.

    Raises:
        InvalidContext: `parent` is no context.
        WrongArgument: `deadline` is no number.

    Source: Go, ``context.WithDeadlineCause``.
    """
    require_context(parent)
    moment = _seconds("a deadline", deadline)
    child = CancelContext(parent, "with_deadline")
    child._limit(moment, cause)
    return child


def with_timeout(parent: Context, seconds: float, cause: BaseException | None = None) -> CancelContext:
    """Return a child that ends by itself after `seconds`; `with_deadline` has the details.

    Source: Go, ``context.WithTimeoutCause``.
    """
    require_context(parent)
    delay = _seconds("a timeout", seconds)
    return with_deadline(parent, now() + delay, cause=cause)


def with_value(parent: Context, key: Any, value: Any) -> Context:
    """Return a child that answers `value(key)` with `value`; the nearest one wins.

    Keys of different types are different even where they compare equal. Use a type of your own as key, not a
    string, so that two packages do not meet.

    Raises:
        InvalidContext: `parent` is no context.
        InvalidKey: `key` is None or cannot be hashed.

    Source: Go, ``context.WithValue``.
    """
    require_context(parent)
    if key is None:
        raise InvalidKey("expected a hashable key for with_value, got: None")
    try:
        hash(key)
    except TypeError as exc:
        raise InvalidKey(f"expected a hashable key for with_value, got: {key!r} ({type(key).__name__})") from exc
    return _ValueContext(parent, key, value)


def without_cancel(parent: Context) -> Context:
    """Return a child that keeps the values only: it never ends and has no deadline.

    Source: Go, ``context.WithoutCancel``.
    """
    return _DetachedContext(require_context(parent))


def _seconds(what: str, got: Any) -> float:
    if isinstance(got, bool) or not isinstance(got, (int, float)) or got != got:  # noqa: PLR0124  # NaN
        raise WrongArgument(f"expected {what} in seconds, got: {got!r}")
    return float(got)
