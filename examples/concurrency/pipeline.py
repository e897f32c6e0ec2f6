"""Three stages at work at the same time: parse, convert, format."""

import asyncio

from fairway.concurrency import background, pipeline, with_timeout


def parse(line: str) -> float:
    return float(line.removesuffix(" °F"))


async def convert(fahrenheit: float) -> float:
    await asyncio.sleep(0)  # a stage may wait: for a database, for another service
    return (fahrenheit - 32) / 1.8


def show(celsius: float) -> str:
    return f"{celsius:.1f} °C"


async def main() -> None:
    lines = ["32 °F", "98.6 °F", "212 °F"]
    async with with_timeout(background(), 5) as ctx:
        async for text in pipeline(ctx, lines, parse, convert, show):
            print(text)

        try:
            async for text in pipeline(ctx, ["50 °F", "warm"], parse, convert, show):
                print(text)
        except ValueError as error:
            print("failed:", error)


asyncio.run(main())
