"""A source that comes in pages, each a channel of its own, read as one."""

import asyncio

from fairway.concurrency import Chan, RecvChan, WaitGroup, background, bridge, with_cancel


async def fetch_pages(pages: Chan[RecvChan[str]]) -> None:
    with pages.sender as out:
        for number in range(3):
            page = Chan[str](2)
            await out.send(page.receiver)
            with page.sender as rows:
                await rows.send(f"page {number} row 0")
                await rows.send(f"page {number} row 1")


async def main() -> None:
    pages = Chan[RecvChan[str]]()
    fetching = WaitGroup()
    fetching.go(fetch_pages, pages)
    async with with_cancel(background()) as ctx:
        async for row in bridge(ctx, pages):
            print(row)
    await fetching.wait()


asyncio.run(main())
