"""What a hosted process inherits, and what it does not."""

from __future__ import annotations

from fairway.run.environment import compose, inherited


def test_only_what_programs_need_is_inherited():
    source = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "FAIRWAY_TOKEN": "y", "HOME": "/h"}
    assert inherited(source) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h"}


def test_a_path_is_always_there():
    assert "/usr/bin" in inherited({})["PATH"]


def test_later_layers_win_and_the_marker_cannot_be_forged():
    env = compose({"A": "1", "PYTHONUNBUFFERED": "0"}, {"A": "2", "FAIRWAY_INSTANCE": "forged"}, marker="real")
    assert (env["A"], env["PYTHONUNBUFFERED"], env["FAIRWAY_INSTANCE"]) == ("2", "0", "real")
