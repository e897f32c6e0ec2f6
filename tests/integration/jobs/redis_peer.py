"""A second process over the same Redis: `python redis_peer.py URL LINES` claims and completes until told to stop."""

import asyncio
import sys

from fairway.jobs.job import Completed
from fairway.jobs.stores.redis import RedisStore


async def main(url: str) -> None:
    async with RedisStore(url) as store:
        print("open", flush=True)
        while leases := await store.claim(["default"], 5, 30.0, "peer", wait_s=0.5):
            assert len(await store.settle([Completed(x.id, x.fence) for x in leases])) == len(leases)
            print(*[x.id for x in leases], flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
