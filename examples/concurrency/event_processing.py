"""Events of several types, a dispatcher that knows who handles which, and a pool that does the work."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fairway.concurrency import Chan, WorkerPool


@dataclass(frozen=True)
class Event:
    type: str
    data: str


Handler = Callable[[Event], Awaitable[None]]


class Dispatcher:
    """Finds the handler of an event; its call is what the pool runs."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def on(self, type_: str, handler: Handler) -> None:
        self._handlers[type_] = handler

    async def __call__(self, event: Event) -> None:
        if event.type not in self._handlers:
            raise LookupError(f"unknown event type: {event.type}")
        await self._handlers[event.type](event)


async def main() -> None:
    log: list[str] = []

    async def flow_created(event: Event) -> None:
        log.append(f"sync {event.data}")

    async def site_created(event: Event) -> None:
        log.append(f"map {event.data}")

    dispatcher = Dispatcher()
    dispatcher.on("resource_flow_created", flow_created)
    dispatcher.on("site_created", site_created)

    events = Chan[Event](100)
    async with WorkerPool(dispatcher, workers=5) as pool:
        results = pool.run(events)
        with events.sender as out:
            await out.send(Event("resource_flow_created", "flow 1"))
            await out.send(Event("site_created", "site 7"))
            await out.send(Event("moon_landing", "?"))
        async for result in results:
            if not result.ok:
                log.append(f"failed: {result.error}")
    print("\n".join(sorted(log)))


asyncio.run(main())
