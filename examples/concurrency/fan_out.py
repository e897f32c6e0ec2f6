"""One source, several workers: each value goes to whoever is free."""

import asyncio

from fairway.concurrency import Chan, ErrGroup, RecvChan, background, fan_out, with_cancel


async def worker(jobs: RecvChan[int], done: list[int]) -> None:
    async for job in jobs:
        await asyncio.sleep(0.001 * (job % 3))
        done.append(job * job)


async def main() -> None:
    source = Chan[int](12)
    await source.send_many(range(12))
    source.close()

    done: list[int] = []
    async with with_cancel(background()) as ctx, ErrGroup(ctx) as group:
        for jobs in fan_out(ctx, source, 3):
            await group.go(worker, jobs, done)
    print(sorted(done))


asyncio.run(main())
