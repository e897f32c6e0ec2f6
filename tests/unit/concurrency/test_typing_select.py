"""The public types, as checkers see them: `select` narrows each case in mypy and in pyright, views have variance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

GOOD = """
from typing import Any, assert_type

from fairway.concurrency import Chan, RecvChan, SendChan, SharedChan, nil, select


async def narrowing(a: Chan[int], b: Chan[str], c: SharedChan[bytes], d: RecvChan[float]) -> None:
    match await select(a.on_recv(), b.on_recv(), c.on_send(b""), d.on_recv()):
        case 0, value, ok:
            assert_type(value, int)
            assert_type(ok, bool)
        case 1, value, ok:
            assert_type(value, str)
        case 2, value, ok:
            assert_type(value, None)
        case 3, value, ok:
            assert_type(value, float)
    match await select(a.on_recv(), b.on_recv(), default=True):
        case 0, number, True:
            assert_type(number, int)
        case 1, text, True:
            assert_type(text, str)
        case -1, nothing, False:
            assert_type(nothing, None)
        case _:
            return
    match await select(b.on_recv(), timeout=1.5):
        case 0, text, _:
            assert_type(text, str)
        case -1, at_timeout, _:
            assert_type(at_timeout, None)
    index, either, ok = await select(a.on_recv(), b.on_recv())
    if index == 0:
        assert_type(either, int | str)
    eight = await select(
        a.on_recv(), a.on_recv(), a.on_recv(), a.on_recv(), a.on_recv(), a.on_recv(), a.on_recv(), b.on_recv()
    )
    if eight[0] == 7:
        assert_type(eight[1], str)
    assert_type(await select(*[a.on_recv()]), tuple[int, Any, bool])


async def directions(ch: Chan[bool]) -> None:
    receiver: RecvChan[int] = ch.receiver
    wide: Chan[object] = Chan(3)
    sender: SendChan[int] = wide.sender
    await sender.send(await receiver.recv())
    whole: RecvChan[object] = ch
    nothing: Chan[int] = nil
    async for flag in ch:
        assert_type(flag, bool)
    match await ch.recv_ok():
        case got, True:
            assert_type(got, bool)
        case got, False:
            assert_type(got, None)
    assert_type(await ch.recv_many(3), list[bool])
    match ch.try_recv():
        case tried, True:
            assert_type(tried, bool)
        case tried, False:
            assert_type(tried, None)
        case unready:
            assert_type(unready, None)
    with wide.sender as out:
        out.try_send(await whole.recv())
    await nothing.send(1)


def threads(ch: SharedChan[int]) -> None:
    assert_type(ch.recv_sync(timeout=1), int)
    assert_type(ch.recv_many_sync(3), list[int])
    ch.send_sync(1, timeout=None)
"""

BAD = """
from fairway.concurrency import Chan, RecvChan, SendChan, select


async def wrong(a: Chan[int], receiver: RecvChan[int], sender: SendChan[int]) -> None:
    await a.send("text")
    await receiver.send(1)
    await sender.recv()
    receiver.close()
    narrow: SendChan[object] = sender
    wide: RecvChan[bool] = receiver
    a.on_send("text")
    await select(1)
"""
WRONG_LINES = [6, 7, 8, 9, 10, 11, 12, 13]


def check(tmp_path: Path, source: str, *command: str) -> tuple[int, str]:
    file = tmp_path / "sample.py"
    file.write_text(source, encoding="utf-8")
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=110)
    return done.returncode, done.stdout + done.stderr


MYPY = (sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir=.mypy")
PYRIGHT = (sys.executable, "-m", "pyright", "--pythonpath", sys.executable)


@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_each_case_is_narrowed(tmp_path: Path, command: tuple[str, ...]) -> None:
    status, said = check(tmp_path, GOOD, *command)
    assert status == 0, said


@pytest.mark.parametrize("command", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_misuse_is_found_where_it_is(tmp_path: Path, command: tuple[str, ...]) -> None:
    status, said = check(tmp_path, BAD, *command)
    assert status != 0
    missed = [line for line in WRONG_LINES if f"sample.py:{line}:" not in said]
    assert not missed, said


def test_the_public_types_are_complete(tmp_path: Path) -> None:
    """pyright --verifytypes: 100 % of the public symbols of fairway.concurrency have known types."""
    # Here the interpreter is looked for on PATH only.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--verifytypes", "fairway.concurrency", "--ignoreexternal"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        timeout=110,
    )
    assert "Type completeness score: 100%" in done.stdout, done.stdout
