"""One adapter a library: how to make a channel, to put, to get, and to run tasks; imports are late, peers optional."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

AsyncFn = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Pipe:
    """A channel of some library by its bound methods.

    Attributes:
        put, get: The coroutine functions that wait.
        put_now: Puts without waiting; only called when a receiver is known to wait or there is room.
        get_now: Returns what can be had without waiting, as a list of none or one.
        close: What to call in the end.
        room: Whether a pipe of capacity 0 has room for one value, for lack of unbuffered channels.
    """

    put: AsyncFn
    get: AsyncFn
    put_now: Callable[[int], Any]
    get_now: Callable[[], list[int]]
    close: Callable[[], Any] = lambda: None
    room: bool = True


def taking(get: Callable[[], int], nothing: type[Exception] | tuple[type[Exception], ...]) -> Callable[[], list[int]]:
    """Turn a method that raises when nothing is there into one that returns a list."""

    def get_now() -> list[int]:
        try:
            return [get()]
        except nothing:
            return []

    return get_now


@dataclass(frozen=True)
class Adapter:
    """A library under measurement.

    Attributes:
        name: What the table calls it.
        pipe: Makes a channel of a capacity; called on the running loop. For capacity 0 a library without
            unbuffered channels gives one of capacity 1.
        loops: The loops it runs on.
    """

    name: str
    pipe: Callable[[int], Pipe]
    loops: tuple[str, ...] = ("asyncio", "uvloop")


def fairway_pipe(cap: int) -> Pipe:
    from fairway.concurrency import Chan

    return of_channel(Chan[int](cap))


def fairway_shared_pipe(cap: int) -> Pipe:
    from fairway.concurrency import SharedChan

    return of_channel(SharedChan[int](cap))


def of_channel(ch: Any) -> Pipe:
    """A pipe over one of the library's own channels."""

    def get_now() -> list[int]:
        got = ch.try_recv()
        return [got[0]] if got is not None and got[1] else []

    return Pipe(ch.send, ch.recv, ch.try_send, get_now, room=ch.cap > 0)


def queue_pipe(cap: int) -> Pipe:
    queue: asyncio.Queue[int] = asyncio.Queue(max(cap, 1))
    return Pipe(queue.put, queue.get, queue.put_nowait, taking(queue.get_nowait, asyncio.QueueEmpty))


def anyio_pipe(cap: int) -> Pipe:
    import anyio

    send, receive = anyio.create_memory_object_stream[int](cap)

    def close() -> None:
        send.close()
        receive.close()

    return Pipe(
        send.send, receive.receive, send.send_nowait, taking(receive.receive_nowait, anyio.WouldBlock), close, cap > 0
    )


def trio_pipe(cap: int) -> Pipe:
    import trio

    send, receive = trio.open_memory_channel[int](cap)
    return Pipe(
        send.send, receive.receive, send.send_nowait, taking(receive.receive_nowait, trio.WouldBlock), room=cap > 0
    )


def janus_pipe(cap: int) -> Pipe:
    import janus

    queue: janus.Queue[int] = janus.Queue(max(cap, 1))
    own = queue.async_q
    return Pipe(own.put, own.get, own.put_nowait, taking(own.get_nowait, janus.AsyncQueueEmpty), queue.close)


def culsans_pipe(cap: int) -> Pipe:
    import culsans

    queue: culsans.Queue[int] = culsans.Queue(max(cap, 1))
    own = queue.async_q
    return Pipe(own.put, own.get, own.put_nowait, taking(own.get_nowait, culsans.AsyncQueueEmpty), queue.close)


def aiologic_pipe(cap: int) -> Pipe:
    import aiologic

    queue: aiologic.Queue[int] = aiologic.Queue(max(cap, 1))
    put_now, get_now = partial(queue.green_put, blocking=False), partial(queue.green_get, blocking=False)
    return Pipe(queue.async_put, queue.async_get, put_now, taking(get_now, aiologic.QueueEmpty))


ADAPTERS = [
    Adapter("asyncio.Queue", queue_pipe),
    Adapter("fairway", fairway_pipe),
    Adapter("fairway shared", fairway_shared_pipe),
    Adapter("anyio", anyio_pipe),
    Adapter("trio", trio_pipe, ("trio",)),
    Adapter("janus", janus_pipe),
    Adapter("culsans", culsans_pipe),
    Adapter("aiologic", aiologic_pipe),
]


async def together(loop: str, jobs: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> None:
    """Run the jobs as tasks of the running loop until all are done."""
    if loop == "trio":
        import trio

        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(job)
        return
    await asyncio.gather(*(job() for job in jobs))


def run(loop: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main` on a fresh loop of the kind `loop`."""
    if loop == "trio":
        import trio

        return trio.run(main)
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    return asyncio.run(main())
