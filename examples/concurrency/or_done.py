"""Read a channel that somebody else closes, perhaps never, until the context ends."""

import asyncio

from fairway.concurrency import Chan, background, or_done, with_timeout


async def main() -> None:
    prices = Chan[float](3)  # nobody closes it
    await prices.send_many([9.5, 9.7, 9.6])

    async with with_timeout(background(), 0.05) as ctx:
        async for price in or_done(ctx, prices):
            print("price", price)
    print("ended:", ctx.err())


asyncio.run(main())
