"""Go's tests of `select` (`test/chan/*`, `runtime/chan_test.go`, `reflect`'s TestSelect), on both kinds of channel."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fairway.concurrency import Chan, SendOnClosed, SharedChan, WrongArgument, nil, select

AnyChan = Chan[Any] | SharedChan[Any]
Make = Callable[[int], AnyChan]
DEFAULT = (-1, None, False)


@pytest.fixture(params=[Chan, SharedChan], ids=["Chan", "SharedChan"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


async def turns(n: int = 3) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def blocked(ch: AnyChan) -> tuple[int, int]:
    statistics = ch.statistics()
    return statistics.blocked_senders, statistics.blocked_receivers


async def test_nil_and_never_ready_cases_are_not_chosen(make: Make) -> None:
    """select3.go: nil channels never proceed, default is taken; a ready case beats default."""
    unready, full, ready = make(0), make(1), make(1)
    await full.send(1)
    assert await select(nil.on_recv(), nil.on_send(1), default=True) == DEFAULT
    assert await select(default=True) == DEFAULT
    assert await select(unready.on_recv(), full.on_send(2), default=True) == DEFAULT
    for _ in range(50):
        assert await select(nil.on_recv(), ready.on_send(7), unready.on_recv(), default=True) == (1, None, True)
        assert await select(nil.on_recv(), ready.on_recv(), unready.on_send(1), default=True) == (1, 7, True)


async def test_select_without_cases_blocks_until_its_timeout() -> None:
    """select3.go: an empty select blocks for ever; here a timeout may end it."""
    task = asyncio.ensure_future(select())
    await turns(10)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await select(timeout=0.001) == DEFAULT
    assert await select(nil.on_recv(), timeout=0.001) == DEFAULT


async def test_blocked_select_takes_what_comes(make: Make) -> None:
    """select3.go: a select that blocks proceeds with the first case that becomes ready, receive or send."""
    a, b = make(0), make(0)
    task = asyncio.ensure_future(select(a.on_recv(), b.on_send("out"), nil.on_recv()))
    await turns()
    assert blocked(a) == (0, 1)
    assert blocked(b) == (1, 0)
    assert b.try_recv() == ("out", True)
    assert await task == (1, None, True)
    task = asyncio.ensure_future(select(a.on_recv(), b.on_send("out")))
    await turns()
    assert a.try_send("in")
    assert await task == (0, "in", True)
    assert blocked(a) == blocked(b) == (0, 0)


async def test_exactly_one_case_fires(make: Make) -> None:
    """doubleselect.go: a value sent by one of several cases arrives once."""
    lanes, done, received = [make(0) for _ in range(4)], make(0), list[int]()

    async def send() -> None:
        for value in range(500):
            await select(*(lane.on_send(value) for lane in lanes))
        for lane in lanes:
            lane.close()

    async def forward(lane: AnyChan) -> None:
        async for value in lane:
            await done.send(value)

    async def forward_all() -> None:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(forward(lane))
        done.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        group.create_task(forward_all())
        received = [value async for value in done]
    assert sorted(received) == list(range(500))


async def test_two_sides_ready_at_once_fire_once(make: Make) -> None:
    """doubleselect.go, the core: a second passer in the same turn finds the select decided."""
    a, b = make(0), make(0)
    task = asyncio.ensure_future(select(a.on_recv(), b.on_recv()))
    await turns()
    assert a.try_send(1)
    assert not b.try_send(2)
    assert blocked(b) == (0, 0)
    assert await task == (0, 1, True)
    task = asyncio.ensure_future(select(a.on_send(1), b.on_send(2)))
    await turns()
    assert b.try_recv() == (2, True)
    assert a.try_recv() is None
    assert await task == (1, None, True)


@pytest.mark.parametrize("cap", [0, 10])
async def test_select_never_matches_itself(make: Make, cap: int) -> None:
    """TestSelfSelect: send and receive on one channel in one select; with capacity 0 it never meets itself."""
    ch = make(cap)

    async def play(number: int) -> None:
        for turn in range(200):
            index, value, ok = await select(ch.on_send(number), ch.on_recv())
            if turn % 2:
                index, value, ok = await select(ch.on_recv(), ch.on_send(number))
                index = 1 - index
            assert ok
            if index == 1 and cap == 0:
                assert value != number

    async with asyncio.TaskGroup() as group:
        players = [group.create_task(play(number)) for number in range(2)]
        while not all(player.done() for player in players):
            await asyncio.sleep(0)
            if sum(player.done() for player in players) == 1:
                ch.try_send(9) or ch.try_recv()


async def test_select_alone_does_not_meet_itself(make: Make) -> None:
    """TestSelfSelect, the core: one task with both cases on an unbuffered channel stays blocked."""
    ch = make(0)
    assert await select(ch.on_send(1), ch.on_recv(), default=True) == DEFAULT
    assert await select(ch.on_send(1), ch.on_recv(), timeout=0.001) == DEFAULT
    assert blocked(ch) == (0, 0)


async def test_losers_are_dequeued(make: Make) -> None:
    """select6.go: a select leaves the queues of the cases that lost, duplicates included."""
    a, b, c = make(0), make(0), make(0)
    task = asyncio.ensure_future(select(a.on_recv(), b.on_recv(), a.on_recv(), c.on_send(1)))
    await turns()
    assert (blocked(a), blocked(b), blocked(c)) == ((0, 2), (0, 1), (1, 0))
    later = asyncio.ensure_future(a.recv())
    await turns()
    assert b.try_send("b")
    assert await task == (1, "b", True)
    assert (blocked(a), blocked(b), blocked(c)) == ((0, 1), (0, 0), (0, 0))
    assert a.try_send("a")
    assert await later == "a"
    assert c.try_recv() is None


async def test_duplicate_channel(make: Make) -> None:
    """TestSelectDuplicateChannel: the waiter beside a select that names a channel twice is not disturbed."""
    c, d, e = make(0), make(0), make(0)
    first = asyncio.ensure_future(select(c.on_recv(), c.on_recv(), d.on_recv()))
    await turns()
    second = asyncio.ensure_future(select(c.on_recv(), e.on_recv()))
    await turns()
    await d.send(7)
    assert await first == (2, 7, True)
    await e.send(8)
    assert await second == (1, 8, True)
    assert blocked(c) == (0, 0)


async def test_idle_channels_do_not_leak(make: Make) -> None:
    """select2.go: 100,000 selects over a busy and an idle channel leave nothing at the idle one."""
    busy, idle = make(0), make(0)

    async def send() -> None:
        for value in range(2000):
            await busy.send(value)

    sender = asyncio.ensure_future(send())
    beside = asyncio.ensure_future(idle.recv())
    await turns()
    for value in range(2000):
        assert await select(busy.on_recv(), idle.on_recv()) == (0, value, True)
    await sender
    assert blocked(idle) == (0, 1)
    assert entries(idle) < 64
    idle.close()
    await asyncio.gather(beside, return_exceptions=True)


def entries(ch: AnyChan) -> int:
    """How many entries stand in the channel's queues, dead ones included."""
    if isinstance(ch, SharedChan):
        return len(ch.queue_for(True)) + len(ch.queue_for(False))
    return len(ch._recvq) + len(ch._sendq)


async def test_cancelled_waiters_in_the_middle_do_not_pile_up(make: Make) -> None:
    """select2.go's concern for plain waiters: removal is O(1) amortised and memory stays bounded."""
    ch = make(0)
    first, last = asyncio.ensure_future(ch.recv()), None
    await turns()
    for _ in range(300):
        middle = asyncio.ensure_future(ch.recv())
        await asyncio.sleep(0)
        previous, last = last, asyncio.ensure_future(ch.recv())
        await asyncio.sleep(0)
        middle.cancel()
        if previous is not None:
            previous.cancel()
        await turns()
        assert entries(ch) <= 64
    assert blocked(ch) == (0, 2)
    ch.close()
    assert last is not None
    await asyncio.gather(first, last, return_exceptions=True)


async def test_choice_is_fair(make: Make) -> None:
    """TestSelectFairness: with several cases ready, each is chosen about as often."""
    lanes = [make(1000) for _ in range(4)]
    for lane in lanes:
        await lane.send_many(range(1000))
    idle = make(0)
    counts: Counter[int] = Counter()
    for _ in range(1000):
        index, _, _ = await select(lanes[0].on_recv(), idle.on_recv(), *(lane.on_recv() for lane in lanes[1:]))
        counts[index] += 1
    assert set(counts) == {0, 2, 3, 4}
    assert all(180 < count < 320 for count in counts.values())


async def test_send_choice_is_random(make: Make) -> None:
    """TestPseudoRandomSend: two ready sends on one channel give both values often."""
    ch = make(500)
    for _ in range(500):
        await select(ch.on_send(0), ch.on_send(1))
    ones = sum(await ch.recv_many(500))
    assert 150 < ones < 350


async def test_pseudo_random_send_when_the_receiver_comes_later(make: Make) -> None:
    """TestPseudoRandomSend, unbuffered: a select that waits in two cases of one channel gives both values often."""
    ch, n = make(0), 200

    async def receive() -> list[Any]:
        values = []
        for _ in range(n):
            await asyncio.sleep(0)
            values.append(await ch.recv())
        return values

    receiving = asyncio.create_task(receive())
    for _ in range(n):
        await select(ch.on_send(0), ch.on_send(1))
    assert n // 10 < sum(await receiving) < n - n // 10


async def test_operands_are_evaluated_once_in_source_order(make: Make) -> None:
    """select5.go: every channel and value of a select is evaluated exactly once, top to bottom."""
    log: list[str] = []
    ready, other = make(1), make(1)

    def see(name: str, value: Any) -> Any:
        log.append(name)
        return value

    await select(
        see("c0", ready).on_send(see("v0", 1)),
        see("c1", nil).on_recv(),
        see("c2", other).on_send(see("v2", 2)),
        default=see("default", True),
    )
    assert log == ["c0", "v0", "c1", "c2", "v2", "default"]


async def test_select_acts_at_one_instant() -> None:
    """TestNonblockSelectRace: with a value always in one of two channels, default is never chosen."""
    for _ in range(200):
        a, b = Chan[int](1), Chan[int](1)
        await a.send(1)
        results: list[Any] = []

        async def poll(a: Chan[int] = a, b: Chan[int] = b, results: list[Any] = results) -> None:
            results.append(await select(a.on_recv(), b.on_recv(), default=True))

        task = asyncio.ensure_future(poll())
        b.try_send(1)
        a.try_recv()
        await task
        assert results == [(1, 1, True)]


async def test_closed_channels_in_select(make: Make) -> None:
    """closedchan.go: a closed channel's receive is always ready; its send, if chosen, is an error."""
    closed, open_ = make(0), make(1)
    closed.close()
    assert await select(closed.on_recv(), open_.on_recv()) == (0, None, False)
    with pytest.raises(SendOnClosed):
        await select(closed.on_send(1), open_.on_recv())
    outcomes: Counter[str] = Counter()
    for _ in range(100):
        try:
            await select(closed.on_send(1), open_.on_send(1))
            outcomes["sent"] += 1
            open_.try_recv()
        except SendOnClosed:
            outcomes["error"] += 1
    assert outcomes["sent"] > 20
    assert outcomes["error"] > 20
    assert len(open_) == 0


@pytest.mark.parametrize("kinds", list(itertools.product(range(8), repeat=2)), ids=str)
async def test_exhaustive_pairs(make: Make, kinds: tuple[int, int]) -> None:
    """reflect TestSelect, exhaustive: every pair of ready, blocked, closed and nil sends and receives, with default."""
    from fairway.concurrency import Case

    cases: list[Case[Any]] = []
    expected: list[Any] = []
    for index, kind in enumerate(kinds):
        case, outcomes = await _one_case(make, kind, index)
        cases.append(case)
        expected += outcomes
    try:
        result: Any = await select(*cases, default=True)
    except SendOnClosed:
        result = "error"
    assert result in (expected or [DEFAULT])


async def _one_case(make: Make, kind: int, index: int) -> tuple[Any, list[Any]]:
    """Return a case and the outcomes that it allows, if any."""
    ch = make(1)
    match kind:
        case 0:  # ready receive
            await ch.send(5)
            return ch.on_recv(), [(index, 5, True)]
        case 1:  # blocked receive
            return ch.on_recv(), []
        case 2:  # receive from a closed, drained channel
            ch.close()
            return ch.on_recv(), [(index, None, False)]
        case 3:  # receive from a closed channel that still holds a value
            await ch.send(6)
            ch.close()
            return ch.on_recv(), [(index, 6, True)]
        case 4:  # ready send
            return ch.on_send(1), [(index, None, True)]
        case 5:  # blocked send
            await ch.send(1)
            return ch.on_send(1), []
        case 6:  # send on a closed channel
            ch.close()
            return ch.on_send(1), ["error"]
        case _:  # nil
            return nil.on_recv(), []


async def test_random_mixes_deliver_each_value_once(make: Make) -> None:
    """TestSelectStress: senders and receivers over four channels, plain and in selects, lose and double nothing."""
    rng = random.Random(4)
    lanes = [make(cap) for cap in (0, 0, 2, 3)]
    got: list[list[int]] = [[] for _ in lanes]
    total = 100

    async def plain_send(lane: AnyChan) -> None:
        for value in range(total):
            await lane.send(value)

    async def plain_recv(number: int) -> None:
        for _ in range(total):
            got[number].append(await lanes[number].recv())

    async def select_send() -> None:
        at = [0] * 4
        while any(count < total for count in at):
            live = [lane.on_send(total + at[i]) if at[i] < total else nil.on_send(0) for i, lane in enumerate(lanes)]
            index, _, _ = await select(*live)
            at[index] += 1
            if rng.random() < 0.1:
                await asyncio.sleep(0)

    async def select_recv() -> None:
        left = [total] * 4
        while any(left):
            index, value, _ = await select(
                *(lane.on_recv() if left[i] else nil.on_recv() for i, lane in enumerate(lanes))
            )
            got[index].append(value)
            left[index] -= 1

    async with asyncio.TaskGroup() as group:
        for number, lane in enumerate(lanes):
            group.create_task(plain_send(lane))
            group.create_task(plain_recv(number))
        group.create_task(select_send())
        group.create_task(select_recv())
    assert all(sorted(values) == list(range(2 * total)) for values in got)


async def test_mixed_kinds_in_one_select() -> None:
    """A select may join channels of one loop and shared ones."""
    local, shared = Chan[int](0), SharedChan[int](0)
    task = asyncio.ensure_future(select(local.on_recv(), shared.on_recv(), nil.on_recv()))
    await turns()
    assert local.try_send(1)
    assert await task == (0, 1, True)
    assert blocked(shared) == (0, 0)
    task = asyncio.ensure_future(select(local.on_send(1), shared.on_send(2)))
    await turns()
    assert shared.try_recv() == (2, True)
    assert local.try_recv() is None
    assert await task == (1, None, True)
    assert await select(local.on_recv(), shared.on_recv(), default=True) == DEFAULT
    assert await select(local.on_recv(), shared.on_recv(), timeout=0.001) == DEFAULT


@pytest.mark.parametrize("timeout", [-1, "1", float("nan"), True])
async def test_timeout_is_checked(make: Make, timeout: Any) -> None:
    with pytest.raises(WrongArgument, match="timeout in seconds >= 0 or None, got"):
        await select(make(0).on_recv(), timeout=timeout)


async def test_cases_are_checked(make: Make) -> None:
    with pytest.raises(WrongArgument, match="made by on_recv"):
        await select(make(0).receiver)  # type: ignore[call-overload]
    with pytest.raises(WrongArgument, match="made by on_recv"):
        await select(make(0).on_recv(), 3)  # type: ignore[call-overload]


async def test_timeout_result_and_timeout_zero(make: Make) -> None:
    """time.After in a select: a timeout that runs out gives (-1, None, False); 0 does not wait."""
    ch = make(0)
    assert await select(ch.on_recv(), timeout=0.001) == DEFAULT
    assert await select(ch.on_recv(), timeout=0) == DEFAULT
    assert blocked(ch) == (0, 0)
    task = asyncio.ensure_future(select(ch.on_recv(), timeout=60))
    await turns()
    assert ch.try_send(1)
    assert await task == (0, 1, True)


async def test_a_decided_select_keeps_nothing_alive(make: Make) -> None:
    """select2.go's concern: values of losing sends are released."""

    class Big:
        alive = 0

        def __init__(self) -> None:
            Big.alive += 1

        def __del__(self) -> None:
            Big.alive -= 1

    a, b = make(0), make(0)
    for _ in range(20):
        task = asyncio.ensure_future(select(a.on_send(Big()), b.on_recv()))
        await turns()
        b.try_send(1)
        await task
    del task
    gc.collect()
    assert Big.alive == 0
