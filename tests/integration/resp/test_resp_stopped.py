"""A link to a Redis that does not answer, because it was stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from fairway.errors import FairwayError
from fairway.resp import Address, Faults, Link
from fairway.testing.redis_server import RedisServer

pytestmark = pytest.mark.integration


class Gone(FairwayError):
    code = "tests.gone"


class Closed(FairwayError):
    code = "tests.closed"


FAULTS = Faults(service="tests", unavailable=Gone, closed=lambda: Closed("the link is closed"), url=Gone)


@pytest.fixture
def stoppable(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Yield the module's server, which goes on after the test."""
    yield redis_server
    assert redis_server.process is not None
    os.kill(redis_server.process.pid, signal.SIGCONT)


def stop(server: RedisServer) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)


async def test_a_server_that_is_stopped_is_given_up(stoppable: RedisServer) -> None:
    link = Link(Address.parse(stoppable.url, FAULTS), patience=0.3)
    assert await link.command("ECHO", "there") == b"there"
    stop(stoppable)
    with pytest.raises(Gone, match="did not answer"):
        await link.command("PING")
    assert stoppable.process is not None
    os.kill(stoppable.process.pid, signal.SIGCONT)
    assert await link.command("ECHO", "again") == b"again"
    await link.close()
    with pytest.raises(Closed):
        await link.command("PING")


async def test_a_read_that_the_server_holds_back_is_no_silence(stoppable: RedisServer) -> None:
    """Neither patience nor the vigil takes a link for dead, or stays awake for it, while a read blocks."""
    link = Link(Address.parse(stoppable.url, FAULTS), patience=0.4)
    for _ in range(200):  # one after another, so that the vigil may try
        await link.command("PING")
    for _ in range(3):  # together longer than the patience
        assert await link.command("XREAD", "BLOCK", 250, "STREAMS", "nobody-writes-here", "$") is None
    wire = link._wire
    assert wire is not None
    assert not wire.lost
    for _ in range(32):  # the window that has them in it, and is too long for staying awake
        await link.command("PING")
    assert not wire._vigil.awake
    await link.close()


async def test_a_caller_that_is_cancelled_with_its_connecting_ends_as_cancelled(stoppable: RedisServer) -> None:
    link = Link(Address.parse(stoppable.url, FAULTS))
    stop(stoppable)
    calls = [asyncio.create_task(link.command("PING")) for _ in range(2)]
    while link._connecting is None:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    # As when a loop is closed: everything is cancelled at once. A task that repeats what fails would go on else.
    link._connecting.cancel()
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    with pytest.raises(Closed):
        await calls[1]
    await link.close()
