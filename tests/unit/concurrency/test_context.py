"""Ports of Go's ``context/x_test.go`` and ``context_test.go``; the docstrings name the test."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fairway.concurrency import (
    CancelContext,
    Canceled,
    Chan,
    Context,
    DeadlineExceeded,
    InvalidContext,
    InvalidKey,
    RecvChan,
    WrongArgument,
    after_func,
    background,
    nil,
    with_cancel,
    with_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)
from fairway.concurrency.timing import now
from fairway.testing.loop import virtual_time

SHORT, LONG = 0.001, 3600.0 * 1000


class Other(Context):
    """Port of otherContext: a wrapper that the library does not know from the inside."""

    def __init__(self, inner: Context) -> None:
        self.inner = inner

    def deadline(self) -> float | None:
        return self.inner.deadline()

    def done(self) -> RecvChan[None]:
        return self.inner.done()

    def err(self) -> Exception | None:
        return self.inner.err()

    def value(self, key: Any) -> Any:
        return self.inner.value(key)


class Custom:
    """Port of customCauseContext: not even a subclass, and without causes."""

    def __init__(self) -> None:
        self.chan = Chan[None]()
        self.error: Exception | None = None
        self.cancel_child: Callable[[], None] | None = None

    def deadline(self) -> float | None:
        return None

    def done(self) -> RecvChan[None]:
        return self.chan

    def err(self) -> Exception | None:
        return self.error

    def value(self, key: Any) -> Any:
        return None

    def cancel(self) -> None:
        self.error = Canceled()
        self.chan.close()
        if self.cancel_child is not None:
            self.cancel_child()


def is_done(ctx: Context) -> bool:
    return ctx.done().try_recv() == (None, False)


@virtual_time
async def test_background_never_ends() -> None:
    """Port of TestBackground."""
    ctx = background()
    assert ctx.done() is nil
    assert ctx.done().try_recv() is None
    assert (ctx.err(), ctx.cause(), ctx.deadline(), ctx.value("k")) == (None, None, None, None)
    assert str(ctx) == "background"
    assert background() is ctx


@virtual_time
async def test_with_cancel_propagates_synchronously_through_a_wrapper() -> None:
    """Port of TestWithCancel."""
    c1 = with_cancel(background())
    assert str(c1) == "background.with_cancel"
    wrapper = Other(c1)
    c2 = with_cancel(wrapper)
    contexts: list[Context] = [c1, wrapper, c2]
    for ctx in contexts:
        assert ctx.done() is not nil
        assert ctx.err() is None
        assert not is_done(ctx)
    c1.cancel()
    for ctx in contexts:
        assert is_done(ctx)
        assert isinstance(ctx.err(), Canceled)
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_parent_finishes_child() -> None:
    """Port of XTestParentFinishesChild: cancel, value and timer children, and detachment."""
    parent = with_cancel(background())
    cancel_child = with_cancel(parent)
    value_child = with_value(parent, "key", "value")
    timer_child = with_timeout(value_child, LONG)
    afters: list[str] = []
    stop = after_func(parent, lambda: afters.append("ran"))
    assert parent.statistics().children == 3
    parent.cancel()
    assert parent.statistics().children == 0
    for ctx in (parent, cancel_child, value_child, timer_child):
        assert is_done(ctx)
        assert ctx.err() is parent.err()
    await asyncio.sleep(0)
    assert afters == ["ran"]
    assert stop() is False
    assert isinstance(with_value(parent, "k", 1).err(), Canceled)
    assert is_done(with_cancel(parent))


@virtual_time
async def test_child_finishes_first() -> None:
    """Port of XTestChildFinishesFirst."""
    for parent in (background(), with_cancel(background())):
        child = with_cancel(parent)
        child.cancel()
        assert is_done(child)
        assert parent.err() is None
        if isinstance(parent, CancelContext):
            assert not is_done(parent)
            assert parent.statistics().children == 0


@virtual_time
async def test_cancel_removes_the_child() -> None:
    """Port of XTestCancelRemoves."""
    ctx = with_cancel(background())
    assert ctx.statistics().children == 0
    child = with_cancel(ctx)
    assert ctx.statistics().children == 1
    child.cancel()
    assert ctx.statistics().children == 0
    child = with_timeout(ctx, 3600)
    assert ctx.statistics().children == 1
    child.cancel()
    assert ctx.statistics().children == 0
    stop = after_func(ctx, lambda: None)
    assert ctx.statistics().children == 1
    assert stop() is True
    assert ctx.statistics().children == 0


async def ends_by_deadline(ctx: Context) -> None:
    assert await ctx.done().recv_ok() == (None, False)
    assert isinstance(ctx.err(), DeadlineExceeded)
    assert isinstance(ctx.err(), TimeoutError)


@virtual_time
async def test_deadline() -> None:
    """Port of TestDeadline and TestDeadlineExceededSupportsTimeout."""
    c = with_deadline(background(), now() + SHORT)
    assert str(c).startswith("background.with_deadline(")
    await ends_by_deadline(c)
    await ends_by_deadline(Other(with_deadline(background(), now() + SHORT)))
    wrapper = Other(with_deadline(background(), now() + SHORT))
    later = with_deadline(wrapper, now() + LONG)
    assert later.deadline() == wrapper.deadline()
    await ends_by_deadline(later)
    for moment in (now() - SHORT, now()):
        past = with_deadline(background(), moment)
        assert isinstance(past.err(), DeadlineExceeded), "at once"
        await ends_by_deadline(past)


@virtual_time
async def test_timeout() -> None:
    """Port of TestTimeout."""
    start = now()
    c = with_timeout(background(), SHORT)
    assert c.deadline() == pytest.approx(start + SHORT)
    await ends_by_deadline(c)
    assert now() - start == pytest.approx(SHORT)
    wrapper = Other(with_timeout(background(), SHORT))
    await ends_by_deadline(with_timeout(wrapper, LONG))


@virtual_time
async def test_the_earlier_deadline_wins() -> None:
    """ "earlier deadline wins", both ways round."""
    parent = with_timeout(background(), 1)
    assert with_timeout(parent, 5).deadline() == parent.deadline()
    shorter = with_timeout(parent, 0.5)
    await ends_by_deadline(shorter)
    assert parent.err() is None
    grandchild = with_cancel(with_value(parent, "k", 1))
    assert grandchild.deadline() == parent.deadline()
    await ends_by_deadline(grandchild)


@virtual_time
async def test_canceled_timeout() -> None:
    """Port of TestCanceledTimeout."""
    wrapper = Other(with_timeout(background(), 1))
    c = with_timeout(wrapper, LONG)
    c.cancel()
    assert is_done(c)
    assert isinstance(c.err(), Canceled)


class Key:
    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return getattr(other, "number", None) == self.number

    def __hash__(self) -> int:
        return hash(self.number)


class Key2(Key):
    """Equal to a `Key` of the same number, and another type."""


@virtual_time
async def test_values() -> None:
    """Port of TestValues: the nearest value; keys of different types differ even if they compare equal."""
    k1, k2, k3 = Key(1), Key2(1), Key2(3)

    def check(ctx: Context, *want: object) -> None:
        assert [ctx.value(k) for k in (k1, k2, k3)] == list(want)

    c1 = with_value(background(), k1, "c1k1")
    check(c1, "c1k1", None, None)
    c2 = with_value(c1, k2, "c2k2")
    check(c2, "c1k1", "c2k2", None)
    c3 = with_value(c2, k3, "c3k3")
    check(c3, "c1k1", "c2k2", "c3k3")
    c4 = with_value(c3, Key(1), None)
    check(c4, None, "c2k2", "c3k3")
    check(Other(c4), None, "c2k2", "c3k3")
    check(with_value(Other(c4), k3, None), None, "c2k2", None)
    check(with_cancel(with_timeout(c3, LONG)), "c1k1", "c2k2", "c3k3")
    check(Other(background()), None, None, None)
    assert with_value(background(), 1, "int").value(True) is None


@virtual_time
async def test_simultaneous_cancels() -> None:
    """Port of TestSimultaneousCancels: a tree of 100, cancelled from threads in a random order."""
    root = with_cancel(background())
    contexts = [root]
    queue = [root]
    while len(contexts) < 100:
        parent = queue.pop(0)
        for _ in range(4):
            child = with_cancel(parent)
            contexts.append(child)
            queue.append(child)
    random.Random(1).shuffle(contexts)
    threads = [threading.Thread(target=ctx.cancel) for ctx in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ctx in contexts:
        assert isinstance(ctx.err(), Canceled)
        assert is_done(ctx)


@virtual_time
async def test_interlocked_cancels() -> None:
    """Port of TestInterlockedCancels."""
    parent = with_cancel(background())
    child = with_cancel(parent)

    async def watch() -> None:
        await parent.done().recv_ok()
        child.cancel()

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    parent.cancel()
    assert await child.done().recv_ok() == (None, False)
    await task


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_layers(seed: int, timed: bool) -> None:
    """Port of TestLayersCancel and TestLayersTimeout."""

    @virtual_time
    async def run() -> None:
        rng = random.Random(seed)
        ctx: Context = background()
        values: list[object] = []
        cancels: list[CancelContext] = []
        timers = 0
        layers = 0
        while layers < 30 or not timers or not cancels or not values:
            layers += 1
            kind = rng.randrange(3)
            if kind == 0:
                key = object()
                ctx = with_value(ctx, key, key)
                values.append(key)
            else:
                child = with_cancel(ctx) if kind == 1 else with_timeout(ctx, 0.2 if timed else LONG)
                timers += kind == 2
                cancels.append(child)
                ctx = child
        assert not is_done(ctx)
        assert all(ctx.value(key) is key for key in values)
        assert str(ctx).startswith("background.")
        if timed:
            await ctx.done().recv_ok()
            assert isinstance(ctx.err(), DeadlineExceeded)
        else:
            rng.choice(cancels).cancel()
            assert is_done(ctx)
        assert all(ctx.value(key) is key for key in values)

    run()


@virtual_time
async def test_child_of_a_canceled_parent_has_its_error_and_cause_at_once() -> None:
    """Port of TestWithCancelCanceledParent."""
    parent = with_cause(background())
    because = ValueError("Because!")
    parent.cancel(because)
    child = with_cancel(parent)
    assert is_done(child)
    assert isinstance(child.err(), Canceled)
    assert child.cause() is because


async def test_parent_canceled_by_a_thread_while_children_are_made() -> None:
    """Port of TestWithCancelSimultaneouslyCanceledParent."""
    for _ in range(50):
        parent = with_cause(background())
        because = ValueError("Because!")
        thread = threading.Thread(target=parent.cancel, args=(because,))
        thread.start()
        child = with_cancel(parent)
        await child.done().recv_ok()
        assert isinstance(child.err(), Canceled)
        assert child.cause() is because
        thread.join()


def test_with_value_checks_its_key() -> None:
    """Port of TestWithValueChecksKey."""
    with pytest.raises(InvalidKey, match="got: \\['foo'\\]") as caught:
        with_value(background(), ["foo"], "bar")
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidKey, match="got: None"):
        with_value(background(), None, "bar")


def test_deriving_from_none_fails() -> None:
    """Port of TestInvalidDerivedFail."""
    nothing: Any = None
    for derive in (
        lambda: with_cancel(nothing),
        lambda: with_cause(nothing),
        lambda: with_deadline(nothing, 1.0),
        lambda: with_timeout(nothing, 1.0),
        lambda: with_value(nothing, "k", 1),
        lambda: without_cancel(nothing),
        lambda: after_func(nothing, print),
    ):
        with pytest.raises(InvalidContext, match="expected a context as the first argument, got: None"):
            derive()
    for bad in ("soon", None, float("nan"), True):
        with pytest.raises(WrongArgument):
            with_timeout(background(), bad)  # type: ignore[arg-type]
    with pytest.raises(WrongArgument, match="expected an exception or None"):
        with_cancel(background()).cancel("why")  # type: ignore[arg-type]


PARENT, CHILD, SLOW, EARLY = (ValueError(name) for name in ("parentCause", "childCause", "tooSlow", "finishedEarly"))


def canceled(*steps: tuple[str, Exception | None], timeout: float | None = None, cause: Exception | None = None) -> Any:
    """Return a function that makes parent and child, cancels them by `steps`, and returns the child."""

    def make() -> Context:
        parent = with_cause(background())
        child = with_cause(parent) if timeout is None else with_timeout(parent, timeout, cause=cause)
        for who, why in steps:
            (parent if who == "parent" else child).cancel(why)
        return child

    return make


def detached(end: Callable[[], CancelContext]) -> Callable[[], Context]:
    return lambda: without_cancel(end())


def ended(ctx: CancelContext, cause: Exception | None = None) -> CancelContext:
    ctx.cancel(cause)
    return ctx


@pytest.mark.parametrize(
    ("make", "err", "cause"),
    [
        pytest.param(background, None, None, id="Background"),
        pytest.param(lambda: with_value(background(), "k", 1), None, None, id="TODO: value over Background"),
        pytest.param(lambda: ended(with_cancel(background())), Canceled, Canceled, id="WithCancel"),
        pytest.param(lambda: ended(with_cause(background()), PARENT), Canceled, PARENT, id="WithCancelCause"),
        pytest.param(lambda: ended(with_cause(background()), None), Canceled, Canceled, id="WithCancelCause nil"),
        pytest.param(canceled(("parent", PARENT), ("child", CHILD)), Canceled, PARENT, id="parent cause before child"),
        pytest.param(canceled(("child", CHILD), ("parent", PARENT)), Canceled, CHILD, id="parent cause after child"),
        pytest.param(canceled(("parent", PARENT), ("child", None)), Canceled, PARENT, id="parent cause before nil"),
        pytest.param(canceled(("child", None), ("parent", PARENT)), Canceled, Canceled, id="parent cause after nil"),
        pytest.param(canceled(("parent", None), ("child", CHILD)), Canceled, Canceled, id="child cause after nil"),
        pytest.param(canceled(("child", CHILD), ("parent", None)), Canceled, CHILD, id="child cause before nil"),
        pytest.param(
            lambda: ended(with_timeout(background(), 0)), DeadlineExceeded, DeadlineExceeded, id="WithTimeout"
        ),
        pytest.param(lambda: ended(with_timeout(background(), 1e6)), Canceled, Canceled, id="WithTimeout canceled"),
        pytest.param(
            lambda: ended(with_timeout(background(), 0, cause=SLOW)), DeadlineExceeded, SLOW, id="WithTimeoutCause"
        ),
        pytest.param(
            lambda: ended(with_timeout(background(), 1e6, cause=SLOW)),
            Canceled,
            Canceled,
            id="WithTimeoutCause canceled",
        ),
        pytest.param(
            canceled(("parent", EARLY), timeout=0, cause=SLOW), DeadlineExceeded, SLOW, id="WithTimeoutCause stacked"
        ),
        pytest.param(
            canceled(("parent", EARLY), timeout=1e6, cause=SLOW),
            Canceled,
            EARLY,
            id="WithTimeoutCause stacked canceled",
        ),
        pytest.param(lambda: without_cancel(background()), None, None, id="WithoutCancel"),
        pytest.param(detached(lambda: ended(with_cause(background()), EARLY)), None, None, id="WithoutCancel canceled"),
        pytest.param(
            detached(lambda: ended(with_timeout(background(), 0, cause=SLOW))), None, None, id="WithoutCancel timeout"
        ),
        pytest.param(
            lambda: with_cancel(ended(with_cause(background()), PARENT)), Canceled, PARENT, id="child of a done parent"
        ),
        pytest.param(
            lambda: with_value(ended(with_cause(background()), PARENT), "k", 1), Canceled, PARENT, id="value over done"
        ),
        pytest.param(
            lambda: ended(with_deadline(background(), 0.0, cause=SLOW), EARLY),
            DeadlineExceeded,
            SLOW,
            id="WithDeadlineCause in the past",
        ),
    ],
)
def test_cause(make: Callable[[], Context], err: Any, cause: Any) -> None:
    """Port of TestCause, 23 rows: the first cause wins."""

    @virtual_time
    async def run() -> None:
        ctx = make()
        got = ctx.err()
        assert (got is None) if err is None else isinstance(got, err)
        if isinstance(cause, Exception):
            assert ctx.cause() is cause
            assert got is not None
            assert got.__cause__ is cause
        else:
            assert ctx.cause() is got

    run()


async def test_cause_race() -> None:
    """Port of TestCauseRace: the cause is there as soon as anything is."""
    because = ValueError("TestCauseRace")
    ctx = with_cause(background())
    thread = threading.Thread(target=ctx.cancel, args=(because,))
    thread.start()
    while (cause := ctx.cause()) is None:
        time.sleep(0)
    assert cause is because
    thread.join()


@virtual_time
async def test_without_cancel_keeps_values_only() -> None:
    """Port of TestWithoutCancel."""
    ctx = without_cancel(with_timeout(with_value(background(), "key", "value"), 1))
    assert ctx.deadline() is None
    assert ctx.done() is nil
    assert ctx.err() is None
    assert ctx.value("key") == "value"
    child = with_cancel(ctx)
    assert child.err() is None


@virtual_time
async def test_custom_context_with_its_own_done_is_followed_by_its_channel() -> None:
    """Port of TestCustomContextPropagation and of "myDoneCtx" in XTestCustomContextGoroutines."""
    because = ValueError("TestCustomContextPropagation")
    done = Chan[None]()
    ctx1 = with_cause(background())

    class OwnDone(Other):
        def done(self) -> RecvChan[None]:
            return done

    ctx3 = with_cancel(OwnDone(ctx1))
    ctx1.cancel(because)
    assert ctx3.statistics().ended is False
    done.close()
    await ctx3.done().recv_ok()
    assert isinstance(ctx3.err(), Canceled)
    assert ctx3.cause() is because
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1, "the follower has ended"


@virtual_time
async def test_custom_context_without_causes() -> None:
    """Port of TestCustomContextCause."""
    custom: Any = Custom()
    child = with_cause(custom)
    because = ValueError("TestCustomContextCause")
    child.cancel(because)
    assert isinstance(child.err(), Canceled)
    assert child.cause() is because
    assert custom.err() is None
    custom.cancel()
    assert child.cause() is because

    custom = Custom()
    child = with_cancel(custom)
    custom.cancel_child = child.cancel
    custom.cancel()
    assert isinstance(child.err(), Canceled)
    assert child.cause() is child.err()

    custom = Custom()
    custom.cancel()
    assert with_cancel(custom).err() is custom.err()
    assert Other(custom).cause() is custom.err()
    await asyncio.sleep(0)


@virtual_time
async def test_goroutines_of_custom_contexts() -> None:
    """Port of XTestCustomContextGoroutines: only a context with a done channel of its own needs a task."""
    before = len(asyncio.all_tasks())
    ctx1 = with_cancel(background())
    ctx3 = with_cancel(Other(ctx1))
    ctx5 = with_cancel(with_timeout(ctx3, 3600))
    assert len(asyncio.all_tasks()) == before
    foreign: Any = Custom()
    follower = with_cancel(foreign)
    assert len(asyncio.all_tasks()) == before + 1
    follower.cancel()
    ctx5.cancel()
    ctx1.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
