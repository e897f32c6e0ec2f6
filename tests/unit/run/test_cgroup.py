"""Control groups over plain folders: discovery by mounts, limits, joining, and what is said where nothing works."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.command import Command
from fairway.run.cgroup import Cgroup, Hierarchies, discover


def test_nothing_mounted_is_none_plainly():
    where = discover("fairway-x", mounts="proc /proc proc rw 0 0\n", own="0::/\n")
    assert where == Hierarchies()
    group = Cgroup.create(where, "web.1", memory=2**20, cpus=1.0)
    command = Command(("true",))
    assert (group.limits, group.enter(command), group.kill(), group.pids()) == ("none", command, False, set())
    assert group.remove()


def test_a_read_only_hierarchy_is_none(tmp_path):
    # Folders without cgroup.procs cannot be joined, which is what a read-only mount looks like.
    where = discover("fairway-x", mounts=f"cgroup2 {tmp_path} cgroup2 rw 0 0\n", own="0::/\n")
    assert where.unified is None


@pytest.fixture
def v1(tmp_path) -> Hierarchies:
    base = tmp_path / "memory" / "fairway-x"
    (base / "web.1").mkdir(parents=True)
    for name in ("cgroup.procs", "memory.limit_in_bytes"):
        (base / "web.1" / name).touch()
    return Hierarchies(memory=base)


def test_limits_by_v1_are_set_and_named(v1):
    group = Cgroup.create(v1, "web.1", memory=64 * 2**20)
    assert group.limits == "cgroup v1"
    assert (group.folders[0] / "memory.limit_in_bytes").read_text() == str(64 * 2**20)
    assert not group.can_kill


def test_the_command_joins_before_it_execs(v1):
    group = Cgroup.create(v1, "web.1", memory=2**20)
    entered = group.enter(Command(("/bin/app", "; rm -rf $HOME"), {"A": "b"}, Path("/")))
    assert entered.argv[:2] == ("/bin/sh", "-c")
    assert entered.argv[3:] == ("sh", "/bin/app", "; rm -rf $HOME")
    assert "rm -rf" not in entered.argv[2]
    assert entered.env["FAIRWAY_CGROUPS"] == str(group.folders[0] / "cgroup.procs")


def test_out_of_memory_is_read_from_both_kinds(tmp_path):
    group = Cgroup((tmp_path,), "cgroup v2")
    assert not group.oom_killed()
    (tmp_path / "memory.events").write_text("low 0\noom_kill 0\n")
    assert not group.oom_killed()
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 2\n")
    assert group.oom_killed()
