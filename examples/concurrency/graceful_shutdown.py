"""An HTTP server with workers behind it that stops in order: door, workers, database; one deadline for all."""

import asyncio
import os
import signal

from aiohttp import ClientSession, web

from fairway.concurrency import Shutdown, WorkerPool, notify_context

done: list[int] = []


async def work(job: int) -> None:
    await asyncio.sleep(0.02)
    done.append(job)


async def serve(pool: WorkerPool[int, None]) -> tuple[web.AppRunner, int]:
    async def accept(request: web.Request) -> web.Response:
        await pool.publish(int(request.match_info["job"]))
        return web.Response(text="accepted", status=202)

    app = web.Application()
    app.router.add_post("/jobs/{job}", accept)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, runner.addresses[0][1]


async def main() -> None:
    pool = WorkerPool(work, workers=2, buffer=100).start()
    runner, port = await serve(pool)

    async with notify_context(signal.SIGINT, signal.SIGTERM) as ctx, Shutdown(ctx, grace=10) as shutdown:
        shutdown.hook("http", runner.cleanup, order=1)  # accept nothing new, finish what runs
        shutdown.hook("workers", pool.stop, order=2)  # finish what was accepted
        shutdown.hook("database", asyncio.sleep, 0, order=3)

        async with ClientSession() as client:
            for job in range(6):
                await client.post(f"http://127.0.0.1:{port}/jobs/{job}")
        os.kill(os.getpid(), signal.SIGTERM)  # what Ctrl-C or a supervisor does
        print("shutting down:", await shutdown.wait())

    for name, error in shutdown.report:
        print(f"{name}: {error or 'ok'}")
    print("jobs done:", sorted(done))


asyncio.run(main())
