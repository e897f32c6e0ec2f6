"""When the SQLite store's writing thread ends by a fault of the store itself: everybody hears of it, nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
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


def _move(file: Path) -> None:
    file.rename(file.with_name("elsewhere.db"))


def _replace(file: Path) -> None:
    _move(file)
    file.touch()


@pytest.mark.parametrize("lose", [Path.unlink, _move, _replace])
async def test_nothing_is_acknowledged_into_a_file_that_nobody_can_open(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    file = tmp_path / "jobs.db"
    store = SqliteStore(file)
    await store.open()
    async with asyncio.timeout(5.0):
        await store.enqueue([NewJob(kind="before")])
        assert await store.claim(["default"], limit=1, lease_s=60.0, worker="w")
        waiting = asyncio.ensure_future(store.claim(["default"], limit=1, lease_s=60.0, worker="w", wait_s=60.0))
        await store.queues()  # the writer has come past the claim
        lose(file)
        together = [asyncio.ensure_future(store.enqueue([NewJob(kind=f"after.{n}")])) for n in range(3)]
        for one in together:
            with pytest.raises(StoreUnavailable, match="moved, replaced or removed"):
                await one
        with pytest.raises(StoreUnavailable, match="moved, replaced or removed"):
            await store.enqueue([NewJob(kind="later")])
        with contextlib.suppress(StoreUnavailable):
            assert await waiting == []
        await store.close()
