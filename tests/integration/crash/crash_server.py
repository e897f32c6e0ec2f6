"""A job server that is killed: `python crash_server.py STORE_URL PORT`."""

import asyncio
import signal
import sys

from fairway.api.app import Services, create_app
from fairway.api.server import serve
from fairway.jobs.opening import open_store
from fairway.jobs.service import JobService
from fairway.jobs.store import StoreOptions


async def main(url: str, port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with JobService(open_store(url, StoreOptions(restart_grace_s=1.0))) as service:
        async with serve(create_app(Services(jobs=service)), host="127.0.0.1", port=port):
            await stop.wait()
            service.drain()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
