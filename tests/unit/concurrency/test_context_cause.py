"""Causes and foreign contexts: ports of Go's ``context/x_test.go``; the docstrings name the test."""

from __future__ import annotations

import asyncio
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
    RecvChan,
    background,
    nil,
    with_cancel,
    with_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)
from fairway.testing.loop import virtual_time


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
