"""At most fifty requests a second, five at once; what cannot be served in time is refused at once."""

import asyncio

from fairway.concurrency import ErrGroup, RateLimiter, WaitTooLong, background, every, with_timeout


async def main() -> None:
    limiter = RateLimiter(every(0.02), burst=5)
    clock = asyncio.get_running_loop().time
    start = clock()
    sent: list[float] = []

    async def request() -> None:
        await limiter.wait(background())
        sent.append(clock() - start)

    async with ErrGroup() as group:
        for _ in range(10):
            await group.go(request)
    print("first five at once:", max(sent[:5]) < 0.01)
    print("the others 20 ms apart:", 0.09 < sent[9] < 0.5)

    async with with_timeout(background(), 0.001) as ctx:
        try:
            await limiter.wait(ctx)
        except WaitTooLong as error:
            print("refused:", error)
    reservation = limiter.reserve()
    print("reserved:", reservation.ok, "- to wait:", reservation.delay > 0)
    reservation.cancel()


asyncio.run(main())
