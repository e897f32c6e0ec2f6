"""`fairway serve event-bus` as a process: it stops at once though a client follows, whose stream ends whole."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


async def test_a_follower_does_not_hold_up_the_end_and_its_stream_ends_whole(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fairway", "serve", "event-bus", "--listen", "127.0.0.1:0"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            ready = json.loads(await process.stdout.readline())
            url = f"{ready['url']}/v1/events"

            body = {"data": b'{"data": 1}', "headers": {"content-type": "application/json"}}
            await asyncio.to_thread(lambda: urllib.request.urlopen(urllib.request.Request(f"{url}/a", **body)).close())
            reader, writer = await asyncio.open_connection("127.0.0.1", int(ready["url"].rpartition(":")[2]))
            writer.write(b"GET /v1/events?topic=a&after=0 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b'"data":1')
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
            assert time.monotonic() - began < 2.5
            assert (await reader.read()).endswith(b"0\r\n\r\n")
            writer.close()
            assert b"Traceback" not in await process.stdout.read()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
