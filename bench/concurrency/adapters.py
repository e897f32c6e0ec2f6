"""One adapter a library: how to make a channel, to put, to get, and to run tasks; imports are late, peers optional."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

AsyncFn = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Pipe:
    """A channel of some library, by its two bound methods, and what to call in the end."""

    put: AsyncFn
    get: AsyncFn
    close: Callable[[], Any] = lambda: None


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

    ch = Chan[int](cap)
    return Pipe(ch.send, ch.recv)


def fairway_shared_pipe(cap: int) -> Pipe:
    from fairway.concurrency import SharedChan

    ch = SharedChan[int](cap)
    return Pipe(ch.send, ch.recv)


def queue_pipe(cap: int) -> Pipe:
    queue: asyncio.Queue[int] = asyncio.Queue(max(cap, 1))
    return Pipe(queue.put, queue.get)


def anyio_pipe(cap: int) -> Pipe:
    import anyio

    send, receive = anyio.create_memory_object_stream[int](cap)

    def close() -> None:
        send.close()
        receive.close()

    return Pipe(send.send, receive.receive, close)


def trio_pipe(cap: int) -> Pipe:
    import trio

    send, receive = trio.open_memory_channel[int](cap)
    return Pipe(send.send, receive.receive)


def janus_pipe(cap: int) -> Pipe:
    import janus

    queue: janus.Queue[int] = janus.Queue(max(cap, 1))
    return Pipe(queue.async_q.put, queue.async_q.get, queue.close)


def culsans_pipe(cap: int) -> Pipe:
    import culsans

    queue: culsans.Queue[int] = culsans.Queue(max(cap, 1))
    return Pipe(queue.async_q.put, queue.async_q.get, queue.close)


def aiologic_pipe(cap: int) -> Pipe:
    import aiologic

    queue: aiologic.SimpleQueue[int] | aiologic.Queue[int] = aiologic.Queue(max(cap, 1))
    return Pipe(queue.async_put, queue.async_get)


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
