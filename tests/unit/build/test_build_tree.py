"""Source folders as content: what counts, what is left out, and that a stale stamp never hides a change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fairway.build import tree
from fairway.build.facts import gather
from fairway.build.references import find_references
from fairway.build.tree import SourceError, copy_tree, list_tree, read_text, take_snapshot


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def paths(root: Path) -> list[str]:
    return [e.path for e in list_tree(root)]


def test_what_is_left_out(tmp_path: Path) -> None:
    for name in (".git/config", "node_modules/a/b.js", "__pycache__/a.pyc", ".venv/x", "env/pyvenv.cfg", "env/lib/x",
                 "a.pyc", ".DS_Store", "lib/obj/x", "lib/bin/y", "lib/Lib.csproj", "bin/www", "src/a.py", ".env",
                 "data/big.csv"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / ".fairwayignore").write_text("# large\ndata/*\n")
    os.mkfifo(tmp_path / "fifo")
    assert paths(tmp_path) == [".env", ".fairwayignore", "bin/www", "lib/Lib.csproj", "src/a.py"]


def test_the_copy_has_the_digest_of_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, a="1", sub__b="2")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o750)
    (source / "link").symlink_to("a")
    (source / "out").symlink_to("/etc/passwd")
    digest = copy_tree(source, tmp_path / "copy")
    assert digest == take_snapshot(source).digest == take_snapshot(tmp_path / "copy").digest
    assert os.access(tmp_path / "copy" / "run", os.X_OK)
    assert os.readlink(tmp_path / "copy" / "out") == "/etc/passwd", "a link is copied as a link"


def test_every_kind_of_change_is_another_digest(tmp_path: Path) -> None:
    write(tmp_path, a="1", b="2")
    seen = {take_snapshot(tmp_path).digest}

    def changed() -> bool:
        digest = take_snapshot(tmp_path).digest
        fresh = digest not in seen
        seen.add(digest)
        return fresh

    (tmp_path / "a").write_text("3")
    assert changed()
    (tmp_path / "a").chmod(0o755)
    assert changed()
    (tmp_path / "a").rename(tmp_path / "c")
    assert changed()
    (tmp_path / "b").unlink()
    assert changed()
    (tmp_path / "b").symlink_to("2")
    assert changed()
    os.utime(tmp_path / "c", (1, 1))
    assert not changed(), "a time alone is no change"


def test_an_old_stamp_saves_reading_and_a_fresh_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a="1", b="2")
    later = time.time_ns() + 10**9
    monkeypatch.setattr(tree.time, "time_ns", lambda: later)
    first = take_snapshot(tmp_path)
    assert first.rehashed == 2
    assert take_snapshot(tmp_path, first).rehashed == 0
    # Same size, same modification time: the change time tells.
    info = (tmp_path / "a").stat()
    (tmp_path / "a").write_text("9")
    os.utime(tmp_path / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    second = take_snapshot(tmp_path, first)
    assert (second.rehashed, second.digest == first.digest) == (1, False)


def test_a_file_changed_while_it_was_hashed_is_hashed_again(tmp_path: Path) -> None:
    write(tmp_path, a="1")
    first = take_snapshot(tmp_path)  # taken within the racy span of the write
    assert take_snapshot(tmp_path, first).rehashed == 1


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a="123", b="456", d__d__d__x="1")
    monkeypatch.setattr(tree, "MAX_FILES", 2)
    with pytest.raises(SourceError, match="expected at most 2 files") as caught:
        list_tree(tmp_path)
    assert ".fairwayignore" in caught.value.hint
    monkeypatch.setattr(tree, "MAX_FILES", 10)
    monkeypatch.setattr(tree, "MAX_BYTES", 5)
    with pytest.raises(SourceError, match="MiB of source"):
        list_tree(tmp_path)
    monkeypatch.setattr(tree, "MAX_BYTES", 50)
    monkeypatch.setattr(tree, "MAX_DEPTH", 2)
    with pytest.raises(SourceError, match="at most 2 deep"):
        list_tree(tmp_path)
    with pytest.raises(SourceError, match="readable folder"):
        list_tree(tmp_path / "none")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))).write_text("x")
    with pytest.raises(SourceError, match="UTF-8"):
        list_tree(tmp_path)


def test_reading_never_leaves_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    write(inside, a="text")
    (tmp_path / "secret").write_text("hunter2")
    (inside / "out").symlink_to("../secret")
    (inside / "same").symlink_to("a")
    (inside / "loop").symlink_to("loop")
    os.mkfifo(inside / "fifo")
    assert read_text(inside, "a") == "text"
    assert read_text(inside, "same") == "text"
    for name in ("out", "loop", "fifo", "none", "../secret"):
        assert read_text(inside, name) is None
    assert read_text(inside, "a", limit=3) is None


def test_main_packages_are_found_by_their_clause(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "go.mod": "module x\n", "lib.go": "package lib\n", "cmd__a__main.go": "// Package main\npackage main\n",
            "cmd__b__b.go": "/* package x */\n\npackage  main // it is\n", "cmd__c__c.go": "package mainframe\n",
            "tools__gen.go": "//go:build ignore\n\npackage main\n", "cmd__d__d_test.go": "package main\n",
            "vendor__v__v.go": "package main\n", "testdata__t.go": "package main\n", "_x__x.go": "package main\n",
        },
    )  # fmt: skip
    assert gather("x", tmp_path).go_mains == ("cmd/a", "cmd/b")


def test_folders_that_a_build_refers_to(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    app = tmp_path / "apps" / "app"
    write(
        app,
        **{
            "go.mod": "module x\nreplace a => ../../pkg/a\n"
            "replace (\n\tb v1 => ../../pkg/b // note\n\tc => ../../none\n)\n",
            "package.json": '{"dependencies": {"l": "file:../lib", "self": "file:./inner"}}',
            "App.csproj": '<ProjectReference Include="..\\Shared\\Shared.csproj" />',
            "requirements.txt": "-e ../py\n../../../../etc\nflask\n",
        },
    )
    write(tmp_path / "pkg" / "a", **{"go.mod": "module a\nreplace d => ../d\n"})
    write(tmp_path / "pkg" / "b", **{"go.mod": "module b\n"})
    write(tmp_path / "pkg" / "d", **{"go.mod": "module d\n"})
    write(tmp_path / "apps" / "lib", **{"package.json": "{}"})
    write(tmp_path / "apps" / "Shared", **{"Shared.csproj": ""})
    write(tmp_path / "apps" / "py", **{"setup.py": ""})
    found = [str(p.relative_to(tmp_path)) for p in find_references(app)]
    assert found == ["apps/Shared", "apps/lib", "apps/py", "pkg/a", "pkg/b", "pkg/d"]
