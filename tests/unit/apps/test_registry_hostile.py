"""Files made to hurt: each is refused at once, with flat memory, and the apps beside it are there."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest

from fairway.apps import document
from fairway.apps.registry import load

FIXED = "name: fine\nsource: .\n"
HOSTILE = {
    "deep flow": ("registry.depth", "a: " + "[" * 10_000),
    "deep blocks": ("registry.depth", "\n".join(" " * i + "a:" for i in range(400))),
    "deep maps": ("registry.depth", "a: " + "{a: " * 10_000),
    "ten megabytes": ("registry.size", "a: " + "x" * 10_000_000),
    "bomb": (
        "registry.aliases",
        "a: &a [" + "x, " * 90 + "x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ),
    "many aliases": ("registry.aliases", "a: &a x\nb: [" + "*a, " * 60 + "x]"),
    "many keys": ("registry.aliases", "\n".join(f"k{i}: x" for i in range(9_000))),
    "alias of nothing": ("registry.alias", "a: *nowhere"),
    "recursive alias": ("registry.alias", "a: &a [*a]"),
    "binary": ("registry.yaml", "a: \x00\x01"),
    "object": ("registry.tag", "a: !!python/object/new:os.system [id]"),
    "collection as key": ("registry.key", "? [a, b]\n: c"),
    "alias as key of a collection": ("registry.key", "a: &a [x]\n*a : y"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_quickly_and_alone(kind: str, tmp_path: Path) -> None:
    code, text = HOSTILE[kind]
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "fine.yaml").write_text(FIXED)
    (tmp_path / "registry" / "bad.yaml").write_text(text)
    load(tmp_path / "registry", trusted=())  # types and caches are made once
    times = []
    for _ in range(3):
        start = time.process_time()
        registry = load(tmp_path / "registry", trusted=())
        times.append(time.process_time() - start)
    assert [p.code for p in registry.problems] == [code]
    assert list(registry.apps) == ["fine"]
    assert min(times) < 0.1


def test_memory_stays_flat_however_large_the_bomb(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(HOSTILE["bomb"][1])
    load(tmp_path, trusted=())
    tracemalloc.start()
    load(tmp_path, trusted=())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_every_error_of_bytes_names_line_and_column() -> None:
    with pytest.raises(document.DocumentError) as caught:
        document.parse(b"name: shop\nsource: \xff\n")
    assert caught.value.mark == (2, 9)
    with pytest.raises(document.DocumentError) as caught:
        document.parse(b"name: shop\nsource: a\x08b\n")
    assert caught.value.mark == (2, 10)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "folder.yaml").mkdir()
    os.mkfifo(folder / "fifo.yaml")
    (folder / "link.yaml").symlink_to("/etc/hostname")
    (folder / ".hidden.yaml").write_text("nonsense")
    registry = load(folder, trusted=())
    assert [(p.file.name, p.code) for p in registry.problems] == [
        ("fifo.yaml", "registry.unreadable"),
        ("folder.yaml", "registry.unreadable"),
        ("link.yaml", "registry.outside_tree"),
    ]


def test_messages_stay_on_one_printable_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text('name: "a\\u202eb\\nc"\n"x\\u001b[31m": 1\nsource: .\n')
    for problem in load(tmp_path, trusted=()).problems:
        assert str(problem).isprintable()
