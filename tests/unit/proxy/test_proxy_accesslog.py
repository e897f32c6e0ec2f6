"""The access log's writer: it keeps up, and what it cannot keep is counted."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from fairway.proxy import accesslog
from fairway.proxy.accesslog import RING, AccessLog


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_a_ring_that_fills_is_emptied_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is written whole, long before the next visit of the writer; the rest when it stops."""
    monkeypatch.setattr(accesslog, "_FLUSH_S", 60.0)
    written = threading.Event()
    encode = accesslog._as_record

    def last(raw: tuple[Any, ...], offset: float) -> accesslog.Record:
        if raw[1] == "last":
            written.set()
        return encode(raw, offset)

    monkeypatch.setattr(accesslog, "_as_record", last)
    path = tmp_path / "access.json"
    log = AccessLog(str(path))
    log.start()
    for number in range(RING // 2):
        log.refusal(400, "last" if number == RING // 4 else "127.0.0.1", b"id")
    assert written.wait(10.0)
    log.stop()
    assert lines(path) == RING // 2
    assert log.dropped == 0
    assert json.loads(path.read_bytes().splitlines()[-1])["request_id"] == "id"


def test_what_the_ring_cannot_take_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    log = AccessLog(str(path))
    for _ in range(RING + 10):
        log.refusal(400, "127.0.0.1", b"id")
    assert log.dropped == 10
    log.start()
    log.stop()
    assert lines(path) == RING
