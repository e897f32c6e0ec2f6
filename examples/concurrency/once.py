"""The database is set up by whoever needs it first; everyone else waits for that."""

import asyncio

from fairway.concurrency import ErrGroup, Once, once_value


class Service:
    def __init__(self) -> None:
        self._once = Once()

    async def _set_up(self) -> None:
        print("setting up database and cache")
        await asyncio.sleep(0.01)

    async def handle(self, request: int) -> None:
        await self._once.do(self._set_up)


@once_value
async def settings() -> dict[str, str]:
    print("reading settings")
    return {"region": "eu"}


async def main() -> None:
    service = Service()
    async with ErrGroup() as group:
        for request in range(5):
            await group.go(service.handle, request)
    print((await settings())["region"], (await settings())["region"])


asyncio.run(main())
