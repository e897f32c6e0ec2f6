"""Go's `runtime/chan_test.go` and `test/chan/*` for channels, on `Chan` and on `SharedChan`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from fairway.concurrency import (
    Chan,
    Closed,
    CloseOfClosed,
    CloseOfNil,
    SendOnClosed,
    SharedChan,
    WrongArgument,
    nil,
    select,
)

AnyChan = Chan[Any] | SharedChan[Any]
Make = Callable[[int], AnyChan]


@pytest.fixture(params=[Chan, SharedChan], ids=["Chan", "SharedChan"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


async def turns(n: int = 3) -> None:
    """Let every task that can run do so."""
    for _ in range(n):
        await asyncio.sleep(0)


async def parked(operation: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start `operation` and see it block."""
    task = asyncio.ensure_future(operation)
    await turns()
    assert not task.done()
    return task


@pytest.mark.parametrize("cap", range(5))
async def test_receive_on_empty_blocks(make: Make, cap: int) -> None:
    """TestChan: "Ensure that receive from empty chan blocks", and that the non-blocking form does not."""
    ch = make(cap)
    first, second = await parked(ch.recv()), await parked(ch.recv_ok())
    third, fourth = await parked(ch.__anext__()), await parked(ch.recv_many(3))
    assert ch.try_recv() is None
    assert await select(ch.on_recv(), default=True) == (-1, None, False)
    for value in range(4):
        await ch.send(value)
    assert await asyncio.gather(first, second, third, fourth) == [0, (1, True), 2, [3]]


@pytest.mark.parametrize("cap", range(5))
async def test_send_on_full_blocks(make: Make, cap: int) -> None:
    """TestChan: "Ensure that send to full chan blocks", and that the non-blocking form does not."""
    ch = make(cap)
    for value in range(cap):
        await ch.send(value)
    blocked = await parked(ch.send(cap))
    assert not ch.try_send(99)
    assert await select(ch.on_send(99), default=True) == (-1, None, False)
    assert [await ch.recv() for _ in range(cap + 1)] == list(range(cap + 1))
    await blocked
    assert ch.try_recv() is None


@pytest.mark.parametrize("cap", range(5))
async def test_close_drains_then_reports_the_end(make: Make, cap: int) -> None:
    """TestChan: "Ensure that we receive 0 from closed chan" after what was buffered."""
    ch = make(cap)
    for value in range(cap):
        assert ch.try_send(value)
    ch.close()
    assert ch.closed
    for value in range(cap):
        assert await ch.recv_ok() == (value, True)
    assert await ch.recv_ok() == (None, False)
    assert ch.try_recv() == (None, False)
    assert await ch.recv_many(2) == []
    assert [value async for value in ch] == []
    assert await select(ch.on_recv()) == (0, None, False)
    assert await select(ch.on_recv(), default=True) == (0, None, False)
    with pytest.raises(Closed):
        await ch.recv()


async def test_close_wakes_blocked_receivers(make: Make) -> None:
    """TestChan: "Ensure that close unblocks receive"."""
    ch = make(0)

    async def drain() -> list[Any]:
        return [value async for value in ch]

    operations = (ch.recv(), ch.recv_ok(), drain(), ch.recv_many(2), select(ch.on_recv()))
    waiting = [await parked(operation) for operation in operations]
    ch.close()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], Closed)
    assert done[1:] == [(None, False), [], [], (0, None, False)]


async def test_close_wakes_blocked_senders_with_an_error(make: Make) -> None:
    """Go has no test for it: a sender that is blocked when the channel closes panics; so does a select."""
    ch = make(1)
    await ch.send("kept")
    waiting = [await parked(ch.send(1)), await parked(select(ch.on_send(2))), await parked(ch.send_many([3, 4]))]
    ch.close()
    for task in waiting:
        with pytest.raises(SendOnClosed):
            await task
    assert await ch.recv_ok() == ("kept", True)
    assert await ch.recv_ok() == (None, False)


async def test_closed_channel_refuses_sends_and_a_second_close(make: Make) -> None:
    """closedchan.go: send on closed panics, also with default; close of closed panics."""
    ch = make(2)
    ch.close()
    with pytest.raises(SendOnClosed):
        await ch.send(1)
    with pytest.raises(SendOnClosed):
        ch.try_send(1)
    with pytest.raises(SendOnClosed) as failed:
        await ch.send_many([1, 2])
    assert failed.value.sent == 0
    with pytest.raises(SendOnClosed):
        await select(ch.on_send(1))
    with pytest.raises(SendOnClosed):
        await select(ch.on_send(1), default=True)
    with pytest.raises(CloseOfClosed):
        ch.close()


async def test_close_of_nil_is_an_error() -> None:
    """closedchan.go: close of nil panics."""
    with pytest.raises(CloseOfNil):
        nil.close()
    with pytest.raises(CloseOfNil):
        with nil.sender:
            assert nil


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
async def test_values_are_fifo(make: Make, cap: int) -> None:
    """TestChan: "Send 100 integers, ensure that we receive them non-corrupted in FIFO order"."""
    ch = make(cap)

    async def produce() -> None:
        for value in range(100):
            await ch.send(value)
        ch.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        assert [value async for value in ch] == list(range(100))


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
async def test_many_senders_and_receivers_lose_nothing(make: Make, cap: int) -> None:
    """TestChan: "Send 1000 integers in 4 goroutines, ensure that we receive what we send"."""
    ch, count, got = make(cap), 250, list[int]()

    async def produce() -> None:
        for value in range(count):
            await ch.send(value)

    async def consume() -> None:
        for _ in range(count):
            got.append(await ch.recv())

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(produce())
            group.create_task(consume())
    assert sorted(got) == sorted(list(range(count)) * 4)


async def test_waiters_are_fifo(make: Make) -> None:
    """fifo.go: AsynchFifo and SynchFifo, waiters are served in the order in which they came."""
    ch, order = make(0), list[tuple[int, Any]]()

    async def receiver(number: int) -> None:
        order.append((number, await ch.recv()))

    receivers = [await parked(receiver(number)) for number in range(10)]
    for value in range(10):
        await ch.send(value)
    await asyncio.gather(*receivers)
    assert order == [(number, number) for number in range(10)]
    senders = [await parked(ch.send(value)) for value in range(10)]
    assert [await ch.recv() for _ in range(10)] == list(range(10))
    await asyncio.gather(*senders)


async def test_len_and_cap(make: Make) -> None:
    """chancap.go and TestChan: "Check that len/cap work"."""
    ch = make(10)
    assert (len(ch), ch.cap, bool(ch)) == (0, 10, True)
    for value in range(10):
        assert len(ch) == value
        ch.try_send(value)
    assert len(ch) == 10
    assert (len(make(0)), make(0).cap) == (0, 0)
    assert (len(nil), nil.cap, bool(nil)) == (0, 0, True)


@pytest.mark.parametrize("cap", [-1, 1.5, "2", None, True])
def test_capacity_is_checked(make: Make, cap: Any) -> None:
    """chancap.go: makechan with a size out of range panics."""
    with pytest.raises(WrongArgument, match="int >= 0, got"):
        make(cap)


@pytest.mark.parametrize("n", [0, -1, 2.0, "1", True])
async def test_batch_size_is_checked(make: Make, n: Any) -> None:
    with pytest.raises(WrongArgument, match="int >= 1, got"):
        await make(1).recv_many(n)


async def test_nonblocking_receive_is_never_falsely_not_ready_at_close(make: Make) -> None:
    """TestNonblockRecvRace: a receive with default beside close sees the value or the end, never "not ready"."""
    for poll_first in (True, False) * 20:
        ch, got = make(1), list[Any]()
        assert ch.try_send(1)
        steps = [lambda ch=ch, got=got: got.append(ch.try_recv()), ch.close]
        for step in steps if poll_first else reversed(steps):
            asyncio.get_running_loop().call_soon(step)
        await turns()
        assert got == [(1, True)]
        assert await select(ch.on_recv(), default=True) == (0, None, False)


async def test_range_over_many_consumers_loses_nothing(make: Make) -> None:
    """TestMultiConsumer: range ends after close with no loss over 23 consumers."""
    work, results, sources = make(23 * 5), make(23 * 5), [2, 3, 5, 7, 11, 13, 17, 19, 23, 27, 31]

    async def worker() -> None:
        async for value in work:
            if sources[value % 11] == value % 11:
                await asyncio.sleep(0)
            await results.send(value)

    async def feed() -> int:
        expected = 0
        for index in range(2300):
            expected += sources[index % 11]
            await work.send(sources[index % 11])
        work.close()
        return expected

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(23):
                group.create_task(worker())
        results.close()

    async with asyncio.TaskGroup() as group:
        fed = group.create_task(feed())
        group.create_task(run())
        total = sum([value async for value in results])
    assert total == await fed


async def test_hand_off_bypasses_the_buffer(make: Make) -> None:
    """runtime/chan.go, chansend: a waiting receiver gets the value directly, the buffer stays empty."""
    ch = make(3)
    waiting = await parked(ch.recv())
    assert ch.try_send("direct")
    assert len(ch) == 0
    assert ch.try_send("buffered")
    assert len(ch) == 1
    assert await waiting == "direct"


async def test_receive_from_full_buffer_refills_from_the_head_sender(make: Make) -> None:
    """runtime/chan.go, recv: on a full buffer the head is taken and the first sender's value goes to the tail."""
    ch = make(2)
    await ch.send_many([1, 2])
    third, fourth = await parked(ch.send(3)), await parked(ch.send(4))
    assert ch.try_recv() == (1, True)
    assert len(ch) == 2
    await third
    assert not fourth.done()
    assert await ch.recv_many(10) == [2, 3, 4]
    await fourth


async def test_nil_blocks_for_ever() -> None:
    """select3.go: send, receive and every other waiting operation on nil block; the others are not ready."""
    operations: list[Awaitable[Any]] = [nil.send(1), nil.recv(), nil.recv_ok(), nil.recv_many(1), nil.__anext__()]
    operations += [nil.send_many([1]), select(), select(nil.on_recv(), nil.on_send(1))]
    tasks = [asyncio.ensure_future(operation) for operation in operations]
    await turns(10)
    assert not any(task.done() for task in tasks)
    assert nil.try_recv() is None
    assert nil.try_send(1) is False
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in done} == {asyncio.CancelledError}


async def test_recv_many_takes_what_is_ready(make: Make) -> None:
    """The batch form: 1 to n items, blocked senders included, [] once closed and drained."""
    ch = make(2)
    sender = await parked(ch.send_many(range(6)))
    assert await ch.recv_many(2) == [0, 1]
    assert await ch.recv_many(5) == [2]
    await turns()
    assert await ch.recv_many(10) == [3, 4, 5]
    await sender
    unbuffered = make(0)
    senders = [await parked(unbuffered.send(value)) for value in range(4)]
    assert await unbuffered.recv_many(3) == [0, 1, 2]
    assert await unbuffered.recv_many(3) == [3]
    await asyncio.gather(*senders)
    ch.close()
    assert await ch.recv_many(1) == []


async def test_send_many_of_an_iterable_fetches_one_item_at_a_time(make: Make) -> None:
    """An iterator may use the channel itself; nothing is fetched before there is room for it."""
    ch, fetched = make(1), list[int]()

    def items() -> Any:
        for value in range(3):
            fetched.append(len(ch))
            yield value

    sender = await parked(ch.send_many(items()))
    assert len(fetched) == 2
    assert [await ch.recv() for _ in range(3)] == [0, 1, 2]
    await sender
    await ch.send_many([])


async def test_send_many_counts_what_was_accepted_before_close(make: Make) -> None:
    ch = make(2)
    sender = await parked(ch.send_many([1, 2, 3, 4]))
    assert ch.try_recv() == (1, True)
    await turns()
    ch.close()
    with pytest.raises(SendOnClosed) as failed:
        await sender
    assert failed.value.sent == 3
    assert [value async for value in ch] == [2, 3]


async def test_none_and_falsy_values_travel(make: Make) -> None:
    """zerosize.go: a channel of empty values keeps count; None is a value like any other."""
    ch = make(3)
    await ch.send_many([None, False, ()])
    assert [await ch.recv_ok() for _ in range(3)] == [(None, True), (False, True), ((), True)]


async def test_sieve(make: Make) -> None:
    """sieve1.go: the prime sieve, a chain of unbuffered channels."""

    async def generate(ch: AnyChan) -> None:
        value = 2
        while True:
            await ch.send(value)
            value += 1

    async def keep(source: AnyChan, out: AnyChan, prime: int) -> None:
        async for value in source:
            if value % prime:
                await out.send(value)

    tasks, head, primes = [], make(0), list[int]()
    tasks.append(asyncio.ensure_future(generate(head)))
    for _ in range(15):
        prime = await head.recv()
        primes.append(prime)
        following = make(0)
        tasks.append(asyncio.ensure_future(keep(head, following, prime)))
        head = following
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert primes == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]


async def test_chain_of_a_thousand_tasks(make: Make) -> None:
    """goroutines.go: a value runs through a long chain of unbuffered channels."""

    async def link(source: AnyChan, out: AnyChan) -> None:
        await out.send(await source.recv() + 1)

    first = make(0)
    last, tasks = first, []
    for _ in range(1000):
        following = make(0)
        tasks.append(asyncio.ensure_future(link(last, following)))
        last = following
    await turns()
    sender = asyncio.ensure_future(first.send(0))
    assert await last.recv() == 1000
    await asyncio.gather(sender, *tasks)


async def test_semaphore_pattern(make: Make) -> None:
    """TestPseudoRandomSend's neighbour, the classic bounded section: capacity bounds the holders."""
    slots, holders, most = make(3), 0, 0

    async def use() -> None:
        nonlocal holders, most
        await slots.send(None)
        holders += 1
        most = max(most, holders)
        await asyncio.sleep(0)
        holders -= 1
        await slots.recv()

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(use())
    assert most == 3


async def test_views_go_one_way_and_close_on_exit(make: Make) -> None:
    """perm.go: a direction is a type of its own; here it holds at run time too."""
    ch = make(2)
    sender, receiver = ch.sender, ch.receiver
    assert not hasattr(sender, "recv")
    assert not hasattr(receiver, "send")
    assert not hasattr(receiver, "close")
    with sender as out:
        await out.send(1)
        assert out.try_send(2)
        assert not out.try_send(3)
        assert (len(out), out.cap, bool(out)) == (2, 2, True)
    assert ch.closed
    assert sender.closed
    assert receiver.closed
    assert (await receiver.recv(), await receiver.recv_ok(), receiver.try_recv()) == (1, (2, True), (None, False))
    assert [value async for value in receiver] == []
    assert await receiver.recv_many(2) == []
    assert sender.statistics() == receiver.statistics() == ch.statistics()
    assert (len(receiver), receiver.cap) == (0, 2)


async def test_with_sender_closes_after_a_failure_and_tolerates_an_earlier_close(make: Make) -> None:
    ch = make(1)
    with pytest.raises(ZeroDivisionError), ch.sender:
        raise ZeroDivisionError
    assert ch.closed
    with ch.sender:
        assert ch.closed


async def test_repr_and_statistics(make: Make) -> None:
    ch = make(2)
    name = type(ch).__name__
    assert repr(ch) == f"<{name} 0/2>"
    waiting = [await parked(ch.recv()), await parked(select(ch.on_recv(), nil.on_recv()))]
    assert repr(ch) == f"<{name} 0/2 [2 receivers blocked]>"
    assert ch.statistics().blocked_receivers == 2
    await ch.send_many([1, 2, 3, 4])
    await asyncio.gather(*waiting)
    sender = await parked(ch.send(5))
    assert repr(ch.sender) == f"<send-only <{name} 2/2 [1 sender blocked]>>"
    assert repr(ch.on_send(7)) == f"<case <{name} 2/2 [1 sender blocked]> <- 7>"
    assert await ch.recv_many(9) == [3, 4, 5]
    await sender
    ch.close()
    assert repr(ch.receiver) == f"<recv-only <{name} 0/2 [closed]>>"
    statistics = ch.statistics()
    assert (statistics.len, statistics.cap, statistics.blocked_senders, statistics.closed) == (0, 2, 0, True)
    assert repr(nil) == "nil"


async def test_a_channel_is_not_pickled(make: Make) -> None:
    import copy
    import pickle

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(make(1))
    assert copy.copy(nil) is nil


async def test_views_of_one_channel_are_equal(make: Make) -> None:
    """As in Go, two conversions of one channel to one direction compare equal."""
    ch, other = make(1), make(1)
    assert ch.sender == ch.sender
    assert len({ch.receiver, ch.receiver, other.receiver}) == 2
    assert ch.sender != other.sender
    assert ch.sender != ch.receiver
