"""The pytest plugin: fixtures that anyone who installs Fairway can use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fairway.testing.clock import FakeClock


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return a `FakeClock`."""
    return FakeClock()


@pytest_asyncio.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fail the test if tasks that it started, or threads it left on a channel, outlive it; says where they wait."""
    from fairway.concurrency import debug

    async with debug.no_leaks():
        yield


@pytest_asyncio.fixture
async def no_deadlocks() -> AsyncIterator[None]:
    """Fail the test with `Deadlock` and a dump as soon as all its tasks wait for one another.

    Threads that were there before the test are taken to have no part in it.
    """
    import threading

    from fairway.concurrency import debug

    with debug.detect_deadlocks(ignore=threading.enumerate()):
        yield
