"""`pipeline`, `fan_out`, `fan_in`, `or_done`, `tee`, `bridge`, `batch`: values, ends, failures, no task left."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from fairway.concurrency import (
    CancelContext,
    Chan,
    Closed,
    Flow,
    RecvChan,
    WrongArgument,
    background,
    batch,
    bridge,
    debug,
    fan_in,
    fan_out,
    or_done,
    pipeline,
    select,
    tee,
    with_cancel,
)
from fairway.concurrency.timing import now
from fairway.testing.loop import elapse, virtual_time


def source(values: Iterable[Any]) -> Chan[Any]:
    values = list(values)
    ch: Chan[Any] = Chan(len(values))
    for value in values:
        ch.try_send(value)
    ch.close()
    return ch


async def collect(ch: RecvChan[Any]) -> list[Any]:
    return [value async for value in ch]


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


async def numbers() -> AsyncIterator[int]:
    for i in range(3):
        yield i


@virtual_time
async def test_pipeline_maps_in_order_from_any_source() -> None:
    async with debug.no_leaks():
        ctx = background()
        assert await collect(pipeline(ctx, source(range(5)), double, str)) == ["0", "2", "4", "6", "8"]
        assert await collect(pipeline(ctx, range(3), double)) == [0, 2, 4]
        assert await collect(pipeline(ctx, numbers(), double, double, double, double)) == [0, 16, 32]
        assert await collect(pipeline(ctx, [1, 2])) == [1, 2]


@virtual_time
async def test_stages_work_at_the_same_time() -> None:
    async def slow(x: int) -> int:
        await elapse(1)
        return x

    start = now()
    await collect(pipeline(background(), range(10), slow, slow, slow))
    assert now() - start == pytest.approx(12)


@virtual_time
async def test_fan_out_gives_each_value_to_one_and_fan_in_merges() -> None:
    async with debug.no_leaks():
        outs = fan_out(background(), source(range(30)), 3)
        assert len(outs) == 3
        assert sorted(await collect(fan_in(background(), *outs))) == list(range(30))
        assert await collect(fan_in(background())) == []


@virtual_time
async def test_a_slow_reader_of_a_fan_out_holds_nobody_up() -> None:
    a, b = fan_out(background(), source(range(4)), 2)
    first = await a.recv()
    rest = [await b.recv() for _ in range(2)]
    assert len({first, *rest}) == 3
    await a.aclose()
    assert await collect(b) == []


@virtual_time
async def test_tee_gives_every_value_to_all() -> None:
    async with debug.no_leaks():
        a, b = tee(background(), source(range(5)))
        assert await asyncio.gather(collect(a), collect(b)) == [list(range(5))] * 2
        three = tee(background(), source("xy"), 3)
        assert await asyncio.gather(*map(collect, three)) == [["x", "y"]] * 3


@virtual_time
async def test_bridge_reads_channel_after_channel() -> None:
    sources = source([source([1, 2]), source([]), source([3])])
    assert await collect(bridge(background(), sources)) == [1, 2, 3]


@virtual_time
async def test_batch_by_size_by_time_and_at_the_end() -> None:
    async with debug.no_leaks():
        assert await collect(batch(background(), source(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
        assert await collect(batch(background(), source([]), 3)) == []
        ch = Chan[int]()
        out = batch(background(), ch, 3, timeout=5)
        start = now()
        await ch.send(1)
        await elapse(2)
        await ch.send(2)
        assert await out.recv() == [1, 2]
        assert now() - start == pytest.approx(5), "counted from the first value"
        await elapse(100)
        assert out.try_recv() is None, "no batch is empty"
        for i in (3, 4, 5):
            await ch.send(i)
        assert await out.recv() == [3, 4, 5]
        ch.close()
        assert await out.recv_ok() == (None, False)


@pytest.mark.parametrize("kind", ["pipeline", "fan_out", "fan_in", "or_done", "tee", "bridge", "batch"])
def test_the_end_of_the_context_ends_everything(kind: str) -> None:
    def make(ctx: CancelContext) -> list[Flow[Any]]:
        idle: Chan[Any] = Chan()
        flows: dict[str, Any] = {
            "pipeline": lambda: [pipeline(ctx, idle, double, str)],
            "fan_out": lambda: fan_out(ctx, idle, 3),
            "fan_in": lambda: [fan_in(ctx, idle, Chan[Any]())],
            "or_done": lambda: [or_done(ctx, idle)],
            "tee": lambda: list(tee(ctx, idle)),
            "bridge": lambda: [bridge(ctx, source([idle]))],
            "batch": lambda: [batch(ctx, idle, 2, timeout=1000)],
        }
        made: list[Flow[Any]] = flows[kind]()
        return made

    @virtual_time
    async def run() -> None:
        async with debug.no_leaks():
            ctx = with_cancel(background())
            outs = make(ctx)
            receivers = [asyncio.create_task(collect(out)) for out in outs]
            await elapse(1)
            ctx.cancel()
            assert await asyncio.gather(*receivers) == [[] for _ in outs]
            assert [await collect(out) for out in make(ctx)] == [[] for _ in outs], "of an ended context, at once"

    run()


@virtual_time
async def test_or_done_ends_a_loop_over_a_channel_that_nobody_closes() -> None:
    ctx = with_cancel(background())
    ch = Chan[int](3)
    await ch.send_many([1, 2, 3])
    got = []
    async for value in or_done(ctx, ch):
        got.append(value)
        if value == 3:
            asyncio.get_running_loop().call_later(1, ctx.cancel)
    assert got == [1, 2, 3]


def fail_at_two(x: int) -> int:
    if x == 2:
        raise ValueError("two")
    return x


@virtual_time
async def test_a_failing_stage_stops_all_and_the_receiver_gets_it() -> None:
    async with debug.no_leaks():
        for stages in ((fail_at_two,), (fail_at_two, double), (double, fail_at_two), (double, fail_at_two, double)):
            out = pipeline(background(), range(100), *stages)
            with pytest.raises(ValueError, match="two"):
                await collect(out)
            with pytest.raises(ValueError, match="two"):
                await out.recv()
            with pytest.raises(ValueError, match="two"):
                await out.recv_ok()
            with pytest.raises(ValueError, match="two"):
                await out.recv_many(5)
            with pytest.raises(ValueError, match="two"):
                out.try_recv()
            assert await select(out.on_recv()) == (0, None, False)
            assert isinstance(out.failure, ValueError)


@virtual_time
async def test_a_failure_travels_through_what_is_joined_behind() -> None:
    broken = pipeline(background(), range(5), fail_at_two)
    with pytest.raises(ValueError, match="two"):
        await collect(batch(background(), fan_in(background(), broken), 10))


@virtual_time
async def test_a_flow_as_a_block_stops_its_tasks() -> None:
    async with debug.no_leaks():
        async with pipeline(background(), range(100), double) as out:
            assert await out.recv() == 0
            assert await out.recv_many(2) == [2]
        with pytest.raises(Closed):
            await out.recv()
        with pytest.raises(ValueError, match="two"):
            async with pipeline(background(), range(100), fail_at_two) as out:
                await asyncio.sleep(0)
                await collect(out)


@virtual_time
async def test_a_failure_that_nobody_receives_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        out: Any = pipeline(background(), [2], fail_at_two)
        await elapse(1)
        del out
        gc.collect()
    assert "a pipeline failed and nobody received its end: ValueError('two')" in caplog.text


@virtual_time
async def test_arguments() -> None:
    ch = Chan[int]()
    for make in (
        lambda: fan_out(background(), ch, 0),
        lambda: tee(background(), ch, 0),
        lambda: batch(background(), ch, 0),
        lambda: batch(background(), ch, 1, timeout=0),
        lambda: or_done(None, ch),  # type: ignore[arg-type]
    ):
        with pytest.raises(WrongArgument, match="expected"):
            make()


async def test_or_done_ends_promptly_when_its_reader_ends_the_context() -> None:
    ctx, source, got = with_cancel(background()), Chan[int](), []
    producer = asyncio.create_task(source.send_many(range(1000)))
    async for value in or_done(ctx, source):
        got.append(value)
        if value == 3:
            ctx.cancel()
    producer.cancel()
    assert got[:4] == [0, 1, 2, 3]
    assert len(got) <= 6


async def test_fan_in_takes_a_list_of_channels_as_each_of_them() -> None:
    """What `fan_out` returns can be handed on as it is."""
    source = Chan[int](10)
    await source.send_many(range(10))
    source.close()
    assert sorted(await collect(fan_in(background(), fan_out(background(), source, 3)))) == list(range(10))


async def test_a_stage_that_fails_with_no_exception_surfaces_too() -> None:
    class Bye(BaseException):
        pass

    async def leave(_value: int) -> int:
        raise Bye

    source = Chan[int](1)
    await source.send(1)
    with pytest.raises(Bye):
        await collect(pipeline(background(), source, leave))
