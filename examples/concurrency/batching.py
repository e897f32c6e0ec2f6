"""Rows are written fifty at a time, or after a moment, whichever comes first."""

import asyncio

from fairway.concurrency import Chan, WaitGroup, background, batch, with_cancel


async def produce(rows: Chan[int]) -> None:
    with rows.sender as out:
        for row in range(120):
            await out.send(row)
        await asyncio.sleep(0.1)  # a pause: the batch of 20 does not wait for it
        await out.send(120)


async def main() -> None:
    rows = Chan[int]()
    producing = WaitGroup()
    producing.go(produce, rows)
    async with with_cancel(background()) as ctx:
        async for values in batch(ctx, rows, 50, timeout=0.02):
            print(f"insert {len(values)} rows from {values[0]}")
    await producing.wait()


asyncio.run(main())
