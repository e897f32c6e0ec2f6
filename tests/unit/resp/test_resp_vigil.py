"""Staying awake is tried, kept while it gains, and left when it does not."""

from __future__ import annotations

from fairway.resp.vigil import CLOSE_S, REST, ROUND, WINDOW, Vigil


class Caller:
    """Makes one call after another; each takes a time that depends on whether somebody stays awake for it."""

    def __init__(self, asleep: float, awake: float) -> None:
        self.vigil = Vigil()
        self.now = 100.0
        self.asleep, self.awake = asleep, awake

    def call(self, joined: bool = False) -> bool:
        """Make a call; return whether it was stayed awake for."""
        vigil = self.vigil
        if vigil.rest:
            vigil.rest -= 1
            stays = False
        else:
            stays = vigil.begin(self.now)
            if joined:
                vigil.join()
        self.now += self.awake if stays else self.asleep
        return stays

    def calls(self, count: int) -> int:
        return sum(self.call() for _ in range(count))


def test_where_it_gains_it_is_done_but_for_the_trials() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    assert caller.calls(2 * WINDOW) == 0
    assert caller.calls((ROUND - 2) * WINDOW) >= (ROUND - 2) * WINDOW - 1
    assert caller.calls(100 * ROUND * WINDOW) > 95 * ROUND * WINDOW


def test_where_it_gains_nothing_the_trials_cost_little() -> None:
    caller = Caller(asleep=40e-6, awake=60e-6)
    caller.calls(4 * WINDOW + 1)
    assert repr(caller.vigil) == "<Vigil [resting, window 0]>"
    assert caller.vigil.rest == REST
    assert 0 < caller.calls(100 * REST) <= 100 * 2 * WINDOW + WINDOW


def test_it_is_left_within_a_window_once_it_does_not_gain_any_more() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(10 * WINDOW)
    assert caller.call()
    caller.awake = 200e-6
    assert caller.calls(10 * WINDOW) <= 2 * WINDOW


def test_it_is_taken_up_again_when_it_gains() -> None:
    caller = Caller(asleep=40e-6, awake=60e-6)
    caller.calls(8 * WINDOW)
    caller.asleep = 120e-6
    assert caller.calls(REST + 20 * WINDOW) >= 10 * WINDOW


def test_calls_far_apart_are_never_stayed_awake_for() -> None:
    caller = Caller(asleep=1.5 * CLOSE_S, awake=1.5 * CLOSE_S)
    assert caller.calls(5_000) == 0
    assert caller.vigil.rest == 0


def test_nobody_stays_awake_for_the_first_call_after_a_pause() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(10 * WINDOW)
    caller.now += 1.0
    assert not caller.call()
    assert caller.call()


def test_calls_that_others_join_tell_nothing() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    for _ in range(1_000):
        assert not caller.call(joined=True)
    assert repr(caller.vigil) == "<Vigil [asleep, window 0]>"
