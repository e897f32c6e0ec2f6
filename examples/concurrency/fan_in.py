"""Several sources, one reader; the merged channel ends when all of them have ended."""

import asyncio

from fairway.concurrency import Chan, WaitGroup, background, fan_in, with_cancel


async def produce(out: Chan[str], name: str, count: int) -> None:
    with out.sender as sender:
        for i in range(count):
            await sender.send(f"{name}{i}")


async def main() -> None:
    north, south = Chan[str](), Chan[str]()
    producers = WaitGroup()
    producers.go(produce, north, "north", 3)
    producers.go(produce, south, "south", 2)

    async with with_cancel(background()) as ctx:
        merged = [reading async for reading in fan_in(ctx, north, south)]
    await producers.wait()
    print(len(merged), "readings:", ", ".join(sorted(merged)))


asyncio.run(main())
