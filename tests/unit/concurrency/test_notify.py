"""Ports of ``os/signal/signal_test.go`` (NotifyContext), and `Shutdown`; the docstrings name the test."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from typing import Any

import pytest

from fairway.concurrency import (
    Canceled,
    DeadlineExceeded,
    Shutdown,
    SignalReceived,
    WrongArgument,
    WrongLoop,
    background,
    notify_context,
    with_cancel,
    with_cause,
)
from fairway.concurrency.timing import now
from fairway.testing.loop import elapse, virtual_time

ON_BOTH_LOOPS = True
SIGNAL, OTHER = signal.SIGUSR1, signal.SIGUSR2


def send(number: int = SIGNAL) -> None:
    os.kill(os.getpid(), number)


async def test_notify_context_ends_by_its_signal() -> None:
    """Port of TestNotifyContextNotifications: several signals, one end; the cause names the signal."""
    async with notify_context(SIGNAL) as ctx:
        assert ctx.err() is None
        for _ in range(3):
            send()
        await ctx.done().recv_ok()
        assert isinstance(ctx.err(), Canceled)
        cause = ctx.cause()
        assert isinstance(cause, SignalReceived)
        assert cause.signal is SIGNAL
        assert "SIGUSR1" in str(cause)
        assert "SIGUSR1" in repr(ctx)


async def test_notify_context_stop() -> None:
    """Port of TestNotifyContextStop: the default action is back, the context ended; stop twice is fine."""
    before = signal.getsignal(SIGNAL)
    ctx = notify_context(SIGNAL)
    assert signal.getsignal(SIGNAL) is not before
    ctx.stop()
    ctx.stop()
    assert signal.getsignal(SIGNAL) is before
    assert isinstance(ctx.err(), Canceled)
    assert ctx.cause() is ctx.err()


async def test_notify_context_cancel_parent() -> None:
    """Port of TestNotifyContextCancelParent."""
    parent = with_cause(background())
    async with notify_context(SIGNAL, parent=parent) as ctx:
        because = ValueError("parent")
        parent.cancel(because)
        await ctx.done().recv_ok()
        assert ctx.cause() is because


async def test_notify_context_with_a_canceled_parent() -> None:
    """Port of TestNotifyContextPrematureCancelParent."""
    parent = with_cancel(background())
    parent.cancel()
    async with notify_context(SIGNAL, parent=parent) as ctx:
        assert isinstance(ctx.err(), Canceled)


async def test_notify_context_simultaneous_stop() -> None:
    """Port of TestNotifyContextSimultaneousStop."""
    before = signal.getsignal(SIGNAL)
    contexts = [notify_context(SIGNAL) for _ in range(10)]
    for ctx in contexts[::2] + contexts[1::2]:
        ctx.stop()
    assert signal.getsignal(SIGNAL) is before


async def test_several_contexts_share_a_signal_and_the_last_restores() -> None:
    before = signal.getsignal(SIGNAL)
    async with notify_context(SIGNAL) as outer:
        async with notify_context(SIGNAL, OTHER) as inner:
            send()
            await outer.done().recv_ok()
            await inner.done().recv_ok()
        assert signal.getsignal(SIGNAL) is not before
    assert signal.getsignal(SIGNAL) is before


async def test_an_earlier_handler_is_restored_and_one_set_later_is_kept() -> None:
    seen: list[int] = []

    def mine(number: int, frame: Any) -> None:
        seen.append(number)

    before = signal.signal(SIGNAL, mine)
    try:
        async with notify_context(SIGNAL):
            pass
        assert signal.getsignal(SIGNAL) is mine
        async with notify_context(SIGNAL):
            signal.signal(SIGNAL, signal.SIG_IGN)
        assert signal.getsignal(SIGNAL) is signal.SIG_IGN
        assert seen == []
    finally:
        signal.signal(SIGNAL, before)


async def test_notify_context_stringer_and_default_signals() -> None:
    """Port of TestNotifyContextStringer."""
    async with notify_context() as ctx:
        assert ctx.signals == (signal.SIGINT, signal.SIGTERM)
        assert "notify_context(SIGINT, SIGTERM)" in str(ctx)


async def test_notify_context_refuses_what_cannot_be_caught() -> None:
    with pytest.raises(WrongArgument, match="SIGKILL"):
        notify_context(signal.SIGKILL)
    with pytest.raises(WrongArgument, match="got: 9999"):
        notify_context(9999)


def test_notify_context_needs_the_main_thread_and_a_loop() -> None:
    with pytest.raises(WrongLoop):
        notify_context(SIGNAL)
    errors: list[BaseException] = []

    async def main() -> None:
        try:
            notify_context(SIGNAL)
        except WrongLoop as exc:
            errors.append(exc)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


# -- Shutdown ------------------------------------------------------------------------------------------------


@virtual_time
async def test_hooks_run_by_order_and_together_within_one() -> None:
    log: list[str] = []

    async def stop(name: str, seconds: float) -> None:
        log.append(f"{name} starts")
        await elapse(seconds)
        log.append(f"{name} ends")

    async with Shutdown(background(), grace=10) as sd:
        sd.hook("database", log.append, "database", order=3)
        sd.hook("http", stop, "http", 2, order=1)
        sd.hook("grpc", stop, "grpc", 1, order=1)
        sd.hook("workers", stop, "workers", 1, order=2)
        start = now()
        log.append("block ends")
    assert log == [
        "block ends", "http starts", "grpc starts", "grpc ends", "http ends", "workers starts", "workers ends",
        "database",
    ]  # fmt: skip
    assert now() - start == pytest.approx(3)
    assert sd.report == [("http", None), ("grpc", None), ("workers", None), ("database", None)]
    assert isinstance(sd.ctx.err(), Canceled)


@virtual_time
async def test_one_deadline_for_all_and_every_outcome_reported(caplog: pytest.LogCaptureFixture) -> None:
    cleaned: list[str] = []

    async def hang(name: str) -> None:
        try:
            await elapse(1000)
        finally:
            cleaned.append(name)

    def broken() -> None:
        raise KeyError("no such thing")

    start = now()
    with caplog.at_level(logging.ERROR):
        async with Shutdown(grace=5) as sd:
            sd.hook("quick", elapse, 1, order=1)
            sd.hook("broken", broken, order=1)
            sd.hook("hangs", hang, "hangs", order=2)
            sd.hook("never", hang, "never", order=3)
    assert now() - start == pytest.approx(5)
    assert [name for name, _ in sd.report] == ["quick", "broken", "hangs", "never"]
    errors = dict(sd.report)
    assert errors["quick"] is None
    assert isinstance(errors["broken"], KeyError)
    assert isinstance(errors["hangs"], DeadlineExceeded)
    assert isinstance(errors["never"], DeadlineExceeded)
    assert cleaned == ["hangs"]
    assert "shutdown hook 'broken' failed: KeyError" in caplog.text
    assert repr(sd) == "<Shutdown [4 hooks, 4 reported, 3 failed]>"


async def test_a_hook_that_raises_no_exception_is_reported_and_the_next_one_runs() -> None:
    class Bye(BaseException):
        pass

    async def leave() -> None:
        raise Bye

    ran: list[str] = []
    async with Shutdown(background(), grace=1) as sd:
        sd.hook("leave", leave, order=1)
        sd.hook("next", lambda: ran.append("next"), order=2)
    assert ran == ["next"]
    assert [(name, type(error)) for name, error in sd.report] == [("leave", Bye), ("next", type(None))]


@virtual_time
async def test_a_hook_that_ignores_its_cancel_is_given_up() -> None:
    async def stubborn() -> None:
        until = now() + 100
        while now() < until:
            try:
                await elapse(until - now())
            except asyncio.CancelledError:
                continue

    start = now()
    async with Shutdown(grace=5) as sd:
        sd.hook("stubborn", stubborn)
    assert now() - start == pytest.approx(6), "the grace and a second"
    assert isinstance(sd.report[0][1], DeadlineExceeded)
    await elapse(200)


@virtual_time
async def test_hooks_run_when_the_block_fails_or_is_cancelled() -> None:
    ran: list[str] = []
    with pytest.raises(KeyError):
        async with Shutdown() as sd:
            sd.hook("a", ran.append, "failed")
            raise KeyError("block")
    assert isinstance(sd.ctx.cause(), KeyError)

    async def main() -> None:
        async with Shutdown() as sd:
            sd.hook("b", elapse, 1)
            sd.hook("c", ran.append, "cancelled", order=1)
            await sd.wait()

    task = asyncio.create_task(main())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ran == ["failed", "cancelled"]


@virtual_time
async def test_a_cancel_while_hooks_run_forces() -> None:
    reports: list[Any] = []

    async def main() -> None:
        sd = Shutdown(grace=100)
        try:
            async with sd:
                sd.hook("slow", asyncio.sleep, 50)
                sd.hook("later", asyncio.sleep, 50, order=1)
        finally:
            reports.extend(sd.report)

    start = now()
    task = asyncio.create_task(main())
    await elapse(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() - start == pytest.approx(1)
    assert [(name, type(error)) for name, error in reports] == [("slow", Canceled), ("later", Canceled)]


@virtual_time
async def test_shutdown_begins_by_its_parent_or_by_begin() -> None:
    parent = with_cause(background())
    async with Shutdown(parent) as sd:
        because = ValueError("enough")
        asyncio.get_running_loop().call_later(1, parent.cancel, because)
        assert await sd.wait() is because
    async with Shutdown() as sd:
        asyncio.get_running_loop().call_later(1, sd.begin, because)
        assert await sd.wait() is because
        with pytest.raises(WrongArgument, match="expected a function"):
            sd.hook("nothing", None)  # type: ignore[arg-type]
    with pytest.raises(WrongArgument, match="already"):
        sd.hook("late", print)
    for bad in (0, -1, "10", True):
        with pytest.raises(WrongArgument, match="grace"):
            Shutdown(grace=bad)  # type: ignore[arg-type]


async def test_a_second_signal_forces() -> None:
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.sleep(1000)

    async def second() -> None:
        await started.wait()
        send(OTHER)

    async with Shutdown(signals=(SIGNAL, OTHER)) as sd:
        sd.hook("slow", slow)
        send()
        cause = await sd.wait()
        assert isinstance(cause, SignalReceived)
        pusher = asyncio.create_task(second())
    await pusher
    ((name, error),) = sd.report
    assert name == "slow"
    assert isinstance(error, Canceled)
    assert "forced: signal received: SIGUSR2" in str(error)


async def test_shutdown_takes_the_signals_of_the_context_above() -> None:
    """A first signal ends the notify_context and counts once; a second one forces."""
    before = signal.getsignal(SIGNAL)

    async def slow() -> None:
        send()
        await asyncio.sleep(1000)

    async with notify_context(SIGNAL) as ctx, Shutdown(ctx, grace=500) as sd:
        sd.hook("quick", asyncio.sleep, 0, order=0)
        sd.hook("slow", slow, order=1)
        send()
        await ctx.done().recv_ok()
    errors = dict(sd.report)
    assert errors["quick"] is None
    assert isinstance(errors["slow"], Canceled)
    assert signal.getsignal(SIGNAL) is before
