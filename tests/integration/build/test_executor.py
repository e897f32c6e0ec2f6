"""Build commands: output into the log, nothing left running, secrets and terminal sequences gone."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from fairway.command import Command
from fairway.run.buildlog import BuildLog, plain
from fairway.run.executor import Outcome, build_environment, execute

pytestmark = pytest.mark.integration


async def run(log: BuildLog, script: str, **env: str) -> Outcome:
    command = Command((sys.executable, "-c", script), env)
    return await execute(command, log, environment=build_environment("/usr/bin:/bin"), timeout=20)


async def gone(pid: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        assert time.monotonic() < until, f"{pid} still runs"
        await asyncio.sleep(0.01)


async def test_output_status_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEBODY_ELSES_SECRET", "x")
    monkeypatch.setenv("PIP_NO_INPUT", "1")
    with BuildLog(tmp_path / "log") as log:
        script = (
            "import os, sys\n"
            "print(sorted({'A', 'PIP_NO_INPUT', 'SOMEBODY_ELSES_SECRET'} & set(os.environ)), flush=True)\n"
            "print('err', file=sys.stderr); sys.exit(7)"
        )
        assert (await run(log, script, A="1")) == Outcome(7)
    assert log.tail == ("['A', 'PIP_NO_INPUT']", "err")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_long_lines_are_cut_into_pieces_and_the_last_needs_no_newline(tmp_path: Path) -> None:
    seen: list[str] = []
    with BuildLog(tmp_path / "log") as log:
        command = Command((sys.executable, "-c", "import sys; sys.stdout.write('x' * 200000 + '\\nend')"))
        environment = build_environment("/usr/bin")
        assert (await execute(command, log, environment=environment, timeout=20, on_line=seen.append)).ok
    assert seen[-1] == "end"
    assert len(seen) >= 3
    assert all(len(line) <= 501 for line in log.tail)


async def test_what_a_command_leaves_running_is_killed_and_holds_nothing_up(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)\n"
    )
    with BuildLog(tmp_path / "log") as log:
        assert (await run(log, script)).ok
    await gone(int(log.tail[0]))


async def test_a_program_that_is_missing(tmp_path: Path) -> None:
    with BuildLog(tmp_path / "log") as log, pytest.raises(FileNotFoundError):
        await execute(Command(("/none/such",)), log, environment={}, timeout=5)


def test_outcomes_in_words() -> None:
    assert [str(o) for o in (Outcome(1), Outcome(-9), Outcome(-200), Outcome(0, True))] == [
        "exit status 1", "ended by SIGKILL", "ended by signal 200", "its time ran out",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("\x1b[1;32mok\x1b[0m\n", "ok"),
        ("10%\r50%\r100%\r\n", "100%"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x00b\x08c\u202ed", "abcd"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_terminal_sequences_are_taken_out(line: str, text: str) -> None:
    assert plain(line) == text


def test_the_log_is_bounded_and_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.run.buildlog.MAX_BYTES", 50)
    with BuildLog(tmp_path / "log", ["longer-secret", "secret", "abc"]) as log:
        assert log.write("a longer-secret, a secret, abc") == "a ***, a ***, abc"
        for _ in range(9):
            log.write("0123456789")
    text = (tmp_path / "log").read_text()
    assert text.count("cut off") == 1
    assert len(text) < 150
