"""Paths, permissions, tokens and the daemon's lock."""

from __future__ import annotations

import os
import stat
import tempfile

import pytest

from fairway.platform import loglines
from fairway.platform.errors import AlreadyRunning, UnknownApp
from fairway.platform.layout import Layout
from fairway.platform.lock import DaemonLock, running_daemon


def test_folders_are_private(tmp_path):
    layout = Layout(tmp_path / "state")
    layout.daemon_log.parent.mkdir(parents=True)  # whoever logs before the daemon makes `logs` with the umask's mode
    layout.create()
    for folder in (layout.root, *(p for p in layout.root.iterdir() if p.is_dir())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_token_is_made_once_and_private(tmp_path):
    layout = Layout(tmp_path / "state")
    token = layout.token()
    assert len(token) >= 43
    assert layout.token() == token
    assert layout.app_token() != token
    assert stat.S_IMODE(layout.token_file.stat().st_mode) == 0o600


def test_a_socket_below_a_deep_folder_stays_within_the_kernels_limit(tmp_path):
    deep = Layout(tmp_path / ("d" * 120))
    assert len(os.fsencode(deep.door_socket(0))) < 104
    assert deep.door_socket(0) != Layout(tmp_path / ("e" * 120)).door_socket(0)
    assert Layout(tmp_path).door_socket(0).is_relative_to(tmp_path) or len(str(tmp_path)) > 70


def test_a_socket_folder_that_somebody_else_may_enter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = Layout(tmp_path / ("d" * 120))
    deep.create()
    folder = deep.door_socket(0).parent
    assert folder.parent == tmp_path
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="private folder"):
        deep.create()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(OSError):
        deep.create()


def test_log_files_are_listed_by_what_their_names_say(tmp_path):
    layout = Layout(tmp_path)
    for name in ("web.10.log", "web.2.log", "worker.1.log", "notes.txt", "web.x.log"):
        path = layout.logs / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [(f.app, f.process, f.number) for f in layout.log_files()] == [
        ("a", "web", 2),
        ("a", "web", 10),
        ("a", "worker", 1),
    ]
    assert layout.log_files("b") == []


def test_two_daemons(tmp_path):
    layout = Layout(tmp_path)
    layout.create()
    assert running_daemon(layout.lock) is None
    with DaemonLock(layout.lock) as lock:
        lock.write("http://127.0.0.1:7070")
        assert running_daemon(layout.lock) == (os.getpid(), "http://127.0.0.1:7070")
        with (
            pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}\) at http://127.0.0.1:7070"),
            DaemonLock(layout.lock),
        ):
            pass
    assert running_daemon(layout.lock) is None
    with DaemonLock(layout.lock):  # a file left behind is no lock
        pass


def test_last_lines_and_a_note(tmp_path):
    path = tmp_path / "logs" / "web.1.log"
    assert loglines.last_lines(path) == ()
    loglines.note(path, "web.1: hello")
    start = loglines.size(path)
    with path.open("ab") as file:
        file.write(b"one\n\x1b[31mtwo\x07\nthree \xff\nfour without end")
    assert loglines.last_lines(path, 3, since=start) == ("�[31mtwo�", "three �", "four without end")
    assert loglines.last_lines(path, 99, since=start)[0] == "one"
    with path.open("ab") as file:
        file.write(b"".join(b"%d %s\n" % (i, b"y" * 50) for i in range(5000)))
    assert len(loglines.last_lines(path, 50)) == 50
    assert loglines.last_lines(path, 1)[0].startswith("4999 ")


def test_an_unknown_app_names_the_nearest():
    assert UnknownApp("go-apy", ["go-api", "web"]).hint == "Did you mean 'go-api'?"
    assert UnknownApp("zzz", []).hint == "Known apps: none."
