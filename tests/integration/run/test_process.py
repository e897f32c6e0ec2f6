"""Process groups on the real kernel: every row of the supervision list that lives at this level."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairway.command import Command
from fairway.run import environment, proctable
from fairway.run.cgroup import Cgroup, discover
from fairway.run.process import Launch, Process, SpawnError, find_marked
from fairway.run.reaper import Reaper, become_subreaper

pytestmark = pytest.mark.integration


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that a real process does, within a bound."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    entry = proctable.read_entry(pid)
    return entry is not None and entry.state != "Z"


class Starter:
    """Starts Python programs as processes and ends all of them at the end of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self.count = 0

    def __call__(self, program: str, *, cgroup: Cgroup | None = None, **env: str) -> Process:
        self.count += 1
        marker = f"test-{os.getpid()}-{self.folder.name}/app/web.{self.count}"
        command = Command(
            (sys.executable, "-u", "-S", "-c", textwrap.dedent(program)),
            environment.compose(env, marker=marker),
            self.folder,
        )
        process = Process.start(Launch(command, self.log(self.count), marker, cgroup))
        self.processes.append(process)
        return process

    def log(self, number: int = 1) -> Path:
        return self.folder / "logs" / f"web.{number}.log"

    def lines(self, number: int = 1) -> list[str]:
        return self.log(number).read_text().splitlines()


@pytest.fixture
async def start(tmp_path):
    starter = Starter(tmp_path)
    yield starter
    for process in starter.processes:
        await process.stop(0)


async def test_exit_status_output_and_clean_up(start):
    process = start("import os; print('hello', os.environ['COLOUR']); raise SystemExit(7)", COLOUR="teal")
    exit_ = await process.wait()
    assert (exit_.code, str(exit_)) == (7, "exit 7")
    assert start.lines() == ["hello teal"]
    assert start.log().stat().st_mode & 0o777 == 0o600
    await process.stop(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


async def test_an_exit_by_signal_is_named(start):
    process = start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    exit_ = await process.wait()
    assert (exit_.signal, str(exit_)) == (signal.SIGKILL, "SIGKILL")


async def test_own_session_so_that_the_terminals_signals_do_not_reach_it(start):
    process = start("import time; time.sleep(60)")
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid


async def test_the_daemons_environment_is_not_inherited(start, monkeypatch):
    monkeypatch.setenv("SOMEBODYS_SECRET", "hunter2")
    process = start("import os; print('SOMEBODYS_SECRET' in os.environ, 'PATH' in os.environ)")
    await process.wait()
    assert start.lines() == ["False True"]
    assert "hunter2" not in repr(process)


GRANDCHILD = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(300)"], start_new_session={setsid})
    print(child.pid)
    {then}
"""


async def test_leader_exits_while_a_grandchild_holds_the_output_open(start):
    process = start(GRANDCHILD.format(setsid=False, then="os._exit(3)"))
    exit_ = await asyncio.wait_for(process.wait(), 5)
    assert exit_.code == 3
    grandchild = int(start.lines()[0])
    assert alive(grandchild)
    assert process.members() == {grandchild}
    # The leader is not reaped yet, so that its group's id stays taken.
    entry = proctable.read_entry(process.pid)
    assert entry is not None
    assert entry.state == "Z"
    await process.clean(0.5)
    assert not alive(grandchild)
    assert proctable.read_entry(process.pid) is None


@pytest.mark.parametrize("marker_cleared", [False, True])
async def test_a_grandchild_that_called_setsid_is_ended_too(start, marker_cleared):
    become_subreaper()
    then = "time.sleep(300)"
    program = GRANDCHILD.format(setsid=True, then=then)
    if marker_cleared:
        program = program.replace("start_new_session=True", "start_new_session=True, env={}")
    process = start(program)
    await until(lambda: start.lines())
    grandchild = int(start.lines()[0])
    assert process.members() == {process.pid, grandchild}
    await process.stop(0.2)
    assert not alive(grandchild)
    assert process.members() == set()


async def test_a_double_fork_that_outlives_its_leader_is_found_by_its_marker(start):
    become_subreaper()
    process = start(GRANDCHILD.format(setsid=True, then="os._exit(0)"))
    await process.wait()
    grandchild = int(start.lines()[0])
    assert process.members() == {grandchild}
    assert set().union(*find_marked(process.marker).values()) == {grandchild}
    await process.stop(0.2)
    assert not alive(grandchild)


async def test_sigterm_first_and_no_sigkill_for_one_that_obeys(start):
    process = start(
        """
        import signal, sys, time
        def end(*_):
            print("drained")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("ready")
        time.sleep(60)
        """
    )
    await until(lambda: start.lines())
    exit_ = await process.stop(10)
    assert str(exit_) == "exit 0"
    assert start.lines() == ["ready", "drained"]


async def test_sigkill_after_the_grace_for_one_that_does_not(start):
    process = start(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready")
        time.sleep(60)
        """
    )
    await until(lambda: start.lines())
    began = time.monotonic()
    exit_ = await process.stop(0.3)
    assert str(exit_) == "SIGKILL"
    assert 0.25 < time.monotonic() - began < 5


async def test_cancelling_a_stop_kills_at_once(start):
    process = start(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready")
        time.sleep(60)
        """
    )
    await until(lambda: start.lines())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.stop(60), 0.1)
    assert str(await asyncio.wait_for(process.wait(), 5)) == "SIGKILL"


async def test_adoption_needs_pid_start_time_boot_and_marker(start):
    import msgspec

    process = start("import time; time.sleep(60)")
    async with asyncio.timeout(5):
        while proctable.marker_of(process.pid) is None:  # the kernel is still setting its memory up
            await asyncio.sleep(0.001)
    record = process.record()
    assert Process.adopt(msgspec.structs.replace(record, started=record.started + 1)) is None
    assert Process.adopt(msgspec.structs.replace(record, boot="another boot")) is None
    assert Process.adopt(msgspec.structs.replace(record, marker="another/instance")) is None
    assert Process.adopt(msgspec.structs.replace(record, pid=2**22 - 1)) is None

    adopted = Process.adopt(record)
    assert adopted is not None
    assert adopted.adopted
    assert process.pid in adopted.members()
    os.kill(process.pid, signal.SIGKILL)
    assert str(await asyncio.wait_for(adopted.wait(), 5)) == "exit unknown"
    await adopted.stop(0)


async def test_one_that_the_daemon_before_started_outlives_it_and_is_adopted(tmp_path):
    """The parent is killed with SIGKILL: the child gets no signal, loses no line and can be adopted and stopped."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import asyncio, json, msgspec, sys
            from pathlib import Path
            from fairway.command import Command
            from fairway.run import environment
            from fairway.run.process import Launch, Process
            async def main():
                program = "import time, itertools\\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.002)"
                env = environment.compose(marker="test-outlives/web.1")
                command = Command((sys.executable, "-S", "-c", program), env)
                process = Process.start(Launch(command, Path({str(tmp_path / "out.log")!r}), "test-outlives/web.1"))
                print(json.dumps(msgspec.structs.asdict(process.record())), flush=True)
                await asyncio.sleep(60)
            asyncio.run(main())
            """
        )
    )
    import json

    from fairway.run.process import ProcessRecord

    parent = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    values = json.loads(await asyncio.wait_for(parent.stdout.readline(), 20))
    parent.kill()
    await parent.wait()
    out = tmp_path / "out.log"
    seen = len(out.read_text().splitlines())
    adopted = Process.adopt(ProcessRecord(**{**values, "cgroups": tuple(values["cgroups"])}))
    assert adopted is not None
    await until(lambda: len(out.read_text().splitlines()) > seen + 50)
    await adopted.stop(5)
    numbers = [int(line) for line in out.read_text().splitlines()]
    assert numbers == list(range(len(numbers)))


async def test_it_outlives_the_thread_that_started_it(start):
    """No PR_SET_PDEATHSIG, which would kill it when that thread ends."""
    import threading

    pids: list[int] = []

    def spawn() -> None:
        import subprocess

        pids.append(subprocess.Popen([sys.executable, "-S", "-c", ""]).wait())

    process = start("import time; print('ready'); time.sleep(60)")
    thread = threading.Thread(target=spawn)
    thread.start()
    thread.join()
    await until(lambda: start.lines())
    assert pids == [0]
    assert alive(process.pid)


async def test_nobody_who_reads_slowly_can_hold_it_up(start):
    process = start("import sys\nfor i in range(200_000): sys.stdout.write('x' * 99 + chr(10))\nprint('done')")
    exit_ = await asyncio.wait_for(process.wait(), 20)  # 20 MB, and nobody has read a byte
    assert exit_.code == 0
    assert start.log().stat().st_size == 200_000 * 100 + 5


@pytest.mark.parametrize(
    ("argv", "cwd", "expected"),
    [
        (("no-such-program-anywhere",), None, "'no-such-program-anywhere' on PATH"),
        (("/no/such/program",), None, "No such file"),
        (("/etc/passwd",), None, "Permission denied"),
        ((sys.executable,), Path("/no/such/folder"), "/no/such/folder"),
    ],
)
async def test_what_cannot_be_started_is_said(tmp_path, argv, cwd, expected):
    command = Command(argv, environment.compose(marker="test-missing"), cwd)
    with pytest.raises(SpawnError, match=expected):
        Process.start(Launch(command, tmp_path / "x.log", "test-missing"))


async def test_orphans_are_reaped_at_the_second_sweep(start):
    if not become_subreaper():
        pytest.skip("no subreaper on this system")
    reaper = Reaper()
    process = start(
        """
        import os, sys
        if os.fork() == 0:
            if os.fork() == 0:
                print(os.getpid(), flush=True)
                os._exit(0)
            os._exit(0)
        import time
        time.sleep(60)
        """
    )
    await until(lambda: start.lines())
    orphan = int(start.lines()[0])

    def zombie_of_ours() -> bool:
        entry = proctable.read_entry(orphan)
        return entry is not None and entry.state == "Z" and entry.ppid == os.getpid()

    # Its parent, a zombie of the leader's, has passed it on to us.
    await until(zombie_of_ours)
    managed = {process.pid}
    assert reaper.sweep(managed) == 0
    assert reaper.sweep(managed) >= 1
    assert proctable.read_entry(orphan) is None


@pytest.fixture
def hierarchies():
    from fairway.run.cgroup import remove_base

    where = discover(f"fairway-test-{os.getpid()}")
    yield where
    remove_base(where, timeout=2)


async def test_the_control_group_kills_escapees_whatever_their_environment(start, hierarchies):
    if hierarchies.unified is None:
        pytest.skip("no writable v2 hierarchy")
    group = Cgroup.create(hierarchies, "web.1")
    program = GRANDCHILD.format(setsid=True, then="os._exit(0)").replace("setsid=True", "setsid=True, env={}")
    process = start(program.replace("start_new_session=True", "start_new_session=True, env={}"), cgroup=group)
    await process.wait()
    grandchild = int(start.lines()[0])
    assert process.members() == {grandchild}
    await process.stop(0)
    assert not alive(grandchild)
    assert not group.folders[0].exists()


async def test_a_memory_limit_ends_a_glutton_and_is_named(start, hierarchies):
    group = Cgroup.create(hierarchies, "web.1", memory=48 * 2**20, cpus=0.5)
    if group.limits == "none":
        group.remove()
        pytest.skip("no writable memory controller")
    process = start("hog = []\nwhile True: hog.append(bytearray(2**20))", cgroup=group)
    exit_ = await asyncio.wait_for(process.wait(), 20)
    assert exit_.signal == signal.SIGKILL
    assert str(exit_) == "SIGKILL (out of memory)"
    await process.stop(0)
