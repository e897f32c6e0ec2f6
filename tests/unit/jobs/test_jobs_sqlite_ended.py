"""When the SQLite store's writing thread ends by a fault of the store itself: everybody hears of it, nobody waits."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fairway.jobs.errors import StoreUnavailable
from fairway.jobs.job import NewJob
from fairway.jobs.stores.sqlite import SqliteStore
from fairway.jobs.stores.sqlite_engine import Engine
from fairway.jobs.stores.sqlite_writer import Operation, Writer


async def test_nobody_waits_for_a_writer_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open()
    go_on = threading.Event()

    following = Writer._next

    def fail(writer: Writer, engine: Engine) -> Operation | None:
        if not writer.commits:
            return following(writer, engine)
        go_on.wait(5.0)
        raise RuntimeError("a bug")

    monkeypatch.setattr(Writer, "_next", fail)
    try:
        async with asyncio.timeout(5.0):
            await store.enqueue([NewJob(kind="one")])  # committed, and said so, before the fault
            queued = asyncio.ensure_future(store.enqueue([NewJob(kind="two")]))
            claim = asyncio.ensure_future(store.claim(["default"], limit=1, lease_s=5.0, worker="w", wait_s=60.0))
            await asyncio.sleep(0)
            go_on.set()
            for waiting in (queued, claim):
                with pytest.raises(StoreUnavailable, match="stopped writing: RuntimeError: a bug"):
                    await waiting
            with pytest.raises(StoreUnavailable, match="stopped writing"):
                await store.enqueue([NewJob(kind="three")])
    finally:
        go_on.set()
        await store.close()
    monkeypatch.undo()
    again = SqliteStore(tmp_path / "jobs.db")
    await again.open()
    assert [lease.kind for lease in await again.claim(["default"], limit=5, lease_s=5.0, worker="w")] == ["one"]
    await again.close()
