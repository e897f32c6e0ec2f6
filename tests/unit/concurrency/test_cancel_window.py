"""Cancellation safety: every interleaving of a hand-off and a cancel, on both kinds of channel and both loops.

A blocked operation is committed or abandoned, once. What decides is which came first; afterwards either the
operation returned and the cancel comes at the next wait, or it raised and nothing was sent or received.

Size: the interleavings are one list, and whoever misses one has to see them together.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from fairway.concurrency import Chan, Closed, SendOnClosed, SharedChan, nil, select

AnyChan = Chan[Any] | SharedChan[Any]
KINDS = [Chan, SharedChan]
CAPS = [0, 1, 3]


ON_BOTH_LOOPS = True


async def turns(n: int = 4) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@dataclass
class Scene:
    """A channel on which one operation blocks, and the step of the other side that completes it."""

    ch: AnyChan
    start: Callable[[], Coroutine[Any, Any, Any]]
    commit: Callable[[], Any]
    sends: bool
    result: Any


def _recv(ch: AnyChan) -> Scene:
    return Scene(ch, ch.recv, lambda: ch.try_send("v"), False, "v")


def _recv_ok(ch: AnyChan) -> Scene:
    return Scene(ch, ch.recv_ok, lambda: ch.try_send("v"), False, ("v", True))


def _next(ch: AnyChan) -> Scene:
    return Scene(ch, ch.__anext__, lambda: ch.try_send("v"), False, "v")


def _recv_many(ch: AnyChan) -> Scene:
    return Scene(ch, lambda: ch.recv_many(2), lambda: ch.try_send("v"), False, ["v"])


def _select_recv(ch: AnyChan) -> Scene:
    idle = type(ch)(0)
    cases = (idle.on_recv(), nil.on_recv(), ch.on_recv())
    return Scene(ch, lambda: select(*cases), lambda: ch.try_send("v"), False, (2, "v", True))


def _send(ch: AnyChan) -> Scene:
    return Scene(ch, lambda: ch.send("v"), ch.try_recv, True, None)


def _send_many(ch: AnyChan) -> Scene:
    return Scene(ch, lambda: ch.send_many(["v"]), ch.try_recv, True, None)


def _select_send(ch: AnyChan) -> Scene:
    idle = type(ch)(0)
    cases = (idle.on_recv(), ch.on_send("v"))
    return Scene(ch, lambda: select(*cases), ch.try_recv, True, (1, None, True))


RECEIVES = [_recv, _recv_ok, _next, _recv_many, _select_recv]
SENDS = [_send, _send_many, _select_send]


def _id(value: Any) -> str:
    return getattr(value, "__name__", str(value)).strip("_")


scenes = pytest.mark.parametrize(
    ("kind", "cap", "scene_of"), list(itertools.product(KINDS, CAPS, RECEIVES + SENDS)), ids=_id
)


async def prepare(kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]) -> Scene:
    scene = scene_of(kind(cap))
    if scene.sends:
        await scene.ch.send_many([f"old{i}" for i in range(cap)])
    return scene


def left_in(ch: AnyChan) -> list[Any]:
    """Everything that can still be received."""
    found = []
    while (got := ch.try_recv()) is not None and got[1]:
        found.append(got[0])
    return found


class Watched:
    """Runs the scene's operation, then a wait that only a cancel ends; notes what happened."""

    def __init__(self, scene: Scene) -> None:
        self.log: list[Any] = []
        self.task = asyncio.ensure_future(self._run(scene))

    async def _run(self, scene: Scene) -> None:
        try:
            self.log.append(await scene.start())
        except asyncio.CancelledError:
            self.log.append("cancelled in the operation")
            raise
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.log.append("cancelled at the next wait")
            raise

    async def end(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(self.task), 5)
        assert self.task.cancelled()


@scenes
async def test_commit_then_cancel(kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]) -> None:
    """put→cancel: the operation returns, the cancel comes at the next wait, exactly once."""
    scene = await prepare(kind, cap, scene_of)
    watched = Watched(scene)
    await turns()
    assert scene.commit()
    watched.task.cancel()
    await watched.end()
    assert watched.log == [scene.result, "cancelled at the next wait"]
    if scene.sends:
        assert left_in(scene.ch) == [*(f"old{i}" for i in range(1, cap)), "v"][: max(cap, 0)]
    else:
        assert left_in(scene.ch) == []


@scenes
async def test_cancel_then_commit(kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]) -> None:
    """cancel→put: the operation raises, and nothing was handed over."""
    scene = await prepare(kind, cap, scene_of)
    watched = Watched(scene)
    await turns()
    watched.task.cancel()
    got = scene.commit()
    await watched.end()
    assert watched.log == ["cancelled in the operation"]
    if scene.sends:
        assert got == (("old0", True) if cap else None)
        assert left_in(scene.ch) == [f"old{i}" for i in range(1, cap)]
    else:
        assert got is (cap > 0)
        assert left_in(scene.ch) == (["v"] if cap else [])
    statistics = scene.ch.statistics()
    assert (statistics.blocked_senders, statistics.blocked_receivers) == (0, 0)


@scenes
async def test_close_then_cancel(kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]) -> None:
    """close→cancel: the close decided the operation; the cancel comes at the next wait."""
    scene = await prepare(kind, cap, scene_of)
    log: list[Any] = []

    async def run() -> None:
        try:
            log.append(await scene.start())
        except (Closed, SendOnClosed, StopAsyncIteration) as end:
            log.append(type(end))
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    task = asyncio.ensure_future(run())
    await turns()
    scene.ch.close()
    task.cancel()
    await turns()
    assert task.cancelled()
    ends = {_recv: Closed, _recv_ok: (None, False), _next: StopAsyncIteration, _recv_many: []}
    ends[_select_recv] = (2, None, False)
    assert log == [ends.get(scene_of, SendOnClosed), "cancelled"]


@scenes
async def test_commit_cancel_close(kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]) -> None:
    """commit→cancel→close: the value stays delivered; close finds nobody."""
    scene = await prepare(kind, cap, scene_of)
    watched = Watched(scene)
    await turns()
    assert scene.commit()
    watched.task.cancel()
    scene.ch.close()
    await watched.end()
    assert watched.log == [scene.result, "cancelled at the next wait"]


@scenes
async def test_cancel_close(kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]) -> None:
    """cancel→close: abandoned first, so the operation raises CancelledError."""
    scene = await prepare(kind, cap, scene_of)
    watched = Watched(scene)
    await turns()
    watched.task.cancel()
    scene.ch.close()
    await watched.end()
    assert watched.log == ["cancelled in the operation"]


@scenes
async def test_timeout_in_the_window_as_the_last_wait(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """asyncio.timeout() fires over a committed operation that is the block's last wait.

    The result stays, the block ends in TimeoutError or not, and no CancelledError turns up later.
    """
    scene = await prepare(kind, cap, scene_of)
    log: list[Any] = []

    async def run() -> None:
        try:
            async with asyncio.timeout(3600) as scope:
                scopes.append(scope)
                log.append(await scene.start())
        except TimeoutError:
            log.append("timeout")
        await turns(5)
        log.append("alive")

    scopes: list[asyncio.Timeout] = []
    task = asyncio.ensure_future(run())
    await turns()
    _fire_with(scopes[0], scene.commit)
    await task
    assert log in ([scene.result, "alive"], [scene.result, "timeout", "alive"])
    assert task.cancelling() == 0


def _fire_with(scope: asyncio.Timeout, commit: Callable[[], Any]) -> None:
    """Have the hand-off and the timeout happen one after the other in this very turn."""
    assert commit()
    scope._on_timeout()  # type: ignore[attr-defined]  # what the loop calls when the time is up


@scenes
async def test_timeout_in_the_window_not_as_the_last_wait(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """The same with another wait behind it in the block: that one is cut off by the timeout."""
    scene = await prepare(kind, cap, scene_of)
    log: list[Any] = []
    scopes: list[asyncio.Timeout] = []

    async def run() -> None:
        try:
            async with asyncio.timeout(3600) as scope:
                scopes.append(scope)
                log.append(await scene.start())
                await kind(0).recv()
                log.append("never")
        except TimeoutError:
            log.append("timeout")
        await turns(5)
        log.append("alive")

    task = asyncio.ensure_future(run())
    await turns()
    _fire_with(scopes[0], scene.commit)
    await asyncio.wait_for(task, 5)
    assert log == [scene.result, "timeout", "alive"]
    assert task.cancelling() == 0


@scenes
async def test_timeout_and_outside_cancel_in_one_turn(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """Both over one committed operation: the result stays and the outside cancel is not lost."""
    scene = await prepare(kind, cap, scene_of)
    log: list[Any] = []
    scopes: list[asyncio.Timeout] = []

    async def run() -> None:
        try:
            async with asyncio.timeout(3600) as scope:
                scopes.append(scope)
                log.append(await scene.start())
        except TimeoutError:
            log.append("timeout")
        await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(run())
    await turns()
    _fire_with(scopes[0], scene.commit)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 5)
    assert log[0] == scene.result


@scenes
async def test_second_cancel_between_deferral_and_redelivery(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """Two cancels, one deferred and one direct, arrive as one CancelledError, as asyncio merges them."""
    scene = await prepare(kind, cap, scene_of)
    log: list[Any] = []

    async def run() -> None:
        log.append(await scene.start())
        for _ in range(2):
            try:
                await turns(6)
                log.append("waited")
            except asyncio.CancelledError:
                log.append("cancelled")

    task = asyncio.ensure_future(run())
    await turns()
    assert scene.commit()
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)  # runs after the task's step, before the re-delivery's effect
    await task
    assert log == [scene.result, "cancelled", "waited"]


@scenes
async def test_task_group_abort_while_committed(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """A sibling fails in the turn of the hand-off: the result is kept, the task ends cancelled."""
    scene = await prepare(kind, cap, scene_of)
    log: list[Any] = []

    async def worker() -> None:
        log.append(await scene.start())
        await asyncio.get_running_loop().create_future()

    async def failing(go: asyncio.Event) -> None:
        await go.wait()
        scene.commit()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.TaskGroup() as group:
            go = asyncio.Event()
            inside = group.create_task(worker())
            group.create_task(failing(go))
            await turns()
            go.set()
    assert isinstance(failed.value.exceptions[0], ZeroDivisionError)
    assert log == [scene.result]
    assert inside.cancelled()


@scenes
async def test_cancelled_before_the_first_step(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """A task that never ran took and gave nothing."""
    scene = await prepare(kind, cap, scene_of)
    before = len(scene.ch)
    task = asyncio.ensure_future(scene.start())
    task.cancel()
    await turns()
    assert task.cancelled()
    assert len(scene.ch) == before
    statistics = scene.ch.statistics()
    assert (statistics.blocked_senders, statistics.blocked_receivers) == (0, 0)


@scenes
async def test_coroutine_closed_while_blocked(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """GeneratorExit: a coroutine that is closed leaves the queue and takes nothing."""
    scene = await prepare(kind, cap, scene_of)
    operation = scene.start()
    operation.send(None)
    statistics = scene.ch.statistics()
    assert statistics.blocked_senders + statistics.blocked_receivers == 1
    operation.close()
    statistics = scene.ch.statistics()
    assert statistics.blocked_senders + statistics.blocked_receivers == 0
    got = scene.commit()
    assert bool(got) is (cap > 0)


@scenes
async def test_non_blocking_side_with_only_dead_waiters(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """try_send and try_recv, plain and as select with default, pass over waiters that were just cancelled."""
    scene = await prepare(kind, cap, scene_of)
    tasks = [asyncio.ensure_future(scene.start()) for _ in range(5)]
    await turns()
    for task in tasks:
        task.cancel()
    ch = scene.ch
    if scene.sends:
        assert left_in(ch) == [f"old{i}" for i in range(cap)]
        assert await select(ch.on_recv(), default=True) == (-1, None, False)
    else:
        assert [ch.try_send(i) for i in range(cap + 1)] == [True] * cap + [False]
        assert await select(ch.on_send(1), default=True) == (-1, None, False)
    await turns()
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize(("kind", "cap", "scene_of"), list(itertools.product(KINDS, CAPS, RECEIVES)), ids=_id)
async def test_cancel_the_first_of_two_receivers(
    kind: type[AnyChan], cap: int, scene_of: Callable[[AnyChan], Scene]
) -> None:
    """Cancelled before the value came, it goes to the second; cancelled after, it is the first's."""
    for commit_first in (False, True):
        scene = scene_of(kind(cap))
        first, second = Watched(scene), Watched(scene)
        await turns()
        steps = [lambda t=first.task: t.cancel(), scene.commit]
        for step in reversed(steps) if commit_first else steps:
            step()
        await turns()
        assert first.task.cancelled()
        if commit_first:
            assert first.log == [scene.result, "cancelled at the next wait"]
            assert second.log == []
        else:
            assert first.log == ["cancelled in the operation"]
            assert second.log == [scene.result]
        second.task.cancel()
        await turns()


@pytest.mark.parametrize("kind", KINDS, ids=_id)
async def test_two_channels_ready_before_the_loser_is_dequeued(kind: type[AnyChan]) -> None:
    """The second channel's sender finds the select decided; its value stays with it, cancelled select or not."""
    for cancel in (False, True):
        a, b = kind(0), kind(0)
        task = asyncio.ensure_future(select(a.on_recv(), b.on_recv()))
        await turns()
        assert a.try_send("a")
        sender = asyncio.ensure_future(b.send("b"))
        if cancel:
            task.cancel()
        assert await task == (0, "a", True)
        await turns()
        assert not sender.done()
        assert b.try_recv() == ("b", True)
        await sender


@pytest.mark.parametrize("kind", KINDS, ids=_id)
async def test_cancelled_receiver_full_buffer_and_waiting_sender(kind: type[AnyChan]) -> None:
    """The buffer is refilled from the waiting sender exactly once."""
    ch = kind(1)
    receiver = asyncio.ensure_future(ch.recv())
    await turns()
    receiver.cancel()
    assert ch.try_send(1)
    senders = [asyncio.ensure_future(ch.send(value)) for value in (2, 3)]
    await turns()
    assert receiver.cancelled()
    assert ch.try_recv() == (1, True)
    await turns()
    assert [sender.done() for sender in senders] == [True, False]
    assert len(ch) == 1
    assert left_in(ch) == [2, 3]
    await asyncio.gather(*senders)


@pytest.mark.parametrize("kind", KINDS, ids=_id)
async def test_a_producer_that_commits_every_turn_is_cancelled(kind: type[AnyChan]) -> None:
    """A deferred cancel is raised at the task's next park, however often its operations commit."""
    ch, sent = kind(0), 0

    async def produce() -> None:
        nonlocal sent
        while True:
            await ch.send(sent)
            sent += 1

    producer = asyncio.ensure_future(produce())
    await turns()
    for _ in range(10):
        got = ch.try_recv()
        if got is None:
            break
        producer.cancel()
        await asyncio.sleep(0)
    await turns()
    assert producer.cancelled()
    assert sent == 1


@pytest.mark.parametrize("kind", KINDS, ids=_id)
async def test_deferred_cancel_at_the_next_park_counts_once(kind: type[AnyChan]) -> None:
    """Raised at the next park, it is not delivered again; a task that catches it goes on undisturbed."""
    ch, log = kind(0), list[Any]()

    async def consume() -> None:
        log.append(await ch.recv())
        try:
            await ch.recv()
        except asyncio.CancelledError:
            log.append("cancelled")
        await turns(6)
        log.append(await ch.recv())

    task = asyncio.ensure_future(consume())
    await turns()
    assert ch.try_send(1)
    task.cancel("why")
    await turns(10)
    assert ch.try_send(2)
    await task
    assert log == [1, "cancelled", 2]


@pytest.mark.parametrize("kind", KINDS, ids=_id)
async def test_the_cancel_message_survives_deferral(kind: type[AnyChan]) -> None:
    for park_again in (True, False):
        ch = kind(0)

        async def consume(ch: AnyChan = ch, park_again: bool = park_again) -> str:
            await ch.recv()
            try:
                await (ch.recv() if park_again else asyncio.sleep(3600))
            except asyncio.CancelledError as error:
                return str(error.args[0])
            return ""

        task = asyncio.ensure_future(consume())
        await turns()
        assert ch.try_send(1)
        task.cancel("reason")
        assert await task == "reason"


@pytest.mark.parametrize("kind", KINDS, ids=_id)
async def test_expired_deferral_does_not_hit_a_later_operation(kind: type[AnyChan]) -> None:
    """After the timeout's block took its cancel back, the next park is left alone."""
    ch, other, log = kind(0), kind(0), list[Any]()
    scopes: list[asyncio.Timeout] = []

    async def consume() -> None:
        try:
            async with asyncio.timeout(3600) as scope:
                scopes.append(scope)
                log.append(await ch.recv())
        except TimeoutError:
            log.append("timeout")
        log.append(await other.recv())

    task = asyncio.ensure_future(consume())
    await turns()
    _fire_with(scopes[0], lambda: ch.try_send(1))
    await turns()
    assert other.try_send(2)
    await task
    assert (log[0], log[-1]) == (1, 2)


@pytest.mark.parametrize("kind", KINDS, ids=_id)
@pytest.mark.parametrize("operation", ["recv", "send", "select"])
async def test_nothing_is_lost_when_a_timeout_fires_in_the_window(kind: type[AnyChan], operation: str) -> None:
    """The hand-off and `asyncio.timeout()` in the same turn, in both orders, 200 times: each value arrives once."""
    ch = kind(0)
    got: list[int] = []
    scopes: list[asyncio.Timeout] = []

    async def consume() -> None:
        while len(got) < 200:
            try:
                async with asyncio.timeout(3600) as scope:
                    scopes.append(scope)
                    if operation == "select":
                        got.append((await select(ch.on_recv()))[1])
                    else:
                        got.append(await ch.recv())
            except TimeoutError:
                continue

    task = asyncio.ensure_future(consume())
    for value in range(200):
        await turns(2)
        if operation == "send":
            sender = asyncio.ensure_future(ch.send(value))
            asyncio.get_running_loop().call_soon(scopes[-1]._on_timeout)  # type: ignore[attr-defined]
            await sender
        elif value % 2:
            assert ch.try_send(value)
            scopes[-1]._on_timeout()  # type: ignore[attr-defined]
        else:
            scopes[-1]._on_timeout()  # type: ignore[attr-defined]
            await ch.send(value)
    await task
    assert got == list(range(200))
