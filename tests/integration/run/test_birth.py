"""Processes that are born in their control group, on the real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fairway.run.cgroup import Cgroup, discover, remove_base

pytestmark = pytest.mark.integration

# A parent of its own for each: it has one thread, and the files, the handlers and the mask that the test gives it.
PARENT = """
import json, os, signal, sys, threading
from pathlib import Path
from fairway.command import Command
from fairway.run.birth import start_inside

told = json.loads(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
leaked = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(leaked, True)
for number in told["close"]:
    os.close(number)
if told["threads"]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
output = os.open(told["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
try:
    pid = start_inside(Path(told["folder"]), Command(tuple(told["argv"]), told["env"], told["cwd"]), output)
    said = {"pid": pid}
    if pid is not None:
        said["group"] = Path(f"/proc/{pid}/cgroup").read_text()
        said["environ"] = Path(f"/proc/{pid}/environ").read_text()
        said["status"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
except OSError as error:
    said = {"errno": error.errno}
said["mask"] = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
said["files"] = sorted(os.listdir("/proc/self/fd"))
Path(told["answer"]).write_text(json.dumps(said))
"""
LOOK = """
import json, os, sys
fields = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "files": {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")},
    "session": os.getsid(0) == os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ),
    "group": open("/proc/self/cgroup").read(), **{k: int(fields[k], 16) for k in ("SigBlk", "SigIgn", "SigCgt")},
}))
"""  # noqa: E501


@pytest.fixture
def group():
    where = discover(f"fairway-test-{os.getpid()}")
    if where.unified is None:
        pytest.skip("no control group can be written here")
    made = Cgroup.create(where, "app.web.1.0")
    yield made
    made.kill()
    remove_base(where)


def born(tmp_path: Path, group: Cgroup, argv: list[str], **changes: object) -> dict:
    told = {
        "folder": str(group.folders[0]), "argv": argv, "env": {"A": "b"}, "cwd": str(tmp_path), "close": [],
        "threads": False, "output": str(tmp_path / "out"), "answer": str(tmp_path / "answer"), **changes,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PARENT, json.dumps(told)], check=False, timeout=30)
    assert done.returncode == 0
    return json.loads((tmp_path / "answer").read_text())


def inherited() -> int:
    """Return the mask of what whoever started the tests ignores, as `nohup` and shells in the background do."""
    status = Path("/proc/self/status").read_text()
    ignored = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn"))
    return ignored & ~(1 << 12 | 1 << 24)  # what Python ignores as it starts, SIGPIPE and SIGXFSZ


def looked(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out").read_text())


@pytest.mark.parametrize("close", [[], [0], [0, 1, 2]])
def test_it_is_in_its_group_from_the_start_and_has_nothing_of_its_parent(tmp_path, group, close):
    said = born(tmp_path, group, [sys.executable, "-S", "-c", textwrap.dedent(LOOK)], close=close)
    assert said["status"] == 0
    assert "A=b\0" in said["environ"]  # it is executed when the call returns
    name = "/" + group.folders[0].name
    assert said["group"].strip().endswith(name)
    seen = looked(tmp_path)
    assert seen["group"].strip().endswith(name)
    assert (seen["session"], seen["cwd"], seen["env"]["A"]) == (True, str(tmp_path), "b")
    assert "PATH" not in seen["env"]
    out = str(tmp_path / "out")
    assert seen["files"].items() >= {"0": "/dev/null", "1": out, "2": out}.items()
    assert set(seen["files"]) <= {"0", "1", "2", "3"}  # 3 is the look itself
    assert seen["SigBlk"] == 1 << 9  # SIGUSR1: the mask is the parent's own
    assert seen["SigIgn"] & ~inherited() == (1 << 12 | 1 << 24)  # the look is Python's again
    assert said["mask"] == [10]
    assert len(said["files"]) <= 8 - len(close)  # the parent has closed what it opened


def test_what_python_ignores_is_not_ignored_in_the_program(tmp_path, group):
    said = born(tmp_path, group, ["/bin/sh", "-c", "grep -E 'SigIgn|SigCgt' /proc/$$/status"])
    assert said["status"] == 0
    ignored, caught = (int(line.split()[1], 16) for line in (tmp_path / "out").read_text().splitlines())
    assert (ignored & ~inherited(), caught & (1 << 14)) == (0, 0)


@pytest.mark.parametrize(
    ("argv", "changes", "expected"),
    [(["/nowhere/program"], {}, 2), (["/etc/passwd"], {}, 13), (["/bin/true"], {"cwd": "/nowhere"}, 2)],
)
def test_what_cannot_be_started_says_why_and_leaves_nobody(tmp_path, group, argv, changes, expected):
    assert born(tmp_path, group, argv, **changes)["errno"] == expected
    assert group.pids() == set()


def test_with_other_threads_nobody_is_born(tmp_path, group):
    assert born(tmp_path, group, ["/bin/true"], threads=True)["pid"] is None


def test_a_script_without_its_first_line_is_left_to_the_shell(tmp_path, group):
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o700)
    assert born(tmp_path, group, [str(script)])["pid"] is None
    assert group.pids() == set()


def test_a_folder_that_is_no_group_is_left_to_the_shell(tmp_path, group):
    assert born(tmp_path, group, ["/bin/true"], folder=str(tmp_path))["pid"] is None
