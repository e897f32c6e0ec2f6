"""Order of apps by what they depend on."""

from __future__ import annotations

from fairway.platform.order import find_cycle, in_cycle, stop_order


def test_no_cycle():
    assert find_cycle({"a": ["b", "c"], "b": ["c"], "c": [], "d": ["elsewhere"]}) == ()


def test_self_dependency_is_a_cycle():
    assert find_cycle({"a": ["a"]}) == ("a", "a")


def test_every_member_of_every_cycle_is_found_and_the_others_are_not():
    found = in_cycle({"a": ["b"], "b": ["a"], "c": ["a"], "x": ["y"], "y": ["z"], "z": ["x"], "free": []})
    assert sorted(found) == ["a", "b", "x", "y", "z"]
    assert found["a"] == ("a", "b", "a")


def test_a_thousand_in_a_row():
    chain = {f"a{i}": [f"a{i + 1}"] for i in range(1000)}
    assert find_cycle(chain) == ()
    assert stop_order(chain)[0] == ["a0"]


def test_what_others_need_stops_last():
    assert stop_order({"api": ["db", "cache"], "db": [], "cache": ["db"], "page": ["api"]}) == [
        ["page"],
        ["api"],
        ["cache"],
        ["db"],
    ]


def test_a_cycle_stops_together():
    assert stop_order({"a": ["b"], "b": ["a"]}) == [["a", "b"]]
