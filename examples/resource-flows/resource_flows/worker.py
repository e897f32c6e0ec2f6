"""The background half: consumes the events and runs the jobs. `python -m resource_flows.worker`."""

from __future__ import annotations

import asyncio
import os

from fairway.concurrency import Context, notify_context
from fairway.events import EventBus, GroupOptions
from fairway.jobs import Queue, WorkerConfig
from resource_flows.database import Database
from resource_flows.service import QUEUE, TOPIC, make_handlers, make_tasks


async def work(ctx: Context, bus: EventBus, queue: Queue, database: Database) -> None:
    """Handle events and jobs until `ctx` ends; then finish what is in hand."""
    tasks = make_tasks(database)
    handlers = make_handlers(database, queue, tasks)
    options = GroupOptions(concurrency=4)
    worker = queue.worker(tasks, WorkerConfig(queues={QUEUE: 1}, concurrency=4))
    async with asyncio.TaskGroup() as group:
        group.create_task(bus.handle(ctx, TOPIC, handlers, group=QUEUE, after=0, options=options))
        group.create_task(worker.run(ctx))


async def main() -> None:
    """Work against the platform that ``FAIRWAY_URL`` names."""
    url = os.environ.get("FAIRWAY_URL", "http://127.0.0.1:7070")
    database = await Database.open()
    try:
        async with notify_context() as ctx, EventBus(url) as bus, Queue(url) as queue:
            await work(ctx, bus, queue, database)
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(main())
