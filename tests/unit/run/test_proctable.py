"""Which processes belong to an instance, over made-up tables: what is not certain is never a member."""

from __future__ import annotations

import os

import pytest

from fairway.run.proctable import ProcessEntry, members, resident


def entry(pid: int, ppid: int, pgrp: int | None = None, session: int | None = None, *, state: str = "S", at: int = 100):
    group = pid if pgrp is None else pgrp
    return ProcessEntry(pid, ppid, group, group if session is None else session, state, at, 4096)


def table(*entries: ProcessEntry) -> dict[int, ProcessEntry]:
    own = entry(os.getpid(), 1, at=5)
    return {e.pid: e for e in (entry(1, 0, 0, 0, at=0), entry(2, 0, 0, 0, at=0), own, *entries)}


BASE = 4_000_000  # above any pid of the test run itself


def test_group_session_and_descent():
    t = table(
        entry(BASE, os.getpid()),
        entry(BASE + 1, BASE, BASE),
        entry(BASE + 2, 1, BASE + 2, BASE),  # a job of its own within the session
        entry(BASE + 3, BASE + 1),  # left the session, still a child
        entry(BASE + 9, 1),
    )
    assert members(t, BASE, 100) == {BASE, BASE + 1, BASE + 2, BASE + 3}


def test_seeds_bring_their_descendants():
    t = table(entry(BASE, os.getpid(), state="Z"), entry(BASE + 5, 1), entry(BASE + 6, BASE + 5))
    assert members(t, BASE, 100, [BASE + 5]) == {BASE + 5, BASE + 6}


def test_zombies_hold_nothing():
    assert members(table(entry(BASE, os.getpid(), state="Z")), BASE, 100) == set()


def test_older_processes_are_never_members_even_with_the_same_group():
    t = table(entry(BASE, 1), entry(BASE + 1, BASE, BASE, at=99))
    assert members(t, BASE, 100, [BASE + 1]) == {BASE}


def test_the_caller_its_ancestors_and_init_are_never_members():
    t = table(entry(BASE, os.getpid()), entry(BASE + 1, 1, 0, 0))
    assert members(t, BASE, 100, [os.getpid(), 1, 2]) == {BASE}


@pytest.mark.parametrize(("leader", "since"), [(0, 100), (1, 100), (-1, 100), (BASE, 0)])
def test_group_zero_is_refused(leader, since):
    with pytest.raises(ValueError, match="expected a leader"):
        members(table(entry(BASE, 0, 0, 0)), leader, since)


def test_without_a_leader_only_seeds_count():
    t = table(entry(BASE, 1), entry(BASE + 1, 1, BASE, BASE))
    assert members(t, None, 100, [BASE + 1]) == {BASE + 1}


def test_resident_adds_up_what_is_there():
    assert resident(table(entry(BASE, 1)), [BASE, BASE + 1]) == 4096
