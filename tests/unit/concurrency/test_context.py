"""Ports of Go's ``context/x_test.go`` and ``context_test.go``; the docstrings name the test."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from fairway.concurrency import (
    CancelContext,
    Canceled,
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
