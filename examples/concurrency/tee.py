"""Every order goes to two readers: one keeps the books, one ships."""

import asyncio

from fairway.concurrency import Chan, ErrGroup, RecvChan, background, tee, with_cancel

report: dict[str, int] = {}


async def add_up(orders: RecvChan[int]) -> None:
    report["total"] = sum([amount async for amount in orders])


async def largest(orders: RecvChan[int]) -> None:
    report["largest"] = max([amount async for amount in orders])


async def main() -> None:
    orders = Chan[int](4)
    await orders.send_many([5, 40, 15, 20])
    orders.close()

    async with with_cancel(background()) as ctx:
        books, shipping = tee(ctx, orders)
        async with ErrGroup(ctx) as group:
            await group.go(add_up, books)
            await group.go(largest, shipping)
    print("total", report["total"], "- largest", report["largest"])


asyncio.run(main())
