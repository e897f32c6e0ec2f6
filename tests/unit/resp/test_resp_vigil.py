"""Staying awake is tried, kept while it gains, and left when it does not."""

from __future__ import annotations

from fairway.resp.vigil import ASLEEP, AWAKE, CLOSE_S, PERIOD, SOONER, WINDOW, Vigil

TRIAL = (AWAKE + ASLEEP) * WINDOW


class Caller:
    """Makes one call after another; each takes a time that depends on whether somebody stays awake for it."""

    def __init__(self, asleep: float, awake: float) -> None:
        self.vigil = Vigil()
        self.now = 100.0
        self.asleep, self.awake = asleep, awake

    def call(self, joined: bool = False) -> bool:
        """Make a call; return whether it was stayed awake for."""
        vigil = self.vigil
        vigil.left -= 1
        if not vigil.left:
            vigil.judge(self.now)
        stays = vigil.awake
        vigil.joined = vigil.joined or joined
        self.now += self.awake if stays else self.asleep
        return stays

    def calls(self, count: int) -> int:
        return sum(self.call() for _ in range(count))


def test_the_first_calls_are_slept_over() -> None:
    assert Caller(asleep=120e-6, awake=60e-6).calls(ASLEEP * WINDOW) == 0


def test_where_it_gains_it_is_done_but_for_the_trials() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    assert caller.calls(100 * PERIOD * WINDOW) > 93 * PERIOD * WINDOW


def test_where_it_gains_nothing_the_trials_cost_little() -> None:
    caller = Caller(asleep=59e-6, awake=60e-6)
    assert 0 < caller.calls(100 * PERIOD * WINDOW) <= 100 * AWAKE * WINDOW


def test_where_sleeping_is_faster_than_staying_awake_was_it_is_not_tried_again() -> None:
    caller = Caller(asleep=80e-6, awake=100e-6)
    assert 0 < caller.calls(10 * PERIOD * WINDOW) <= AWAKE * WINDOW
    caller.awake = 40e-6
    caller.asleep = 105e-6
    assert caller.calls(100 * PERIOD * WINDOW) > 90 * PERIOD * WINDOW


def test_where_both_seem_to_share_a_processor_it_is_not_tried_at_all() -> None:
    caller = Caller(asleep=25e-6, awake=20e-6)
    assert caller.calls(10 * PERIOD * WINDOW) == 0
    caller.asleep = 100e-6
    caller.calls(2 * WINDOW + TRIAL)
    assert caller.calls(10 * WINDOW) == 10 * WINDOW


def test_a_gain_that_is_small_is_none() -> None:
    caller = Caller(asleep=60e-6, awake=55e-6)
    assert caller.calls(100 * PERIOD * WINDOW) <= 100 * AWAKE * WINDOW


def test_it_is_left_within_two_windows_once_it_does_not_gain_any_more() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(20 * WINDOW)
    assert caller.call()
    caller.awake = 200e-6
    assert caller.calls(20 * WINDOW) <= 3 * WINDOW


def test_one_slow_window_ends_nothing() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(20 * WINDOW)
    caller.awake = 200e-6
    caller.calls(WINDOW)
    caller.awake = 60e-6
    assert caller.calls(10 * WINDOW) == 10 * WINDOW


def test_it_is_tried_soon_where_sleeping_has_become_slow() -> None:
    caller = Caller(asleep=40e-6, awake=60e-6)
    caller.calls(ASLEEP * WINDOW + TRIAL + SOONER * WINDOW)
    caller.asleep = 120e-6
    assert caller.calls(3 * WINDOW + TRIAL) > WINDOW
    assert caller.call()


def test_sleeping_that_is_cheap_again_after_staying_awake_is_believed() -> None:
    """As where the server had been moved to the caller's processor meanwhile."""
    caller = Caller(asleep=120e-6, awake=60e-6)
    while not caller.call():
        continue
    caller.asleep = 30e-6
    caller.calls(TRIAL)
    assert caller.calls(20 * WINDOW) == 0


def test_calls_far_apart_are_never_stayed_awake_for() -> None:
    assert Caller(asleep=1.5 * CLOSE_S, awake=1.5 * CLOSE_S).calls(20_000) == 0


def test_after_a_pause_it_is_slept_until_it_is_known_to_be_one() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(20 * WINDOW)
    assert caller.call()
    for _ in range(5):
        caller.now += 60.0
        caller.calls(WINDOW)
        assert caller.calls(WINDOW) <= 2
        assert caller.calls(10 * WINDOW) == 10 * WINDOW


def test_after_a_pause_it_is_left_again_where_it_does_not_gain_any_more() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(20 * WINDOW)
    assert caller.call()
    caller.now += 60.0
    caller.asleep, caller.awake = 65e-6, 90e-6
    assert caller.calls(20 * WINDOW) <= 3 * WINDOW + 1
    caller.now += 60.0
    assert caller.calls(20 * WINDOW) <= AWAKE * WINDOW  # a trial


def test_a_burst_that_begins_slowly_is_tried_at_once() -> None:
    caller = Caller(asleep=40e-6, awake=60e-6)
    caller.calls(ASLEEP * WINDOW + TRIAL + 2 * WINDOW)
    caller.now += 60.0
    caller.asleep = 120e-6
    caller.calls(3 * WINDOW + TRIAL)
    assert caller.calls(10 * WINDOW) == 10 * WINDOW


def test_single_calls_after_a_burst_are_slept_over() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    caller.calls(20 * WINDOW)
    caller.asleep = caller.awake = 20e-3
    caller.calls(2 * WINDOW)
    assert caller.calls(20 * WINDOW) == 0


def test_calls_that_others_join_tell_nothing() -> None:
    caller = Caller(asleep=120e-6, awake=60e-6)
    assert sum(caller.call(joined=True) for _ in range(20_000)) == 0
    assert repr(caller.vigil).startswith("<Vigil [asleep")
