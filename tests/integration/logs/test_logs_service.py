"""The log service over real files: live lines, slow readers, resuming, instances that come and go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fairway.concurrency import background, with_cancel
from fairway.logs import follow as following
from fairway.logs.follow import ends_of, follow
from fairway.logs.query import Query, containing
from fairway.logs.service import LogService, LogSubscription
from fairway.logs.times import index_path, load

pytestmark = pytest.mark.integration


class File(NamedTuple):
    path: Path
    app: str
    process: str
    number: int


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def write(self, name: str, data: str) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(data.encode())

    def files(self) -> list[File]:
        found = []
        for path in sorted(self.root.glob("*/*.log")):
            process, _, number = path.stem.partition(".")
            found.append(File(path, path.parent.name, process, int(number)))
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@asynccontextmanager
async def running(folder: Folder) -> AsyncIterator[LogService]:
    service = LogService(folder.files, busy=0.005, idle=0.02)
    ctx = with_cancel(background())
    task = asyncio.create_task(service.run(ctx))
    await asyncio.sleep(0)
    try:
        yield service
    finally:
        ctx.cancel()
        await task


async def take(subscription: LogSubscription, count: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(10.0):
        while len(found) < count:
            found += [line.text for line in await anext(subscription)]
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.005)


async def test_history_then_live_without_gap_or_repeat(folder: Folder) -> None:
    folder.write("a/web.1", "one\ntwo\nhal")
    async with running(folder) as service:
        with service.subscribe(Query()) as live:
            folder.write("a/web.1", "f\nthree\n")
            past = [line.text for line in service.history(Query(), ends=live.begins)]
            assert past == ["one", "two"]
            assert await take(live, 2) == ["half", "three"]
            assert live.cursor == f"a/web.1={folder.path('a/web.1').stat().st_size}"


async def test_several_apps_fan_in_and_filters_hold(folder: Folder) -> None:
    async with running(folder) as service:
        everything = service.subscribe(Query())
        only_b = service.subscribe(Query(apps=frozenset({"b"})))
        errors = service.subscribe(Query(match=containing("ERROR")))
        for n in range(50):
            folder.write("a/web.1", f"a{n}\n")
            folder.write("b/web.1", f"b{n} {'error' if n == 7 else ''}\n")
        folder.write("_fairway/daemon.0", "own\n")
        assert sorted(await take(everything, 100)) == sorted(
            [f"a{n}" for n in range(50)] + [f"b{n} {'error' if n == 7 else ''}" for n in range(50)]
        )
        assert [line.split()[0] for line in await take(only_b, 50)] == [f"b{n}" for n in range(50)]
        assert await take(errors, 1) == ["b7 error"]


async def test_a_new_instance_joins_and_an_ended_one_is_read_to_its_end(folder: Folder) -> None:
    folder.write("a/web.1", "old\n")
    async with running(folder) as service:
        with service.subscribe(Query()) as live:
            folder.write("a/web.1", "last words\n")
            folder.write("a/web.2", "first words\n")
            assert sorted(await take(live, 2)) == ["first words", "last words"]
            await until(lambda: index_path(folder.path("a/web.1")).exists())
            folder.path("a/web.1").unlink()
            await until(lambda: service.statistics().files == 1)
            assert not index_path(folder.path("a/web.1")).exists()


async def test_resumes_exactly_behind_what_was_seen(folder: Folder) -> None:
    folder.write("a/web.1", "1\n2\n")
    async with running(folder) as service:
        with service.subscribe(Query()) as live:
            folder.write("a/web.1", "3\n4\n")
            assert await take(live, 2) == ["3", "4"]
            cursor = live.cursor
        folder.write("a/web.1", "5\n")
        folder.write("a/web.2", "new instance\n")
        with service.subscribe(Query()) as again:
            missed = [line.text for line in service.history(Query(), ends=again.begins, after=cursor)]
            # The boundary between past and live is the service's to choose; nothing is missing and nothing twice.
            missed += await take(again, 2 - len(missed)) if len(missed) < 2 else []
            assert sorted(missed) == ["5", "new instance"]


async def test_a_slow_reader_loses_the_oldest_and_a_fast_one_nothing(folder: Folder) -> None:
    folder.write("a/web.1", "")
    async with running(folder) as service:
        slow = service.subscribe(Query(), queue=1)
        fast = service.subscribe(Query())
        for n in range(20):
            folder.write("a/web.1", f"{n}\n")
            assert await take(fast, 1) == [str(n)]
        assert await take(slow, 1) == ["19"]
        assert slow.dropped == 19
        assert service.statistics().dropped == 19


async def test_a_line_without_newline_comes_after_a_while(folder: Folder) -> None:
    async with running(folder) as service:
        with service.subscribe(Query()) as live:
            folder.write("a/web.1", "Password: ")
            async with asyncio.timeout(10.0):
                (line,) = await anext(live)
            assert (line.text, line.partial) == ("Password: ", True)


async def test_without_subscribers_only_times_are_kept(folder: Folder) -> None:
    async with running(folder) as service:
        before = time.time()
        folder.write("a/web.1", "one\n")
        await until(lambda: len(load(folder.path("a/web.1"))) == 1)
        folder.write("a/web.1", "two\n")
        await until(lambda: len(load(folder.path("a/web.1"))) == 2)
        assert service.statistics().followed == 0
        assert service.statistics().lines == 0
    times = [line.time for line in service.history(Query())]
    assert before - 1 <= times[0] <= times[1] <= time.time() + 1


async def test_a_folder_that_cannot_be_written_costs_times_only(folder: Folder) -> None:
    folder.write("a/web.1", "one\n")
    index_path(folder.path("a/web.1")).mkdir()  # nobody, not even root, can write a file there
    async with running(folder) as service:
        with service.subscribe(Query()) as live:
            folder.write("a/web.1", "two\n")
            assert await take(live, 1) == ["two"]


async def test_the_end_of_the_service_ends_its_readers(folder: Folder) -> None:
    folder.write("a/web.1", "one\n")
    async with running(folder) as service:
        live = service.subscribe(Query())
        folder.write("a/web.1", "two\n")
        assert await take(live, 1) == ["two"]
    assert [batch async for batch in live] == []
    live.close()
    assert service.statistics().subscribers == 0


def test_following_without_a_daemon(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SCAN", 0.0)
    folder.write("a/web.1", "old\nhal")
    query = Query()
    ends = ends_of(folder.files, query)
    steps = iter([lambda: folder.write("a/web.1", "f\nnew\n"), lambda: folder.write("b/web.1", "b\n")])

    def wait(_seconds: float) -> None:
        next(steps, lambda: None)()

    found: list[str] = []
    for batch in follow(folder.files, query, ends, wait=wait):
        found += [line.text for line in batch]
        if len(found) >= 3:
            break
    assert sorted(found) == ["b", "half", "new"]


def test_a_query_of_the_end_does_not_read_the_rest(folder: Folder) -> None:
    folder.write("a/web.1", "x" * 99 + "\n")
    with open(folder.path("a/web.1"), "r+b") as file:
        file.truncate(1 << 33)  # 8 GiB, sparse
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    service = LogService(folder.files)
    began = time.perf_counter()
    assert [line.text for line in service.history(Query(tail=1))] == ["last"]
    assert time.perf_counter() - began < 2.0


class Still(Folder):
    """A folder whose list is the same tuple while nothing comes or goes, as the platform's is."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.found: tuple[File, ...] = ()

    def files(self) -> tuple[File, ...]:  # type: ignore[override]  # a lister may give either
        now = tuple(super().files())
        self.found = self.found if now == self.found else now
        return self.found


async def test_a_list_that_stays_the_same_is_read_again_by_whoever_comes_new(tmp_path: Path) -> None:
    folder = Still(tmp_path)
    folder.write("a/web.1", "old\n")
    async with running(folder) as service:
        await until(lambda: service.statistics().files == 1)
        with service.subscribe(Query()) as live:
            folder.write("a/web.1", "one\n")
            assert await take(live, 1) == ["one"]
            folder.write("b/web.1", "two\n")
            assert await take(live, 1) == ["two"]
        await until(lambda: service.statistics().followed == 0)
        with service.subscribe(Query(apps=frozenset({"b"}))) as live:
            folder.write("b/web.1", "three\n")
            assert await take(live, 1) == ["three"]
        folder.path("b/web.1").unlink()
        await until(lambda: service.statistics().files == 1)
