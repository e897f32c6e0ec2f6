"""A worker on Redis that is killed: `python crash_redis_worker.py URL NAME`."""

import asyncio
import sys

from crash_tasks import tasks

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.redis import RedisStore
from fairway.jobs.worker import Worker, WorkerConfig


async def main(url: str, name: str) -> None:
    store = RedisStore(url, StoreOptions(restart_grace_s=1.0))
    async with asyncio.timeout(60):
        while True:
            try:
                await store.open()
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            else:
                break
    async with Worker(store, tasks, WorkerConfig(concurrency=8, lease_s=1.0, grace_s=1.0, name=name)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
