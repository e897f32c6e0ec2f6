"""Ports of ``golang.org/x/sync`` tests: errgroup; the docstrings name the test."""

from __future__ import annotations

import asyncio

import pytest

from fairway.concurrency import (
    Canceled,
    Chan,
    DeadlineExceeded,
    ErrGroup,
    WaitGroup,
    WrongArgument,
    background,
    select,
    with_timeout,
    with_value,
)
from fairway.testing.loop import elapse, virtual_time

ERR1, ERR2 = ValueError("errgroup_test: 1"), ValueError("errgroup_test: 2")


async def end(error: Exception | None) -> None:
    if error is not None:
        raise error


# -- ErrGroup ------------------------------------------------------------------------------------------------


@virtual_time
async def test_just_errors() -> None:
    """Port of ExampleGroup_justErrors."""
    fetched = []

    async def fetch(url: str) -> None:
        await asyncio.sleep(0)
        fetched.append(url)

    async with ErrGroup() as g:
        for url in ("a", "b", "c"):
            await g.go(fetch, url)
    assert fetched == ["a", "b", "c"]


@virtual_time
async def test_parallel() -> None:
    """Port of ExampleGroup_parallel: results by position, an error instead of results."""

    async def search(kind: str, into: list[str], at: int) -> None:
        await elapse(3 - at)
        into[at] = f"{kind} result"

    results = [""] * 3
    async with ErrGroup(background()) as g:
        for i, kind in enumerate(("web", "image", "video")):
            await g.go(search, kind, results, i)
    assert results == ["web result", "image result", "video result"]


@pytest.mark.parametrize("errors", [[], [None], [ERR1], [ERR1, None], [ERR1, None, ERR2]])
def test_zero_group(errors: list[Exception | None]) -> None:
    """Port of TestZeroGroup: outside a block, the first error stays."""

    @virtual_time
    async def run() -> None:
        g = ErrGroup()
        first = None
        for error in errors:
            await g.go(end, error)
            first = first or error
            if first is None:
                await g.wait()
            else:
                with pytest.raises(ValueError) as caught:
                    await g.wait()
                assert caught.value is first

    run()


@pytest.mark.parametrize(
    ("errors", "want"), [([], None), ([None], None), ([ERR1], ERR1), ([ERR1, None], ERR1), ([ERR1, None, ERR2], ERR1)]
)
def test_with_context(errors: list[Exception | None], want: Exception | None) -> None:
    """Port of TestWithContext: first error only; wait ends the context even on success."""

    @virtual_time
    async def run() -> None:
        caught: Exception | None = None
        g = ErrGroup(background())
        try:
            async with g:
                for error in errors:
                    await g.go(end, error)
        except ValueError as exc:
            caught = exc
        assert caught is want
        assert isinstance(g.ctx.err(), Canceled)
        assert g.ctx.done().try_recv() == (None, False)

    run()


@virtual_time
async def test_try_go() -> None:
    """Port of TestTryGo."""
    g = ErrGroup()
    n = 42
    g.set_limit(n)
    ch = Chan[int]()

    async def send() -> None:
        await ch.send(1)

    for i in range(n):
        assert g.try_go(send), i
    assert not g.try_go(send)

    async def receive() -> None:
        for _ in range(n):
            await ch.recv()

    wg = WaitGroup()
    wg.go(receive)
    await g.wait()
    await wg.wait()

    g2 = ErrGroup(limit=1)
    gate = Chan[None]()
    assert g2.try_go(gate.recv_ok)
    assert not g2.try_go(gate.recv_ok)
    gate.close()
    await g2.wait()

    unlimited = ErrGroup(limit=-1)
    assert all(unlimited.try_go(asyncio.sleep, 0) for _ in range(100))
    await unlimited.wait()
    nothing = ErrGroup(limit=0)
    assert not nothing.try_go(asyncio.sleep, 0)
    await nothing.wait()


@virtual_time
async def test_go_limit() -> None:
    """Port of TestGoLimit: never more than the limit at once."""
    active = [0]
    most = [0]

    async def work() -> None:
        active[0] += 1
        most[0] = max(most[0], active[0])
        await elapse(1)
        active[0] -= 1

    async with ErrGroup(limit=10) as g:
        for _ in range(100):
            await g.go(work)
    assert most == [10]


@virtual_time
async def test_limit_zero_blocks_all() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), ErrGroup(limit=0) as g:
            await g.go(asyncio.sleep, 0)
    assert g.statistics().waiting == 0


@virtual_time
async def test_set_limit_while_active_is_refused() -> None:
    """Port of the panic of SetLimit."""
    async with ErrGroup() as g:
        await g.go(elapse, 1)
        with pytest.raises(WrongArgument, match="1 active"):
            g.set_limit(3)
    with pytest.raises(WrongArgument):
        ErrGroup(limit="3")  # type: ignore[arg-type]


@pytest.mark.parametrize("errors", [[], [None], [ERR1], [ERR1, None], [ERR1, None, ERR2]])
def test_cancel_cause(errors: list[Exception | None]) -> None:
    """Port of TestCancelCause."""

    @virtual_time
    async def run() -> None:
        g = ErrGroup(background())
        for error in errors:
            g.try_go(end, error)
        if errors and errors[0] is not None:
            with pytest.raises(ValueError, match="1"):
                await g.wait()
            assert g.ctx.cause() is ERR1
        else:
            await g.wait()
            assert g.ctx.cause() is g.ctx.err()

    run()


@virtual_time
async def test_a_failure_ends_the_context_first_then_cancels_siblings_and_block() -> None:
    seen: list[object] = []

    async def polite(g: ErrGroup) -> None:
        await g.ctx.done().recv_ok()
        seen.append(g.ctx.cause())

    async def deaf() -> None:
        try:
            await elapse(1000)
        finally:
            seen.append("cancelled")

    with pytest.raises(ValueError) as caught:
        async with ErrGroup(background()) as g:
            await g.go(polite, g)
            await g.go(deaf)
            await asyncio.sleep(0)
            await g.go(end, ERR1)
            await elapse(1000)
    assert caught.value is ERR1
    assert seen == [ERR1, "cancelled"]
    assert g.errors == (ERR1,)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@virtual_time
async def test_a_failing_block_ends_its_tasks_and_keeps_its_own_error() -> None:
    ended = []

    async def deaf() -> None:
        try:
            await elapse(1000)
        finally:
            ended.append(1)

    with pytest.raises(KeyError, match="mine"):
        async with ErrGroup() as g:
            await g.go(deaf)
            await asyncio.sleep(0)
            raise KeyError("mine")
    assert ended == [1]
    assert isinstance(g.ctx.cause(), KeyError)


@virtual_time
async def test_the_end_of_the_parent_ends_the_group() -> None:
    parent = with_timeout(background(), 1)
    with pytest.raises(DeadlineExceeded):  # a block inside a block
        async with ErrGroup(parent) as g:
            await g.go(asyncio.sleep, 1000)
    assert g.ctx.err() is parent.err()


@virtual_time
async def test_a_cancelled_block_waits_for_its_tasks() -> None:
    ended = []

    async def careful() -> None:
        try:
            await elapse(1000)
        finally:
            await elapse(1)
            ended.append(1)

    async def run() -> None:
        async with ErrGroup() as g:
            await g.go(careful)

    task = asyncio.create_task(run())
    await elapse(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


@virtual_time
async def test_a_slot_that_is_granted_to_a_cancelled_caller_goes_to_the_next() -> None:
    g = ErrGroup(limit=1)
    started = []
    gate = Chan[None]()

    async def note(name: str) -> None:
        started.append(name)

    await g.go(gate.recv_ok)
    first = asyncio.create_task(g.go(note, "first"))
    second = asyncio.create_task(g.go(note, "second"))
    await asyncio.sleep(0)
    assert repr(g) == "<ErrGroup 1/1 [2 waiting]>"
    gate.close()
    await asyncio.sleep(0)
    first.cancel()
    await second
    await g.wait()
    assert started in (["second"], ["first", "second"])
    assert g.statistics().active == 0


@virtual_time
async def test_one_context_over_groups_and_values() -> None:
    """Contexts and groups nest: a value of the parent is seen through the group's context."""
    parent = with_value(with_timeout(background(), 10), "user", "ann")
    async with ErrGroup(parent) as g:
        assert g.ctx.value("user") == "ann"
        assert g.ctx.deadline() == parent.deadline()
        assert (await select(g.ctx.done().on_recv(), default=True))[0] == -1


async def test_what_is_no_exception_is_raised_too() -> None:
    """The first failure is raised, of whatever kind it is, and is the cause of the context's end."""

    class Bye(BaseException):
        pass

    async def leave() -> None:
        raise Bye

    with pytest.raises(Bye) as caught:
        async with ErrGroup() as g:
            await g.go(leave)
    assert g.ctx.cause() is caught.value
    assert g.errors == (caught.value,)
