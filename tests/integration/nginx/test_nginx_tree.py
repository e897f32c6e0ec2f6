"""The generator's folder where things go wrong between two steps: a reload that failed, a kill, a second generator."""

from __future__ import annotations

import fcntl
from pathlib import Path

import click
import pytest

from fairway.apps.spec import AppSpec, Endpoint
from fairway.cli import nginx as command
from fairway.nginx.errors import NginxError
from fairway.nginx.site import Options, Server, plan
from fairway.nginx.version import NginxVersion
from fairway.platform.nginx_tree import NginxTree
from fairway.run.nginx import Nginx, NginxTimeoutError

pytestmark = pytest.mark.integration
VERSION = NginxVersion(1, 22)


def sites(port: int = 9):
    app = AppSpec(name="one", file=Path("one.yaml"), backend=Endpoint())
    return plan([app], {"one": (Server("127.0.0.1", port),)})


def program(tmp_path: Path, script: str) -> Nginx:
    file = tmp_path / "nginx"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return Nginx(str(file), timeout=5.0)


async def test_a_reload_that_failed_is_due_until_one_succeeds(tmp_path: Path) -> None:
    fails = program(tmp_path, f'case "$1" in -s) test -f {tmp_path}/well;; esac')
    tree = NginxTree(tmp_path / "out", fails, VERSION)
    await tree.apply(sites(), Options())
    (tmp_path / "out" / "nginx.pid").write_text("1")  # somebody who lives
    assert tree.reload_due
    with pytest.raises(NginxError, match="refused to reload"):
        await tree.reload()
    assert not (await tree.apply(sites(), Options())).changed
    assert tree.reload_due
    (tmp_path / "well").touch()
    assert await tree.reload()
    assert not tree.reload_due
    await tree.apply(sites(10), Options())
    assert tree.reload_due


async def test_what_a_killed_generator_left_is_swept_up_and_a_second_one_is_kept_out(tmp_path: Path) -> None:
    tree = NginxTree(tmp_path / "out", None, VERSION)
    (tmp_path / "out" / "staged-x" / "apps").mkdir(parents=True)
    (tmp_path / "out" / "new-y").mkdir()
    await tree.apply(sites(), Options())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "acme", "current", "trees"]
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NginxError, match="at work"):
            await tree.apply(sites(10), Options())
    assert (await tree.apply(sites(10), Options())).changed


async def test_a_folder_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(NginxError, match=r"expected to write to .*out"):
        await NginxTree(tmp_path / "out", None, VERSION).apply(sites(), Options())


async def test_an_nginx_that_hangs_is_killed_and_said_so(tmp_path: Path) -> None:
    slow = program(tmp_path, 'case "$*" in *-t*) exec sleep 600;; esac')
    slow.timeout = 0.2
    with pytest.raises(NginxTimeoutError, match=r"0\.2 s"):
        await slow.test(tmp_path / "c", tmp_path)


async def test_watching_survives_errors_and_follows_the_instances(monkeypatch, capsys) -> None:
    found = [{"one": 1}, {"one": 1}, NginxError("the daemon is away"), NginxError("the daemon is away"), {"one": 2}]
    applied: list[object] = []

    def instances(project: object) -> object:
        now = found.pop(0)
        if isinstance(now, Exception):
            raise now
        applied.append(now)
        return now

    async def apply(*_: object) -> object:
        applied.append("applied")
        return type("Applied", (), {"changed": False})

    async def changes(*_: object, **__: object):
        for _ in range(5):
            yield set()
        yield {"a file"}

    monkeypatch.setattr("watchfiles.awatch", changes)
    monkeypatch.setattr(command, "_instances", instances)
    monkeypatch.setattr(command, "_apply", apply)
    project = type("Project", (), {"registry": Path()})
    await command._watch(project, None, Options(), {"via": "apps", "as_json": False})
    assert applied == [{"one": 1}, "applied", {"one": 1}, {"one": 2}, "applied", "applied"]
    assert click.unstyle(capsys.readouterr().err).count("the daemon is away") == 1
