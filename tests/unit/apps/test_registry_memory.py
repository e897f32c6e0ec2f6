"""What a registry file said is remembered by its bytes; what depends on anything else is looked at every time."""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.apps import memory as memories
from fairway.apps.memory import Memory
from fairway.apps.registry import Registry, load

FULL = """
name: shop
source: ../../shop
env_file: shop.env
backend: {domain: shop.example.com, path: /api}
frontend: {domain: www.example.com, port: 9001}
command: [python, main.py]
build: [[make, all], "npm run build"]
processes: {worker: python work.py}
env: {A: "1", B: true, C: 2.5}
secrets: [TOKEN]
replicas: 3
depends_on: [base]
health: {path: /healthz, interval: 5s, timeout: 250ms, conditions: ["[STATUS] == 200"]}
deploy: {strategy: rolling, grace: 3s, canary: {weight: 20, watch: 10s, max_latency: 1s}}
limits: {memory: 256M, cpus: 0.5}
door: {body_limit: 1M, rate: 5, methods: [GET], headers: {X-A: null, X-B: b}, redirect: [https], aliases: [a.test]}
"""
BASE = "name: base\nsource: ../../base\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    registry = tmp_path / "compose" / "app-registry"
    registry.mkdir(parents=True)
    for name in ("shop", "base"):
        (tmp_path / name).mkdir()
    (registry / "shop.yaml").write_text(FULL)
    (registry / "shop.env").write_text("X=1\n")
    (registry / "base.yaml").write_text(BASE)
    return registry


def read(folder: Path, path: Path | None) -> Registry:
    return load(folder, trusted=(), memory=Memory(path))


def test_a_remembered_registry_is_the_same(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    fresh = read(folder, None)
    assert fresh.problems == []
    assert set(fresh.apps) == {"shop", "base"}
    assert read(folder, path).apps == fresh.apps
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = read(folder, path)
    assert again.apps == fresh.apps
    assert isinstance(again.apps["shop"].command, tuple)


def test_a_full_disk_gets_no_file_more_at_every_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fairway.apps.memory.os.replace", full)
        assert len(read(folder, cache / "registry.json").apps) == 2
    assert list(cache.iterdir()) == []


def test_the_repositorys_own_registry_is_the_same(tmp_path: Path) -> None:
    registry = Path(__file__).parents[3] / "compose" / "app-registry"
    path = tmp_path / "registry.json"
    read(registry, path)
    assert read(registry, path).apps == load(registry, trusted=()).apps


def test_a_remembered_registry_needs_no_yaml(folder: Path, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from fairway.apps.memory import Memory
from fairway.apps.registry import load
assert len(load(Path(sys.argv[1]), trusted=(), memory=Memory(Path(sys.argv[2]))).apps) == 2
print("yaml" in sys.modules)
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", script, str(folder), str(tmp_path / "registry.json")],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for _ in range(2)
    ]  # fmt: skip
    assert said == ["True", "False"]


def test_a_changed_file_is_read_anew_and_the_old_one_forgotten(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    read(folder, path)
    (folder / "base.yaml").write_text(BASE + "replicas: 2\n")
    assert read(folder, path).apps["base"].replicas == 2
    assert len(Memory(path)._kept) == 2


def test_paths_and_neighbours_are_looked_at_every_time(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    read(folder, path)
    (tmp_path / "shop").rmdir()
    gone = read(folder, path)
    assert [p.code for p in gone.problems] == ["registry.source_missing"]
    assert gone.problems[0].mark is not None
    assert gone.problems[0].mark.line == 3
    (tmp_path / "shop").mkdir()
    (folder / "twin.yaml").write_text(BASE)
    assert [p.code for p in read(folder, path).problems] == ["registry.duplicate_name"]
    (folder / "twin.yaml").unlink()
    (tmp_path / "shop").rmdir()
    (tmp_path / "shop").symlink_to("/")
    assert [p.code for p in read(folder, path).problems] == ["registry.outside_tree"]


def test_files_with_problems_are_not_remembered(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    (folder / "base.yaml").write_text(BASE + "prot: 1\n")
    first = read(folder, path)
    assert [p.code for p in first.problems] == ["registry.unknown_field", "registry.depends_on"]
    assert read(folder, path).problems == first.problems


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"code":"x","files":{}}', b'{"code":1,"files":[]}', b"\xff"])
def test_a_damaged_memory_is_no_memory(folder: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registry.json"
    path.write_bytes(content)
    assert set(read(folder, path).apps) == {"shop", "base"}


def test_an_entry_that_does_not_fit_its_type_is_read_anew(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    read(folder, path)
    path.write_bytes(path.read_bytes().replace(b'"replicas":3', b'"replicas":"x"'))
    assert read(folder, path).apps["shop"].replicas == 3


def test_other_code_forgets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "registry.json"
    read(folder, path)
    monkeypatch.setattr(memories, "_CODE", ("registry.py",))
    assert Memory(path)._kept == {}


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path, tmp_path: Path) -> None:
    assert set(read(folder, tmp_path / "missing" / "registry.json").apps) == {"shop", "base"}
