"""The command line as a whole: the lazy table, help, exit statuses, errors as sentences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from fairway.cli import exits
from fairway.cli.main import COMMANDS, load, run
from fairway.errors import FairwayError

NAMES = [(name, *told) for commands in COMMANDS.values() for name, told in commands.items()]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FAIRWAY_PROJECT", "FAIRWAY_URL", "FAIRWAY_TOKEN", "FORCE_COLOR", "FAIRWAY_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "module", "attribute", "line"), NAMES)
def test_every_line_of_the_table_is_a_command(name: str, module: str, attribute: str, line: str) -> None:
    command = load(name)
    assert isinstance(command, click.Command)
    assert command.help, f"{name} has no help"
    assert line.endswith(".")
    assert len(line) <= 80


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from fairway.cli.main import run; run(['--help']);"
        "heavy = {'asyncio', 'rich', 'msgspec', 'yaml', 'starlette', 'http.client', 'fairway.cli.up'};"
        "sys.exit(f'imported {sorted(heavy & set(sys.modules))}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, *_ in NAMES:
        assert f"\n  {name} " in done.stdout


def test_ps_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fairway.cli.main import run; status = run(['ps']);"
        "heavy = {'asyncio', 'rich', 'yaml', 'starlette', 'uvloop', 'fairway.platform.platform', 'psutil'};"
        "sys.exit(f'imported {sorted(heavy & set(sys.modules))}' if heavy & set(sys.modules) else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == exits.UNREACHABLE, done.stderr


def test_without_arguments_help_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "fairway add ./myapp && fairway up" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from fairway import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"fairway {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said", "fix"),
    [
        (["lgs"], 2, "There is no command 'lgs'. Did you mean `fairway logs`?", "`fairway --help`"),
        (["ps", "--nope"], 2, "No such option", "`fairway ps --help`"),
        (["scale", "a", "101"], 2, "101 is not in the range", "`fairway scale --help`"),
        (["up", "--listen", "somewhere"], 2, "expected HOST:PORT", "`fairway up --help`"),
        (["up"], 2, "There is no app in", "`fairway add ./myapp`"),
        (["ps"], 3, "There is no project in", "`fairway add PATH`"),
        (["-C", "nowhere", "ps"], 2, "There is no folder 'nowhere'", "--project"),
        (["logs", "--since", "soon"], 2, "Expected a time or an age, got 'soon'", "10m"),
        (["logs", "--grep", "("], 2, "--grep", "`fairway"),
        (["logs", "nobody"], 4, "There are no logs of 'nobody'", "none"),
        (["run", "a", "--", "true"], 4, "There is no release of 'a'", "`fairway deploy a`"),
        (["validate"], 2, "There is no registry", "`fairway add ./myapp`"),
    ],
)
def test_errors_are_one_sentence_and_the_fix(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str, fix: str
) -> None:
    assert run(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    first, *rest = captured.err.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert fix in "\n".join(rest)
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FairwayError("x", code="registry.unknown_field"), exits.USAGE),
        (FairwayError("x", code="app.unknown"), exits.NOT_FOUND),
        (FairwayError("x", code="auth.missing"), exits.DENIED),
        (FairwayError("x", code="daemon.port_taken"), exits.CONFLICT),
        (FairwayError("x", code="whatever.else"), exits.FAILED),
        (KeyboardInterrupt(), exits.INTERRUPTED),
        (click.Abort(), exits.INTERRUPTED),
        (PermissionError(13, "no", "/x"), exits.DENIED),
        (OSError(28, "full", "/x"), exits.FAILED),
        (ZeroDivisionError("bug"), exits.FAILED),
        (SystemExit(7), 7),
        (click.exceptions.Exit(9), 9),
    ],
)
def test_exit_statuses(capsys: pytest.CaptureFixture[str], error: BaseException, status: int) -> None:
    assert exits.report(error) == status
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_shows_its_traceback_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRWAY_DEBUG", "1")
    exits.report(ZeroDivisionError("bug"))
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / ".fairway" / "logs" / "a"
    folder.mkdir(parents=True)
    (tmp_path / ".fairway" / "run").mkdir()
    (folder / "web.1.log").write_text("line\n" * 100_000)
    command = [sys.executable, "-m", "fairway", "logs", "-n", "all"]
    logs = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert logs.stdout is not None
    assert logs.stderr is not None
    assert logs.stdout.readline()
    logs.stdout.close()
    assert logs.stderr.read() == b""
    logs.stderr.close()
    assert logs.wait(20) == 0


def test_completion_knows_commands_and_apps(tmp_path: Path) -> None:
    registry = tmp_path / "compose" / "app-registry"
    registry.mkdir(parents=True)
    (registry / "go-api.yaml").touch()
    (registry / "express-api.yaml").touch()

    def complete(words: str, at: int) -> list[str]:
        env = {**os.environ, "_FAIRWAY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        code = "from fairway.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("fairway de", 1) == ["deploy"]
    assert complete("fairway deploy go", 2) == ["go-api"]
    assert complete("fairway logs ", 2) == ["express-api", "go-api"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert run(["completion", shell]) == 0
    assert "_FAIRWAY_COMPLETE" in capsys.readouterr().out


def test_add_then_validate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "My App").mkdir()
    (tmp_path / "My App" / "requirements.txt").touch()
    assert run(["add", "My App"]) == 0
    assert "http://my-app.localhost:8080" in capsys.readouterr().out
    assert run(["validate"]) == 0
    entry = tmp_path / "compose" / "app-registry" / "my-app.yaml"
    entry.write_text(entry.read_text() + "health: {conditions: ['[STATUS] = 200']}\n")
    (tmp_path / "My App" / "below").mkdir()
    os.chdir(tmp_path / "My App" / "below")
    assert run(["validate"]) == 2
    captured = capsys.readouterr()
    assert "compose/app-registry/my-app.yaml:" in captured.err
    assert "character 10" in captured.err
    assert run(["validate", "--json"]) == 2
    assert '"field": "health.conditions' in capsys.readouterr().out


def test_logs_from_files_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / ".fairway" / "logs"
    (tmp_path / ".fairway" / "run").mkdir(parents=True)
    for app, lines in {
        "a": '{"level":"error","msg":"no \\u001b[2J","status":500}\n',
        "b": "plain \x1b]0;owned\x07\n",
        "_fairway": "own\n",
    }.items():
        (folder / app).mkdir(parents=True)
        (folder / app / "web.1.log").write_text(lines)
    assert run(["logs"]) == 0
    out = capsys.readouterr().out
    assert "a/web.1 | ERROR no \\x1b[2J  status=500" in out
    assert "b/web.1 | plain \\x1b]0;owned\\x07" in out
    assert "\x1b" not in out
    assert "own" not in out.replace("owned", "")
    assert run(["logs", "a", "--json"]) == 0
    told: Any = __import__("json").loads(capsys.readouterr().out)
    assert (told["app"], told["level"], told["offset"]) == ("a", "error", 0)
    assert run(["logs", "--grep", "PLAIN", "-i", "--raw"]) == 0
    assert capsys.readouterr().out == "plain \\x1b]0;owned\\x07\n"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--tls-cert", __file__], "--tls-key"),
        (["--tls-cert", __file__, "--tls-key", __file__, "--acme", "a@example.com"], "do not go together"),
        (["--acme-directory", "https://x"], "--acme EMAIL"),
        (["--trusted", "10.0.0.0/99"], "--trusted"),
        (["--access-log", "2"], "from 0 to 1"),
    ],
)
def test_options_of_the_door_that_make_no_sense(
    options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", *options]) == exits.USAGE
    assert word in capsys.readouterr().err


def test_a_password_becomes_a_hash_that_the_registry_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from io import StringIO

    from fairway.apps.values import password_hash
    from fairway.proxy.auth import verify_password

    monkeypatch.setattr("sys.stdin", StringIO("open sesame\n"))
    assert run(["door", "hash"]) == 0
    printed = capsys.readouterr().out.strip()
    assert verify_password(b"open sesame", password_hash(printed))
    monkeypatch.setattr("sys.stdin", StringIO(""))
    assert run(["door", "hash"]) == exits.USAGE


@pytest.mark.parametrize(
    ("forced", "coloured"), [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
)
def test_errors_are_coloured_as_output_is(
    forced: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR")
    for name, value in forced.items():
        monkeypatch.setenv(name, value)
    exits.report(FairwayError("no", hint="yes"))
    assert ("\x1b[" in capsys.readouterr().err) is coloured


def test_a_file_where_a_folder_belongs_is_no_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "compose" / "app-registry").mkdir(parents=True)
    (tmp_path / ".fairway").write_text("")
    assert run(["down"]) == exits.DENIED
    assert ".fairway/run/daemon.lock cannot be used: Not a directory." in capsys.readouterr().err
